"""Trials compared through Ray are compared as in one process, and one that fails is told."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import pytest

from ticketsweep.config import TrialConfig
from ticketsweep.errors import ExchangeError
from ticketsweep.planning import load_data
from ticketsweep.progress import StageProgress
from ticketsweep.results.function import PREDICTIONS, TRANSFER
from ticketsweep.revisit.jobs import Asked, Ended, Job, jobs_of
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.sweep.comparing import compare_trials
from ticketsweep.trial import run_trial


@dataclass
class Heard:
    """An observer that writes down what it is told."""

    trials: list[Ended] = field(default_factory=list)
    stages: list[str] = field(default_factory=list)
    stop_at: str = ""

    def phase(self, text: str) -> None:
        self.stages.append(text)

    def begun(self, trials: int) -> None:
        self.stages.append(f"{trials} trials")

    def stepped(self, trial_id: str, progress: StageProgress) -> None:
        self.stages.append(progress.stage)
        if progress.stage == self.stop_at:
            raise KeyboardInterrupt

    def ended(self, trial: Ended) -> None:
        self.trials.append(trial)


@pytest.fixture
def filled(storage: Storage) -> Storage:
    """Three trials of one sweep."""
    for scale in (1.0, 1.5, 2.0):
        config = TrialConfig.model_validate(
            {
                "model": "fc-16",
                "dataset": "digits",
                "device": "cpu",
                "weight_scale": scale,
                "train": {"steps": 5, "batch_size": 32},
                "replicates": {"init": 2, "data": 2, "gate": 1},
            }
        )
        for _ in run_trial(config, dataset=load_data(config), storage=storage, sweep="mini"):
            pass
    return storage


def jobs(storage: Storage) -> list[Job]:
    database = Database(storage)
    rows = database.trials("mini").to_pylist()
    return jobs_of(database, rows, Asked((PREDICTIONS, TRANSFER), None), warn=pytest.fail)


def compared(storage: Storage, work: list[Job], heard: Heard, *settings: str) -> list[Ended]:
    return compare_trials(work, storage=storage, settings=settings, address=None, observer=heard)


def test_an_interrupt_keeps_what_is_stored_and_the_next_run_goes_on(filled) -> None:
    work = jobs(filled)
    with pytest.raises(KeyboardInterrupt):
        compared(filled, work[:1], Heard(stop_at="transfer"))
    rest = jobs(filled)
    assert [[each.kind for each in job.works] for job in rest] == [
        [TRANSFER], [PREDICTIONS, TRANSFER], [PREDICTIONS, TRANSFER],
    ]  # fmt: skip
    with pytest.raises(ExchangeError, match="a setting has changed"):
        compared(filled, work[:1], Heard(), "seed=9")


def test_an_error_that_nobody_foresaw_ends_one_trial_and_not_the_command(
    filled, monkeypatch
) -> None:
    monkeypatch.setattr("ticketsweep.sweep.comparing.local_cpus", lambda: 1)
    odd, *others = jobs(filled)
    odd = dataclasses.replace(odd, works=(dataclasses.replace(odd.works[0], kind="odd"),))
    found = compared(filled, [odd, *others], Heard())
    assert [each.error for each in found] == ["KeyError: 'odd'", None, None]
    assert [each.trial_id for each in jobs(filled)] == [odd.trial_id]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_many_trials_are_compared_by_ray_as_in_one_process(filled) -> None:
    first, *others = jobs(filled)
    alone = Heard()
    compared(filled, [first], alone)
    assert "starting Ray" not in alone.stages
    here = Database(filled).comparisons(trial=first.trial_id).to_pylist()
    (filled.local / f"comparisons/sweep=mini/{first.trial_id}.parquet").unlink()
    heard = Heard()
    found = compared(filled, [first, *others], heard)
    assert "starting Ray" in heard.stages
    assert sorted(each.trial_id for each in found) == sorted(j.trial_id for j in (first, *others))
    assert {each.error for each in heard.trials} == {None}
    assert Database(filled).comparisons(trial=first.trial_id).to_pylist() == here
    assert jobs(filled) == []
