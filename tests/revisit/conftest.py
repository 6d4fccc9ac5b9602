"""Real trials on digits, and what makes their tickets again."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch

from ticketsweep.config import TrialConfig
from ticketsweep.planning import load_data
from ticketsweep.results.rows import Row
from ticketsweep.revisit.jobs import Asked, Job, config_now, jobs_of
from ticketsweep.revisit.pairs import replicates_of
from ticketsweep.revisit.tickets import TicketPack, remade_tickets
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.trial import run_trial

FAST = {
    "model": "fc-16",
    "dataset": "digits",
    "device": os.environ.get("TICKETSWEEP_TEST_DEVICE", "cpu"),
    "rewind_step": 10,
    "gate": {"family": "gaussian", "l0_strength": 0.2},
    "train": {"steps": 40, "batch_size": 32},
    "retrain": {"steps": 20, "batch_size": 32},
    "replicates": {"init": 2, "data": 2, "gate": 1},
}


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


def ended(generator: Generator[Any, None, Any]) -> Any:
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


@pytest.fixture(scope="session", name="ended")
def _ended() -> Callable[..., Any]:
    """Runs a generator to its end, for what it returns."""
    return ended


@pytest.fixture(scope="session")
def run_fast() -> Callable[..., Row]:
    """Stores a small trial with these settings; returns its row."""

    def run(storage: Storage, sweep: str = "s", **settings: Any) -> Row:
        config = TrialConfig.model_validate(FAST | settings)
        return ended(run_trial(config, dataset=load_data(config), storage=storage, sweep=sweep)).row

    return run


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.open(str(tmp_path / "storage"), create=True)


@pytest.fixture
def job_of() -> Callable[..., Job | None]:
    """What a sweep's only trial still lacks of some kinds."""

    def job(
        storage: Storage, *kinds: str, sweep: str = "s", steps: int | None = None
    ) -> Job | None:
        database = Database(storage)
        rows = database.trials(sweep).to_pylist()
        jobs = jobs_of(database, rows, Asked(kinds, steps), warn=pytest.fail)
        return jobs[0] if jobs else None

    return job


@pytest.fixture(scope="session")
def stored(tmp_path_factory, run_fast) -> Storage:
    """One trial of four replicates, whose weights are trained up to a rewinding step."""
    storage = Storage.open(str(tmp_path_factory.mktemp("revisit") / "storage"), create=True)
    run_fast(storage)
    return storage


@pytest.fixture(scope="session")
def pack(stored) -> TicketPack:
    """Its tickets."""
    database = Database(stored)
    (row,) = database.trials("s").to_pylist()
    config = config_now(row, [])
    replicates = replicates_of(database.replicates("s").to_pylist())
    return ended(
        remade_tickets(database, row, replicates, config, load_data(config), retrain_steps=None)
    )
