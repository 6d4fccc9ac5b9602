"""A worker's own part, without Ray around it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from ticketsweep.config import TrialConfig
from ticketsweep.planning import DataKey, data_key, load_data
from ticketsweep.progress import Alive
from ticketsweep.store.paths import Storage
from ticketsweep.sweep.worker import REPORT, Report, Started, Stored, TrialWorker
from ticketsweep.train.data import Dataset

CONFIG = TrialConfig.model_validate(
    {
        "model": "fc-16",
        "dataset": "digits",
        "train": {"steps": 5, "batch_size": 64},
        "replicates": {"init": 1, "data": 1, "gate": 1},
    }
)
MakeWorker = Callable[..., TrialWorker]


JOB: dict[str, Any] = {"search": None, "failures": 0, "rungs": [], "seconds": math.inf}


@pytest.fixture(scope="module")
def datasets() -> dict[DataKey, Dataset]:
    return {data_key(CONFIG): load_data(CONFIG)}


@pytest.fixture
def make_worker(storage: Storage, datasets: dict[DataKey, Dataset]) -> MakeWorker:
    def make(config: TrialConfig = CONFIG, **options: Any) -> TrialWorker:
        worker = TrialWorker.__new__(TrialWorker)  # Tune's own part wants a running trial
        job = {"config": config.model_dump_json(), **JOB}
        worker.setup(job, datasets, str(storage.local), "mini", **options)
        return worker

    return make


def reports(worker: TrialWorker) -> list[Report]:
    found = []
    while True:
        result = worker.step()
        found.append(result[REPORT])
        if result["done"]:
            return found


def stored(worker: TrialWorker) -> dict[str, Any]:
    report = reports(worker)[-1]
    assert isinstance(report, Stored), report
    return dict(report.row)


def test_a_trial_without_a_share_of_a_gpu_is_trained_on_the_cpu(
    make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # a GPU that is another trial's
    assert stored(make_worker(gpus=0))["device"] == "cpu"


def test_a_worker_whose_storage_is_away_tells_so_and_begins_once_it_is_back(
    make_worker: MakeWorker, storage: Storage
) -> None:
    assert storage.local is not None
    away = storage.local.with_name("away")
    storage.local.rename(away)
    worker = make_worker(patience=60)
    assert isinstance(worker.step()[REPORT], Started)
    waiting = worker.step()[REPORT]
    assert isinstance(waiting, Alive)
    assert str(storage.local) in waiting.waiting
    away.rename(storage.local)
    assert stored(worker)["status"] == "complete"


def test_a_worker_takes_up_one_trial_after_another(make_worker: MakeWorker) -> None:
    worker = make_worker()
    first = stored(worker)
    job = {"config": CONFIG.model_copy(update={"seed": 1}).model_dump_json()}
    assert worker.reset_config({**job, **JOB})
    second = stored(worker)
    assert (first["status"], second["status"]) == ("complete", "complete")
    assert json.loads(second["config"])["seed"] == 1
    assert first["trial_id"] != second["trial_id"]


def test_a_wall_clock_that_goes_back_is_not_noticed(
    make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(2 * 10**9, 0, -3600))  # an hour back, whenever somebody looks
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    row = stored(make_worker())
    assert row["status"] == "complete"
    assert 0 < row["wall_seconds"] < 60
