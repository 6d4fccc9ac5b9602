from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ticketsweep.seeds import Replicate
from ticketsweep.train.checkpoint import Checkpoints
from ticketsweep.train.data import Dataset
from ticketsweep.train.gates.interface import Family
from ticketsweep.train.learning import CurvePoint
from ticketsweep.train.loop import Optimisation
from ticketsweep.train.models import build_model
from ticketsweep.train.packs import find_tickets
from ticketsweep.train.plan import Plan
from ticketsweep.train.spreading import Packs
from ticketsweep.train.tickets import Tickets
from ticketsweep.train.weights import Passage


@pytest.fixture(scope="session")
def real_data() -> Path:
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("TICKETSWEEP_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set TICKETSWEEP_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def blobs() -> Dataset:
    """Four classes of noisy 6x6 images in two channels: learnt in a hundred steps."""
    generator = np.random.default_rng(0)
    centres = generator.integers(40, 216, size=(4, 2, 6, 6))

    def split(n: int) -> tuple[np.ndarray, np.ndarray]:
        labels = generator.integers(0, 4, size=n)
        noise = generator.normal(0, 40, size=(n, 2, 6, 6))
        images = np.clip(centres[labels] + noise, 0, 255).astype(np.uint8)
        return images, labels.astype(np.int64)

    train, test = split(400), split(100)
    return Dataset("blobs", *train, *test, classes=4, digest="")


@pytest.fixture(scope="session")
def make_plan() -> Callable[..., Plan]:
    """A plan of a named model for the data set; keywords change its fields."""

    def make(
        dataset: Dataset,
        *,
        model: str,
        gate: Family,
        train: Optimisation,
        width: float = 1.0,
        **changes: Any,
    ) -> Plan:
        plan = Plan(
            build=functools.partial(
                build_model,
                model,
                input_shape=dataset.input_shape,
                classes=dataset.classes,
                width=width,
            ),
            validation=0.2,
            weight_init="kaiming_normal",
            weight_scale=1.0,
            rewind_step=0,
            weight_how=train,
            gate=gate,
            granularity="weight",
            inputs=False,
            include=(),
            exclude=(),
            joint=False,
            train=train,
            augment="none",
            precision="float32",
            retrain=None,
            controls=(),
        )
        return dataclasses.replace(plan, **changes)

    return make


@pytest.fixture(scope="session")
def reports_of() -> Callable[..., tuple[list[CurvePoint | Passage | Packs], Tickets]]:
    """Every report of a search, and what it came to; on $TICKETSWEEP_TEST_DEVICE if it is set."""

    def search(
        plan: Plan,
        dataset: Dataset,
        replicates: Sequence[Replicate],
        *,
        log_points: int,
        checkpoints: Checkpoints | None = None,
        pack: int | None = None,
        snapshots: bool = False,
    ) -> tuple[list[CurvePoint | Passage | Packs], Tickets]:
        found = find_tickets(
            plan,
            dataset,
            replicates,
            log_points=log_points,
            devices=[os.environ.get("TICKETSWEEP_TEST_DEVICE", "cpu")],
            checkpoints=checkpoints or Checkpoints(None),
            pack=pack,
            snapshots=snapshots,
        )
        reports = []
        while True:
            try:
                reports.append(next(found))
            except StopIteration as stop:
                return reports, stop.value

    return search
