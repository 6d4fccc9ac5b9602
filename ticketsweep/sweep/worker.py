"""What runs in a Ray worker: one trial after another in the same process."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import asdict
from typing import Any

import torch
from ray import tune

from ticketsweep.config import TrialConfig
from ticketsweep.errors import UserError
from ticketsweep.store.paths import Storage
from ticketsweep.train.data import Dataset
from ticketsweep.trial import Progress, TrialOutcome, run_trial


class TrialWorker(tune.Trainable):
    """Tune's view of `run_trial`: one `step` is the stretch up to the next logged point.

    The process is reused for the next trial (`reset_config`), so Python, torch and the data are
    loaded once per worker and not once per trial.
    """

    _training: Generator[Progress, None, TrialOutcome]

    def setup(
        self,
        config: dict[str, Any],
        datasets: Mapping[str, Dataset] | None = None,
        storage: str = "",
        sweep: str = "",
        threads: int = 1,
    ) -> None:
        """Called once per process; all but `config` come through the object store."""
        assert datasets is not None
        torch.set_num_threads(threads)
        self._datasets, self._sweep = datasets, sweep
        self._masks = Storage.open(storage, create=False)  # `_storage` is taken by Tune
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up the next trial."""
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next logged point. The last result holds the trial's row, or a fault."""
        try:
            return {"progress": asdict(next(self._training))}
        except StopIteration as stop:
            outcome: TrialOutcome = stop.value
            return {"row": dict(outcome.row), "done": True}
        except UserError as error:  # it would be the same again, so Tune need not try
            return {"fault": " ".join(str(error).split()), "done": True}

    def _begin(self, job: Mapping[str, Any]) -> None:
        config = TrialConfig.model_validate(json.loads(job["config"]))
        self._training = run_trial(
            config,
            dataset=self._datasets[config.dataset],
            storage=self._masks,
            sweep=self._sweep,
            search=job["search"],
            failures=job["failures"],
        )
