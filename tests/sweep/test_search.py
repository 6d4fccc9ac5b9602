from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import math
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from ticketsweep.config import TrialConfig, trial_id
from ticketsweep.progress import UNDER_WAY
from ticketsweep.space import SweepSpec, parse_space
from ticketsweep.sweep.search import Search, Suggestion
from ticketsweep.sweep.stored import failures_of, to_be_tried_again

pytestmark = pytest.mark.usefixtures("quiet_optuna")

Row = dict[str, Any]
_CLOCK = itertools.count()


def identify(config: TrialConfig) -> str:
    return trial_id(config, data_digest="")


def space(sweep: Mapping[str, Any], **trial: Any) -> SweepSpec:
    return parse_space({**trial, "sweep": {"name": "s", **sweep}}, source="s.yaml")


def continuous(**sweep: Any) -> SweepSpec:
    return space(
        {"samples": 8, **sweep},
        weight_scale={"uniform": [1.0, 2.0]},
        gate={"l0_strength": {"loguniform": [0.1, 10]}},
    )


def row_of(suggestion: Suggestion, **figures: Any) -> Row:
    """A stored row whose figures follow from the configuration."""
    config = suggestion.config
    started = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=next(_CLOCK))
    row = {
        "trial_id": suggestion.trial_id,
        "status": "complete",
        "config": config.model_dump_json(),
        "search": suggestion.record,
        "started_at": started,
        "val_accuracy": 1 / (1 + abs(config.weight_scale - 1.3)),
        "sparsity": config.gate.l0_strength / (1 + config.gate.l0_strength),
        "metrics": [("loss", config.weight_scale)],
    }
    return row | figures


def restored(
    spec: SweepSpec, rows: list[Row] | None = None, *, journal: Path | None = None
) -> Search:
    search = Search(spec, identify=identify, journal=journal)
    search.restore(rows or [])
    return search


def told(search: Search, n: int, figures: Callable[[Suggestion], Row] = row_of) -> list[Row]:
    rows = []
    for _ in range(n):
        suggestion = search.ask()
        assert suggestion is not None
        rows.append(figures(suggestion))
        search.tell(rows[-1])
    return rows


def ids(rows: list[Row]) -> list[str]:
    return [row["trial_id"] for row in rows]


def trials(search: Search) -> list[optuna.trial.FrozenTrial]:
    return search._study.get_trials(deepcopy=False)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_no_id_is_given_out_twice(sampler: str) -> None:
    spec = space(
        {"samples": 30, "sampler": sampler},
        train={"batch_size": {"int": [1, 6]}},
        rewind_step={"choice": [0, 1, 2, 3, 4]},
    )
    search = restored(spec)
    running = [search.ask() for _ in range(5)]  # some stay out while others are told of
    rows = told(search, 25)
    given = [s.trial_id for s in running if s] + ids(rows)
    assert len(set(given)) == 30
    assert search.ask() is None  # five times six


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_resumed_search_goes_on_with_new_points(sampler: str) -> None:
    spec = continuous(sampler=sampler)
    first = told(restored(spec), 6)
    unfinished = first[:4]  # the driver was killed: two results were lost
    again = told(restored(spec, unfinished), 4)
    assert not set(ids(first)) & set(ids(again))


def test_a_search_is_reproducible() -> None:
    spec = continuous()
    first, second = (told(restored(spec), 6) for _ in range(2))
    assert ids(first) == ids(second)
    assert ids(told(restored(spec, first), 3)) == ids(told(restored(spec, first), 3))
    other = restored(continuous(seed=1)).ask()
    assert other is not None
    assert other.trial_id != first[0]["trial_id"]


@pytest.mark.parametrize(
    "bad",
    [
        {"status": "failed", "val_accuracy": None, "sparsity": None},
        {"val_accuracy": math.nan},
        {"sparsity": None},
        {"val_accuracy": math.inf},
    ],
    ids=["failed", "NaN", "None", "infinite"],
)
def test_a_trial_without_all_objectives_fails_in_the_study(bad: Row) -> None:
    spec = continuous()
    search = restored(spec)
    (row,) = told(search, 1, lambda suggestion: row_of(suggestion, **bad))
    assert [t.state for t in trials(search)] == [TrialState.FAIL]
    assert [t.state for t in trials(restored(spec, [row]))] == [TrialState.FAIL]


def test_objectives_keep_their_direction_and_order() -> None:
    spec = continuous(objectives={"sparsity": "max", "loss": "min"})
    search = restored(spec)
    (row,) = told(search, 1)
    assert [d.name for d in search._study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert search._study.metric_names == ["sparsity", "loss"]
    for study in (search, restored(spec, [row])):
        assert trials(study)[0].values == [row["sparsity"], dict(row["metrics"])["loss"]]


def test_what_is_restored_is_what_was_told() -> None:
    spec = continuous()
    search = restored(spec)
    rows = told(search, 6)
    again = restored(spec, rows[::-1])
    for before, after in zip(trials(search), trials(again), strict=True):
        assert before.params == after.params
        assert before.distributions == after.distributions
        assert before.values == after.values
        assert before.user_attrs == after.user_attrs


def test_a_repeated_suggestion_is_answered_from_the_store() -> None:
    spec = space({"samples": 9}, rewind_step={"choice": [0, 1, 2]}, seed={"int": [0, 2]})
    search = restored(spec)
    rows = told(search, 9)
    known = {row["trial_id"]: row for row in rows}
    for trial in trials(search):
        row = known[trial.user_attrs["trial_id"]]
        assert trial.values == [row["val_accuracy"], row["sparsity"]]
    assert search.ask() is None
    assert search.running == 0


def test_the_grid_is_exact_also_after_a_resume() -> None:
    spec = space(
        {"samples": 100, "sampler": "grid"},
        rewind_step={"choice": [0, 10]},
        gate={"temperature_schedule": {"choice": ["linear", "cosine", "constant"]}},
        train={"choice": [{"steps": 10, "batch_size": {"int": [1, 2]}}, {"steps": 20}]},
    )
    search = restored(spec)
    rows = told(search, 7)
    again = restored(spec, rows)
    rows += told(again, 18 - 7)
    assert again.ask() is None
    assert len(trials(again)) == 18
    found = {
        (c.rewind_step, c.gate.temperature_schedule, c.train.steps, c.train.batch_size)
        for c in (TrialConfig.model_validate_json(row["config"]) for row in rows)
    }
    default = TrialConfig().train.batch_size
    assert found == set(
        itertools.product((0, 10), ("linear", "cosine", "constant"), (10,), (1, 2))
    ) | set(itertools.product((0, 10), ("linear", "cosine", "constant"), (20,), (default,)))


def test_a_grid_over_a_vast_range_starts_at_once() -> None:
    spec = space({"samples": 3, "sampler": "grid"}, seed={"int": [0, 2**50]})
    assert len(set(ids(told(restored(spec), 3)))) == 3


def test_options_with_one_key_and_several_distributions() -> None:
    spec = space(
        {"samples": 24},
        gate={
            "choice": [
                {"temperature": {"uniform": [0.2, 0.4]}, "init": {"choice": [0.1, 0.2]}},
                {"temperature": {"uniform": [0.8, 1.0]}, "init": {"choice": [0.1, 0.2]}},
                {"temperature": 2.0},
            ]
        },
    )
    search = restored(spec)
    rows = told(search, 12)
    rows += told(restored(spec, rows), 12)
    gates = [TrialConfig.model_validate_json(row["config"]).gate for row in rows]
    assert {gate.init for gate in gates} == {0.1, 0.2, 0.5}
    assert any(0.2 <= gate.temperature <= 0.4 for gate in gates)
    assert any(0.8 <= gate.temperature <= 1.0 for gate in gates)
    again = restored(spec, rows)
    assert all(trial.state == TrialState.COMPLETE for trial in trials(again))


def test_generations_go_on_after_a_restore() -> None:
    spec = continuous(sampler="nsga2", samples=20)  # five a generation
    rows = told(restored(spec), 10)
    name = "NSGAIISampler:generation"
    search = restored(spec, rows)
    generations = [trial.system_attrs[name] for trial in trials(search)]
    assert generations == sorted(generations)
    assert generations[:5] == [0] * 5
    told(search, 6)
    later = [trial.system_attrs[name] for trial in trials(search)[10:]]
    assert generations[-1] <= later[0] <= generations[-1] + 1
    assert later[-1] > generations[-1]


def test_a_failed_trial_is_tried_again_with_its_own_configuration() -> None:
    spec = continuous()
    rows = told(restored(spec), 2)
    failed = row_of(restored(spec, rows).ask(), status="failed", val_accuracy=None, sparsity=None)
    search = restored(spec, [*rows, failed])
    suggestion = search.again(failed)
    assert suggestion.trial_id == failed["trial_id"]
    assert identify(suggestion.config) == failed["trial_id"]
    assert json.loads(suggestion.record)["params"] == json.loads(failed["search"])["params"]
    search.tell(row_of(suggestion))
    assert trials(search)[-1].state == TrialState.COMPLETE
    assert search.finished[suggestion.trial_id]["status"] == "complete"


def test_a_stopped_trial_is_pruned_and_counts_as_done() -> None:
    spec = continuous()
    search = restored(spec)
    rows = told(search, 2)
    rows += told(search, 1, lambda suggestion: row_of(suggestion, status="stopped"))
    cut_off = row_of(search.ask(), status="stopped", metrics=[("loss", 1.0), (UNDER_WAY, 1.0)])
    states = [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED]
    assert [trial.state for trial in trials(search)] == [*states, TrialState.RUNNING]
    again = restored(spec, [*rows, cut_off])
    assert [trial.state for trial in trials(again)] == [*states, TrialState.FAIL]
    assert to_be_tried_again([*rows, cut_off], spec.settings, retry_failed=True) == [cut_off]
    assert failures_of(cut_off) == 0
    suggestion = again.again(cut_off)
    again.tell(row_of(suggestion))
    assert [trial.state for trial in trials(again)][4:] == [TrialState.COMPLETE]
    assert len(again.finished) == 4
    told(again, 4)  # TPE takes pruned trials beside several objectives


def test_suggestions_that_run_at_the_same_time_keep_away_from_each_other() -> None:
    """Without what is running, a sampler that has found a good place suggests it to everybody."""

    def spread(of: Search) -> float:
        scales = []
        for _ in range(16):
            suggestion = of.ask()
            assert suggestion is not None
            scales.append(suggestion.config.weight_scale)
        return float(np.mean([abs(a - b) for a, b in itertools.combinations(scales, 2)]))

    spec = space(
        {"samples": 40, "objectives": {"val_accuracy": "max"}},
        weight_scale={"uniform": [1.0, 2.0]},
    )
    together, alone = [], []
    for seed in range(6):
        of = dataclasses.replace(spec, settings=spec.settings.model_copy(update={"seed": seed}))
        rows = told(restored(of), 20)
        together.append(spread(restored(of, rows)))
        liar = restored(of, rows)
        liar._sampler._constant_liar = False
        alone.append(spread(liar))
    assert np.mean(together) > 1.3 * np.mean(alone), (together, alone)


def test_a_trial_that_no_search_asked_for_does_no_harm() -> None:
    spec = continuous()
    (row,) = told(restored(spec), 1)
    row |= {"search": None, "status": "failed"}
    search = restored(spec, [row])
    assert trials(search) == []
    suggestion = search.again(row)
    assert suggestion.trial_id == row["trial_id"]
    search.tell(row_of(suggestion))
    told(search, 3)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "optuna" / "s.journal"


def read(journal: Path) -> optuna.Study:
    lock = JournalFileOpenLock(str(journal))
    backend = JournalFileBackend(str(journal), lock_obj=lock)
    return optuna.load_study(study_name="s", storage=JournalStorage(backend))


def test_the_journal_can_be_read_by_optuna(journal: Path) -> None:
    spec = space({"samples": 6}, rewind_step={"choice": [0, 1, 2]}, seed={"int": [0, 1]})
    rows = told(restored(spec, journal=journal), 3)
    search = restored(spec, rows, journal=journal)
    more = told(search, 2)
    left_running = search.ask()
    search.close()
    study = read(journal)
    assert study.metric_names == ["val_accuracy", "sparsity"]
    stored = {trial.user_attrs["trial_id"] for trial in study.trials}
    assert stored == {*ids(rows), *ids(more), left_running.trial_id}
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE, TrialState.FAIL}
    assert study.best_trials


def test_a_journal_that_was_cut_short_is_written_afresh(journal: Path) -> None:
    spec = continuous()
    rows = told(restored(spec, journal=journal), 3)
    journal.write_bytes(journal.read_bytes()[:-30])
    (journal.parent / f"{journal.name}.lock").write_text("")  # its owner was killed
    told(restored(spec, rows, journal=journal), 2)
    assert len(read(journal).trials) == 5


def test_a_journal_whose_disk_is_full_or_away_holds_nobody_up(
    journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = continuous(samples=30)
    search = restored(spec, journal=journal)
    rows = told(search, 2)
    whole = journal.stat().st_size

    def full(descriptor: int, content: bytes) -> int:
        if os.fstat(descriptor).st_size > whole + 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, content[:30])  # as much as there is room for

    write = os.write
    monkeypatch.setattr("ticketsweep.sweep.journal.os.write", full)
    rows += told(search, 3)
    assert journal.stat().st_size == whole  # and no half a line
    monkeypatch.undo()
    journal.parent.rename(journal.parent.with_name("away"))
    rows += told(search, 2)
    journal.parent.with_name("away").rename(journal.parent)
    assert len(read(journal).trials) < 7
    rows += told(search, 1)
    study = read(journal)
    assert [trial.user_attrs["trial_id"] for trial in study.trials] == ids(rows)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
