"""A small storage, written by the real writer, with masks that are known exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import MaskRow, TrialRows
from ticketsweep.store.writer import write_sweep, write_trial

SHAPES = {"fc1.weight": (20, 30), "fc2.weight": (7, 5)}
SEEDS = [(init, data, 7) for init in (1, 2) for data in (3, 4)]

StoreTrial = Callable[..., dict[str, np.ndarray]]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = Storage.open(str(tmp_path / "storage"), create=True)
    space = {"rewind_step": {"choice": [0, 100]}, "gate": {"l0_strength": {"uniform": [0.0, 1.0]}}}
    write_sweep(
        storage,
        {
            "sweep": "s",
            "created_at": datetime(2026, 1, 1, tzinfo=UTC),
            "version": "0",
            "space": json.dumps(space),
            "objectives": {"val_accuracy": "max", "sparsity": "max"},
            "samples": 4,
            "seed": 0,
        },
    )
    return storage


@pytest.fixture
def store_trial(storage: Storage) -> StoreTrial:
    def store(
        trial_id: str,
        *,
        rewind_step: int = 0,
        diverged: frozenset[int] = frozenset(),
        **columns: object,
    ) -> dict[str, np.ndarray]:
        """Store a complete trial; returns its masks, layer -> bool (replicate, *shape).

        The replicates in `diverged` have neither figures nor masks.
        """
        rng = np.random.default_rng(int(trial_id, 16))
        masks = {layer: rng.random((len(SEEDS), *shape)) < 0.4 for layer, shape in SHAPES.items()}
        row = {
            "trial_id": trial_id,
            "status": "complete",
            "rewind_step": rewind_step,
            "config": json.dumps({"rewind_step": rewind_step, "gate": {"l0_strength": 0.5}}),
            "val_accuracy": 0.9,
            "sparsity": 0.6,
            "metrics": {"loss": 0.3},
            "started_at": datetime(2026, 1, 2, tzinfo=UTC),
            "wall_seconds": 60.0,
            **columns,
        }
        replicates = [
            {
                "replicate": index,
                "init_seed": init,
                "data_seed": data,
                "gate_seed": gate,
                **(
                    {"metrics": {"diverged_at_step": 300.0}}
                    if index in diverged
                    else {
                        "val_accuracy": 0.88 + 0.02 * index,
                        "sparsity": 0.6,
                        "strong_accuracy": 0.9,
                        "random_mask_accuracy": 0.1 * index,
                        "metrics": {"random_mask_val_accuracy": 0.1},
                    }
                ),
            }
            for index, (init, data, gate) in enumerate(SEEDS)
        ]
        rows = [
            MaskRow.from_array(mask, replicate=r, step=9, layer=layer, layer_index=index)
            for index, (layer, each) in enumerate(masks.items())
            for r, mask in enumerate(each)
            if r not in diverged
        ]
        write_trial(storage, "s", TrialRows(row, replicates, rows))
        return masks

    return store


@pytest.fixture
def database(storage: Storage) -> Database:
    return Database(storage)
