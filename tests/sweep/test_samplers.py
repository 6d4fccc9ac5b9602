from __future__ import annotations

import random
from collections.abc import Iterable

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from ticketsweep.sweep import samplers
from ticketsweep.sweep.samplers import BoundedTPE, _Window

pytestmark = pytest.mark.usefixtures("quiet_optuna")


def ask(study: optuna.Study) -> optuna.Trial:
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    if trial.suggest_categorical("kind", ["a", "b"]) == "b":
        trial.suggest_int("n", 1, 9)
    return trial


def values(trial: optuna.Trial, objectives: int) -> list[float]:
    x = float(trial.params["x"])
    return [x * (1 - x) + trial.params.get("n", 0) / 50, 1 - x][:objectives]


def study_of(sampler: optuna.samplers.BaseSampler, objectives: int) -> optuna.Study:
    return optuna.create_study(sampler=sampler, directions=["maximize"] * objectives)


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_short_sweep_is_suggested_what_optunas_own_tpe_suggests(objectives: int) -> None:
    settings = {"multivariate": True, "group": True, "constant_liar": True}
    found = []
    for kind in (BoundedTPE, optuna.samplers.TPESampler):
        study = study_of(kind(seed=1, n_startup_trials=4, **settings), objectives)
        for _ in range(25):
            trial = ask(study)
            study.tell(trial, values(trial, objectives))
        found.append([trial.params for trial in study.trials])
    assert found[0] == found[1]


@pytest.mark.parametrize("objectives", [1, 2])
def test_of_a_long_sweep_are_shown_the_latest_the_best_and_what_is_running(
    objectives: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samplers, "SHOWN", 20)
    monkeypatch.setattr(samplers, "_GOOD", 5)
    study = study_of(optuna.samplers.RandomSampler(seed=2), objectives)
    window, chance = _Window(study), random.Random(0)
    running: dict[int, optuna.Trial] = {}
    for _ in range(100):
        trial = ask(study)
        running[trial.number] = trial
        if len(running) > 6:
            ended = running.pop(chance.choice(list(running)))
            if chance.random() < 0.1:
                study.tell(ended, state=TrialState.FAIL)
            else:
                study.tell(ended, values(ended, objectives))
        every = study.get_trials(deepcopy=False)
        shown = window._get_trials()
        numbers = [trial.number for trial in shown]
        assert len(set(numbers)) == len(numbers) <= 20 * 3 // 2 + 5 + len(running)
        assert set(numbers) >= {trial.number for trial in every[-20:]} | running.keys()
        told = (TrialState.COMPLETE,)
        complete = [trial for trial in every if trial.state == TrialState.COMPLETE]
        assert window._get_trials(states=told) == [t for t in shown if t.state in told]
        if complete and objectives == 1:
            assert best(complete) <= best(t for t in shown if t.state in told)
    assert len(shown) < 40


def best(trials: Iterable[FrozenTrial]) -> float:
    return max(trial.values[0] for trial in trials)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_long_sweep_still_finds_the_best_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "SHOWN", 40)
    sampler = samplers.make_sampler("tpe", 200, 3)
    study = study_of(sampler, 1)
    for _ in range(120):
        trial = study.ask()
        study.tell(trial, -abs(trial.suggest_float("x", 0, 100) - 37))
    late = [trial.params["x"] for trial in study.trials[-40:]]
    assert sorted(abs(x - 37) for x in late)[20] < 15  # by chance it would be 27
