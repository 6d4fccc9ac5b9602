"""That a long sweep does not fill its driver's memory with what Tune would keep."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from ticketsweep.space import SweepSpec
from ticketsweep.store.paths import Storage
from ticketsweep.sweep import forgetting
from ticketsweep.sweep.runner import run_sweep


@pytest.mark.exhaustive
def test_tune_keeps_but_the_latest_of_the_trials_that_have_ended(
    storage: Storage,
    recorder: Any,
    make_spec: Callable[..., SweepSpec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forgetting, "_KEPT", 4)
    counts: list[int] = []

    def count(kind: str, what: Any) -> None:
        if kind == "finished":
            gc.collect()
            from ray.tune.experiment import Trial

            counts.append(sum(issubclass(type(each), Trial) for each in gc.get_objects()))

    recorder.on_event = count
    spec = make_spec(
        model={"choice": ["fc-8", "fc-" + "-".join(["64"] * 24)]},
        weight_scale={"choice": [1.0, 1000.0]},  # the deep ones then fail
        gate={},
        seed={"int": [0, 7]},
        train={"steps": 2, "batch_size": 64},
        replicates={"init": 1, "data": 1, "gate": 1},
        sweep={"samples": 32, "sampler": "grid", "concurrency": 2, "max_failures": 0},
    )
    outcome = run_sweep(spec, storage=storage, address=None, tracking="off", observer=recorder)
    assert len(outcome.rows) == 32
    assert max(counts) <= 4 + 2 + 3, counts
