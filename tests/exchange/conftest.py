"""A storage with real trials on digits, one a kind of ticket; and files as other projects write."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from ticketsweep.config import TrialConfig
from ticketsweep.planning import load_data
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.trial import run_trial

GATE = {"family": "gaussian", "l0_strength": 0.2}
TRAIN = {"steps": 20, "batch_size": 32}
FEW = {"steps": 3, "batch_size": 32}
UNITS = {"granularity": "neuron"}
PRETRAIN = {"batch_size": 32, "lr": 0.01}
KINDS: Mapping[str, Mapping[str, Any]] = {
    "frozen": {"model": "fc-16"},
    "rewound": {"model": "fc-16", "rewind_step": 8, "activation": "prelu"},
    "joint": {"model": "fc-16", "weights": "joint"},
    "units": {"model": "fc-16", "rewind_step": 60, "gate": {**GATE, **UNITS, "inputs": True}},
    "norms": {"model": "resnet-20", "width": 0.25, "rewind_step": 12, "train": FEW},
    "unit-norms": {
        "model": "resnet-20",
        "width": 0.25,
        "rewind_step": 12,
        "gate": {**GATE, **UNITS},
        "train": FEW,
    },
    "convolutions": {"model": "conv-2", "width": 0.25, "rewind_step": 20, "train": FEW},
    "bf16": {"model": "fc-16", "train": {**TRAIN, "precision": "bf16"}},
}


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("TICKETSWEEP_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set TICKETSWEEP_TEST_DATA)")
    return folder


def _config(settings: Mapping[str, Any]) -> TrialConfig:
    plain = {
        "dataset": "digits",
        "gate": GATE,
        "train": TRAIN,
        "pretrain": PRETRAIN,
        "replicates": {"init": 2, "data": 1, "gate": 1},
        "device": "cpu",
        **settings,
    }
    return TrialConfig.model_validate(plain)


def _run(storage: Storage, settings: Mapping[str, Any], sweep: str) -> str:
    config = _config(settings)
    trial = run_trial(config, dataset=load_data(config), storage=storage, sweep=sweep)
    while True:
        try:
            next(trial)
        except StopIteration as end:
            return str(end.value.row["trial_id"])


@pytest.fixture(scope="session")
def trials(tmp_path_factory: pytest.TempPathFactory) -> tuple[Database, dict[str, str]]:
    """A database, only to be read, and the id of each kind's trial."""
    storage = Storage.open(str(tmp_path_factory.mktemp("exchange") / "storage"), create=True)
    ids = {kind: _run(storage, settings, kind) for kind, settings in KINDS.items()}
    return Database(storage), ids


@pytest.fixture(scope="session")
def run_small() -> Callable[[Storage, Mapping[str, Any], str], str]:
    """Runs a small trial with these settings under a sweep's name; returns its id."""
    return _run


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.open(str(tmp_path / "storage"), create=True)


@pytest.fixture(scope="session")
def foreign(real_data: Path) -> Path:
    """Files that open_lth's and hidden-networks' own code has written."""
    folder = real_data / "foreign"
    if not folder.is_dir():
        pytest.skip(f"no files of other projects at {folder}")
    return folder
