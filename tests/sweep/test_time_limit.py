"""A run whose time is up loses nothing: the next one ends with the same masks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ticketsweep.config import TrialConfig
from ticketsweep.planning import load_data
from ticketsweep.space import SweepSpec
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.under_way import trials_under_way
from ticketsweep.sweep import runner
from ticketsweep.sweep.budget import Budget
from ticketsweep.trial import run_trial

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive, pytest.mark.timeout(900)]
MakeSpec = Callable[..., SweepSpec]


def run(spec: SweepSpec, storage: Storage, observer: Any) -> runner.SweepOutcome:
    return runner.run_sweep(spec, storage=storage, address=None, tracking="off", observer=observer)


def masks(storage: Storage) -> dict[tuple[str, int, str], str]:
    rows = Database(storage).masks("mini", columns=["trial_id", "replicate", "layer", "digest"])
    return {(r["trial_id"], r["replicate"], r["layer"]): r["digest"] for r in rows.to_pylist()}


def test_trials_that_the_limit_cuts_off_are_gone_on_with(
    tmp_path: Path,
    make_spec: MakeSpec,
    make_recorder: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = make_spec(
        train={"steps": 1500, "batch_size": 64}, sweep={"samples": 2}, checkpoint_seconds=0.2
    )
    storage = Storage.open(str(tmp_path / "cut"), create=True)
    now = [0.0]
    first, second = make_recorder(), make_recorder()

    def watch(kind: str, what: Any) -> None:
        if kind == "progress" and what[1].step >= 500:
            now[0] = 101.0

    first.on_event = watch
    with monkeypatch.context() as patch:
        patch.setattr(runner, "Budget", lambda _: Budget(100, lambda: now[0]))
        # Its clock stands still, so no two looks would be seconds apart.
        patch.setattr("ticketsweep.sweep.budget._LOOKS", 0.0)
        cut = run(spec, storage, first)
    assert cut.out_of_time
    assert not cut.interrupted
    assert len(cut.rows) < 2
    begun = set(trials_under_way(storage)["mini"])
    assert begun & storage.checkpoints().keys()
    done = run(spec, storage, second)
    assert not done.out_of_time
    assert {row["trial_id"] for row in done.rows} >= begun
    assert [row["status"] for row in done.rows] == ["complete"] * 2
    assert storage.checkpoints() == {}
    assert trials_under_way(storage) == {}
    whole = Storage.open(str(tmp_path / "whole"), create=True)
    for row in done.rows:
        config = TrialConfig.model_validate_json(row["config"])
        deque(run_trial(config, dataset=load_data(config), storage=whole, sweep="mini"), maxlen=0)
    assert masks(storage) == masks(whole)
