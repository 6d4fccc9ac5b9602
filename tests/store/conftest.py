from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import MaskRow, TrialRows

LAYERS = (("fc1", (20, 31)), ("fc2", (10, 20)))
MakeTrial = Callable[..., TrialRows]


def make_trial(
    trial_id: str = "t0", *, status: str = "complete", seed: int = 0, replicates: int = 2
) -> TrialRows:
    """A small trial; `seed` changes every figure and mask of it."""
    rng = np.random.default_rng(seed)
    trial = {
        "trial_id": trial_id,
        "status": status,
        "steps_done": 10,
        "model": "lenet-300-100",
        "l0_strength": 0.5 + seed,
        "val_accuracy": float(rng.random()),
        "metrics": {"seed": float(seed)},
        "started_at": datetime(2026, 1, 1, 12, 0, seed % 60, tzinfo=UTC),
    }
    if status == "failed":
        return TrialRows({**trial, "error": "it diverged"})
    masks = [
        MaskRow.from_array(
            rng.random(shape) < 0.3, replicate=replicate, step=10, layer=layer, layer_index=index
        )
        for replicate in range(replicates)
        for index, (layer, shape) in enumerate(LAYERS)
    ]
    own = [
        {"replicate": r, "init_seed": seed, "val_accuracy": 0.5, "metrics": {"r": 1.0}}
        for r in range(replicates)
    ]
    curves = [
        {"replicate": r, "step": step, "loss": float(seed)}
        for r in range(replicates)
        for step in (0, 5)
    ]
    return TrialRows(trial, own, masks, curves)


@pytest.fixture(name="make_trial", scope="session")
def _make_trial() -> MakeTrial:
    return make_trial


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.open(str(tmp_path / "storage"), create=True)


@pytest.fixture
def database(storage: Storage) -> Database:
    return Database(storage)
