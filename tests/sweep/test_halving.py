"""Trials are stopped as Ray's ASHA stops them, and have their tickets where they are stopped."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers.async_hyperband import _Bracket

from ticketsweep.config import TrialConfig
from ticketsweep.errors import ConfigError
from ticketsweep.planning import load_data
from ticketsweep.progress import UNDER_WAY, Rung
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.verify import verify
from ticketsweep.sweep.halving import Halving, rungs_of
from ticketsweep.sweep_settings import Asha
from ticketsweep.trial import run_trial

MakeSpec = Callable[..., Any]


@pytest.mark.parametrize(
    ("asha", "steps", "rungs"),
    [
        (Asha(), 2700, [100, 300, 900]),
        (Asha(), 10, [1, 3, 9]),
        (Asha(), 1, []),
        (Asha(grace_steps=50, reduction_factor=4), 3200, [50, 200, 800]),
        (Asha(grace_steps=50), 50, []),
    ],
)
def test_rungs_are_below_the_last_step(asha: Asha, steps: int, rungs: list[int]) -> None:
    assert rungs_of(asha, steps) == rungs


def at(trial: int, step: int, metric: str, value: float) -> dict[str, Any]:
    metrics = {f"{metric}_at_step_{step}": value, "loss": 0.5}
    return {"trial_id": str(trial), "steps_done": step, "metrics": list(metrics.items())}


@pytest.mark.parametrize("metric", ["loss", "val_accuracy"])
def test_those_are_stopped_that_rays_asha_would_stop(metric: Any) -> None:
    chance = random.Random(0)
    halving = Halving(Asha(metric=metric, reduction_factor=4), [])
    bracket = _Bracket(min_t=3, max_t=100, reduction_factor=4, s=0)
    going = list(range(200))
    for step in (3, 12, 48):
        on = []
        for trial in going:
            value = chance.random()
            stops = halving.stops(at(trial, step, metric, value))
            reward = -value if metric == "loss" else value
            assert stops == (
                bracket.on_result(SimpleNamespace(trial_id=trial), step, reward) == "STOP"
            )
            on += [] if stops else [trial]
        assert 0 < len(on) < 0.5 * len(going)
        going = on


def test_decisions_after_a_restart_are_those_without_one() -> None:
    chance = random.Random(1)
    rows = [at(trial, 3, "loss", chance.random()) for trial in range(60)]
    whole = Halving(Asha(), [])
    decisions = [whole.stops(row) for row in rows]
    again = Halving(Asha(), rows[:30])
    assert [again.stops(row) for row in rows[30:]] == decisions[30:]


def test_a_loss_that_is_not_finite_is_the_worst() -> None:
    halving = Halving(Asha(), [])
    assert not halving.stops(at(0, 3, "loss", float("nan")))  # nobody to compare it with
    assert not halving.stops(at(1, 3, "loss", float("inf")))
    assert not halving.stops(at(2, 3, "loss", 2.0))
    assert halving.stops(at(3, 3, "loss", float("nan")))


@pytest.mark.parametrize(
    ("scheduler", "fault"),
    [
        ("ash", "sweep.scheduler"),
        ({"asha": {"grace_steps": 0}}, "sweep.scheduler.asha.grace_steps must be >= 1, got 0"),
        ({"asha": {"metric": "strong_accuracy"}}, "sweep.scheduler.asha.metric must be loss or"),
        ({"hyperband": {}}, "hyperband"),
    ],
)
def test_a_scheduler_is_checked_before_anything_starts(
    make_spec: MakeSpec, scheduler: Any, fault: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_spec(sweep={"scheduler": scheduler})
    assert fault in " ".join(str(caught.value).split())


def test_a_scheduler_may_be_named_alone(make_spec: MakeSpec) -> None:
    assert make_spec(sweep={"scheduler": "none"}).settings.scheduler is None
    assert make_spec(sweep={"scheduler": "asha"}).settings.scheduler.asha == Asha()


CONFIG = TrialConfig.model_validate(
    {
        "model": "fc-16",
        "dataset": "digits",
        "weight_scale": 1.5,
        "weights": "joint",
        "train": {"steps": 30, "batch_size": 64},
        "checkpoint_seconds": 0,
    }
)


def trained(
    config: TrialConfig, storage: Storage, *, rungs: Collection[int], until: int | None = None
) -> list[Rung]:
    """The rungs that a trial came to; it is cut off at step `until`."""
    found = []
    trial = run_trial(config, dataset=load_data(config), storage=storage, sweep="s", rungs=rungs)
    for report in trial:
        if isinstance(report, Rung):
            found.append(report)
            if report.row["steps_done"] == until:
                trial.close()
    return found


@pytest.mark.parametrize("pack", [None, 2])
def test_a_trial_stores_its_ticket_at_each_rung_and_ends_as_without_them(
    pack: int | None, tmp_path: Any, storage: Storage
) -> None:
    config = CONFIG.model_copy(update={"pack": pack})
    other = Storage.open(str(tmp_path / "other"), create=True)
    trained(config, other, rungs=())
    (first,) = trained(config, storage, rungs=(4, 11), until=4)
    database = Database(storage)
    (row,) = database.trials("s").to_pylist()
    metrics = dict(row["metrics"])
    assert (row["status"], row["steps_done"], row["strong_accuracy"]) == ("stopped", 4, None)
    assert (metrics[UNDER_WAY], metrics["loss_at_step_4"]) == (1, metrics["loss"])
    assert metrics["packs"] == (1 if pack is None else 2)
    assert 0 < metrics["joint_val_accuracy"] <= 1
    assert None not in (row["val_accuracy"], row["sparsity"], row["stability"])
    assert first.row["trial_id"] == row["trial_id"]
    masks = database.masks("s", row["trial_id"])
    assert set(masks["step"].to_pylist()) == {4}
    assert len(masks) == 4 * 2
    assert verify(storage, report=lambda done, total: None).sound
    # Cut off there, it goes on from its checkpoint, which is of that step or the one before.
    later = trained(config, storage, rungs=(4, 11))
    assert [rung.row["steps_done"] for rung in later][-1] == 11
    (row,) = database.trials("s").to_pylist()
    metrics = dict(row["metrics"])
    assert row["status"] == "complete"
    assert UNDER_WAY not in metrics
    assert {"loss_at_step_4", "loss_at_step_11"} < metrics.keys()
    assert json.loads(row["config"]) == config.model_dump(mode="json")

    def tickets(of: Storage) -> Any:
        return Database(of).masks("s", columns=["replicate", "layer", "step", "bits"]).to_pylist()

    assert tickets(storage) == tickets(other)
