"""Sweeps written by the real writer, as sound or as odd as a test wants them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from ticketsweep.config import TrialConfig
from ticketsweep.results.report import ReportData, report_data
from ticketsweep.results.sweeps import sweep_named, sweep_views
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import MaskRow, TrialRows
from ticketsweep.store.writer import write_sweep, write_trial

SHAPES = {"fc1.weight": (20, 30), "fc2.weight": (5, 20)}
CROSSED = tuple((init, data, 7) for init in (1, 2, 3) for data in (4, 5, 6))
SPACE = {"rewind_step": {"choice": [0, 100]}, "gate": {"l0_strength": {"uniform": [0.1, 5.0]}}}


class Sweep:
    """A storage with one sweep `s`, to which trials are added."""

    def __init__(self, folder: Path) -> None:
        self.storage = Storage.open(str(folder), create=True)
        self._count = 0
        write_sweep(
            self.storage,
            {
                "sweep": "s",
                "created_at": datetime(2026, 1, 1, tzinfo=UTC),
                "version": "0",
                "space": json.dumps(SPACE),
                "objectives": {"val_accuracy": "max", "sparsity": "max"},
                "samples": 4,
                "seed": 0,
            },
        )

    def add(
        self,
        *,
        seeds: Sequence[tuple[int, int, int]] = CROSSED,
        density: float = 0.4,
        shared: float = 0.7,
        shapes: dict[str, tuple[int, ...]] = SHAPES,
        figures: bool = True,
        steps: Sequence[int] = (9,),
        name: str = "s",
        like: str | None = None,
        **columns: object,
    ) -> str:
        """Add a trial whose masks of one init share about `shared` of their gates.

        Parameters
        ----------
        name: the sweep that it is added to.
        like: a trial whose settings it has, with another seed.
        """
        self._count += 1
        trial_id = f"{self._count:08x}{self._count:08x}"
        place = self._count if like is None else int(like[:8], 16)
        config = TrialConfig(
            rewind_step=100 * (place % 2),
            gate={"l0_strength": 0.5 * place},
            seed=0 if like is None else 1,
        )
        row = {
            "trial_id": trial_id,
            "status": "complete",
            "model": "lenet-300-100",
            "dataset": "mnist",
            "gate_family": "gaussian",
            "granularity": "weight",
            "weights": "frozen",
            "config": config.model_dump_json(),
            "val_accuracy": 0.9 + 0.01 * (self._count % 3),
            "strong_accuracy": 0.9,
            "density": density,
            "sparsity": 1 - density,
            "metrics": {"undecided": 0.2, "loss": 0.3},
            "wall_seconds": 60.0,
            "started_at": datetime(2026, 1, 2, tzinfo=UTC),
            "version": "0",
            "host": "<b>host</b>",
            **columns,
        }
        if row["status"] == "failed":
            write_trial(self.storage, name, TrialRows(row))
            return trial_id
        rng = np.random.default_rng(self._count)
        base = {
            init: {layer: rng.random(shape) < density for layer, shape in shapes.items()}
            for init, *_ in seeds
        }
        masks, replicates, curves = [], [], []
        for replicate, (init, data, gate) in enumerate(seeds):
            for index, (layer, shape) in enumerate(shapes.items()):
                fresh = rng.random(shape) < density
                mask = np.where(rng.random(shape) < shared, base[init][layer], fresh)
                masks += [
                    MaskRow.from_array(
                        mask if step == steps[-1] else fresh,
                        replicate=replicate,
                        step=step,
                        layer=layer,
                        layer_index=index,
                    )
                    for step in steps
                ]
            known = {
                "val_accuracy": 0.9 + 0.01 * replicate - (0.0 if like is None else 0.02),
                "strong_accuracy": 0.9 if like is None else 0.85 + 0.01 * replicate,
                "shuffled_mask_accuracy": 0.2,
                "sparsity": 1 - density,
                "density": density,
                "metrics": {"shuffled_mask_val_accuracy": 0.2},
            }
            replicates.append(
                {
                    "replicate": replicate,
                    "init_seed": init,
                    "data_seed": data,
                    "gate_seed": gate,
                    **(known if figures else {}),
                }
            )
            curves += [
                {"replicate": replicate, "step": s, "loss": 1 / s, "val_accuracy": 0.5}
                for s in (1, 2, 4)
            ]
        write_trial(self.storage, name, TrialRows(row, replicates, masks, curves))
        return trial_id

    def data(self) -> ReportData:
        """What a report of it draws on."""
        database = Database(self.storage)
        views = sweep_views(database.sweeps().to_pylist(), database.trials().to_pylist())
        view = sweep_named(views, "s", storage="here")
        return report_data(database, view, importance=[], storage=None)


@pytest.fixture(scope="session")
def sweep_in() -> Callable[[Path], Sweep]:
    return Sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path / "storage")
