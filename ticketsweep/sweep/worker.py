"""What runs in a Ray worker: one trial after another in the same process."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from ray import tune

from ticketsweep.config import TrialConfig
from ticketsweep.errors import MissingStorage, StorageError, UserError
from ticketsweep.narration import narrated
from ticketsweep.planning import DataKey, data_key, identify
from ticketsweep.progress import Alive, Progress, Rung, StageProgress
from ticketsweep.store.logs import trial_log
from ticketsweep.store.paths import Storage
from ticketsweep.store.remote import is_remote
from ticketsweep.train.data import Dataset
from ticketsweep.trial import alive_while_waiting, run_trial

REPORT = "report"
"""The key of a result under which Tune passes on a `Report`."""


@dataclass(frozen=True)
class Started:
    """The trial has been taken up on this machine."""

    host: str


@dataclass(frozen=True)
class Stored:
    """The trial has ended; `row` is its row of the `trials` table."""

    row: Mapping[str, Any]


@dataclass(frozen=True)
class Refused:
    """The trial cannot be run or stored, and would not be if it were tried again."""

    reason: str


Report = Started | Progress | StageProgress | Alive | Rung | Stored | Refused


def _open(storage: str) -> Storage:
    """The storage, which the driver has opened before: a folder that is missing is away."""
    try:
        return Storage.open(storage, create=False)
    except MissingStorage as error:
        if is_remote(storage):
            raise
        raise StorageError(str(error)) from error


class TrialWorker(tune.Trainable):
    """Tune's view of `run_trial`: one `step` is the stretch up to the next report.

    The process is reused for the next trial (`reset_config`), so Python, torch and the data are
    loaded once per worker and not once per trial.
    """

    _training: Generator[Report, None, None]

    def setup(
        self,
        config: dict[str, Any],
        datasets: Mapping[DataKey, Dataset] | None = None,
        storage: str = "",
        sweep: str = "",
        patience: float = 0,
        gpus: float = 0,
        threads: int = 1,
    ) -> None:
        """Called once per process; all but `config` come through the object store."""
        assert datasets is not None
        torch.set_num_threads(threads)
        if 0 < gpus < 1 and torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(gpus)  # the others have the rest
        self._datasets, self._sweep, self._patience = datasets, sweep, patience
        self._gpus, self._uri = gpus, storage
        self._masks: Storage | None = None  # (`_storage` is taken by Tune.)
        self._training = self._reports(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up the next trial."""
        self._training = self._reports(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next report."""
        report = next(self._training)
        return {REPORT: report, "done": isinstance(report, (Stored, Refused))}

    def _reports(self, job: Mapping[str, Any]) -> Generator[Report, None, None]:
        last_by = time.monotonic() + job["seconds"]
        yield Started(platform.node())
        config = TrialConfig.model_validate(json.loads(job["config"]))
        if self._gpus == 0 and config.device == "auto":  # a cluster's Ray may show it others' GPUs
            config = config.model_copy(update={"device": "cpu"})
        # Not in `setup`, of whose waiting nobody would be told.
        if self._masks is None:
            opening = alive_while_waiting(lambda: _open(self._uri), seconds=self._patience)
            self._masks = yield from opening
        masks = self._masks
        dataset = self._datasets[data_key(config)]
        trial = run_trial(
            config,
            dataset=dataset,
            storage=masks,
            sweep=self._sweep,
            search=job["search"],
            failures=job["failures"],
            rungs=job["rungs"],
            patience=self._patience,
            gpus=max(1, int(self._gpus)),
            last_by=last_by,
        )
        try:
            with trial_log(masks, self._sweep, identify(config, dataset)) as log:
                outcome = yield from narrated(trial, log)
        except UserError as error:
            yield Refused(" ".join(str(error).split()))
        else:
            yield Stored(dict(outcome.row))
