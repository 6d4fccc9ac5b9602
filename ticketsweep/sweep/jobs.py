"""Which trial runs next, and what is done with its result: the driver's half of a sweep.

Nothing here knows Ray, which is started only where there is a job.
"""

from __future__ import annotations

import datetime
import platform
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from ticketsweep import __version__
from ticketsweep.progress import UNDER_WAY
from ticketsweep.records import identity_columns
from ticketsweep.results.rows import Row
from ticketsweep.space import SweepSpec
from ticketsweep.store.checkpoints import CheckpointFile
from ticketsweep.store.paths import Storage
from ticketsweep.store.patience import patiently
from ticketsweep.store.schema import TrialRows
from ticketsweep.store.writer import replace_row, write_trial
from ticketsweep.sweep.halving import Halving, rungs_of
from ticketsweep.sweep.search import Search, Suggestion
from ticketsweep.sweep.stored import failures_of, to_be_tried_again
from ticketsweep.trial import reuse_trial

T = TypeVar("T")


class JobQueue:
    """Failed trials that may be tried again, then new suggestions, until there are enough.

    A suggestion that another sweep has completed is copied from there and never run.
    """

    def __init__(self, spec: SweepSpec, search: Search, storage: Storage) -> None:
        self._settings, self._search, self._storage = spec.settings, search, storage
        self._again = deque(to_be_tried_again(search.finished.values(), spec.settings))
        self._failures = {str(row["trial_id"]): failures_of(row) for row in self._again}
        scheduler = spec.settings.scheduler
        self._halving: Halving | None = None
        if scheduler is not None:
            self._halving = Halving(scheduler.asha, search.finished.values())
        self._ahead: Suggestion | None = None
        self._jobs: dict[str, Suggestion] = {}
        self._places: Callable[[], int] = lambda: 0
        self._on_stored: Callable[[str, Row], None] | None = None
        self._on_wait: Callable[[str], None] | None = None
        self.exhausted = False

    @property
    def stored(self) -> int:
        """Trials of the sweep that need not be run."""
        return len(self._search.finished) - len(self._again)

    def open(
        self,
        *,
        places: Callable[[], int],
        on_stored: Callable[[str, Row], None],
        on_wait: Callable[[str], None],
    ) -> None:
        """Begin to give out jobs.

        Parameters
        ----------
        places: tells how many may be out at the moment; machines may join.
        on_stored: told of every trial (its id and row) that is stored from now on.
        on_wait: told, before each pause, why the storage has to be waited for.
        """
        self._places, self._on_stored, self._on_wait = places, on_stored, on_wait

    def look_ahead(self) -> bool:
        """Whether there is any job; the first one is kept for `next`."""
        self._ahead = self._ahead or self._take()
        return self._ahead is not None

    def has_work(self) -> bool:
        """Whether any job is left to be given out."""
        lacking = self._settings.samples - len(self._search.finished) - self._search.running
        return bool(self._ahead or self._again) or (lacking > 0 and not self.exhausted)

    def next(self, key: str) -> Suggestion | None:
        """The next job, filed under `key`; None while all places are taken, or without work."""
        if len(self._jobs) >= self._places() or not self.look_ahead():
            return None
        assert self._ahead is not None
        job, self._ahead = self._ahead, None
        self._jobs[key] = job
        return job

    def _take(self) -> Suggestion | None:
        """What is to be run next; what other sweeps have completed is stored on the way."""
        while self.has_work():
            suggestion = self._search.again(self._again.popleft()) if self._again else self._ask()
            if suggestion is None:
                break
            name, identity = self._settings.name, suggestion.trial_id
            record = suggestion.record
            row = self._patiently(
                partial(reuse_trial, self._storage, name, identity, search=record)
            )
            if row is None:
                return suggestion
            self._finish(row)
        return None

    def _ask(self) -> Suggestion | None:
        suggestion = self._search.ask()
        self.exhausted = suggestion is None
        return suggestion

    def _patiently(self, action: Callable[[], T]) -> T:
        seconds = self._settings.storage_seconds
        return patiently(action, seconds=seconds, on_wait=self._on_wait)

    def _finish(self, row: Row) -> None:
        self._search.tell(row)
        if self._on_stored is not None:
            self._on_stored(str(row["trial_id"]), row)

    def job(self, key: str) -> Suggestion:
        """The job filed under `key`."""
        return self._jobs[key]

    def failures(self, suggestion: Suggestion) -> int:
        """How often the job's trial has failed in earlier runs."""
        return self._failures.get(suggestion.trial_id, 0)

    def rungs(self, suggestion: Suggestion) -> list[int]:
        """The steps after which the job's trial may be stopped."""
        scheduler = self._settings.scheduler
        return [] if scheduler is None else rungs_of(scheduler.asha, suggestion.config.train.steps)

    def at_rung(self, key: str, row: Row) -> Row | None:
        """Decide about a trial that has come to a rung; its final row if it is to be stopped."""
        if self._halving is None or not self._halving.stops(row):
            return None
        metrics = {name: v for name, v in dict(row["metrics"]).items() if name != UNDER_WAY}
        row = {**row, "metrics": metrics}
        self._patiently(lambda: replace_row(self._storage, self._settings.name, row))
        CheckpointFile(self._storage, str(row["trial_id"])).delete()
        self.done(key, row)
        return row

    def done(self, key: str, row: Row) -> None:
        """The job's trial is stored."""
        del self._jobs[key]
        self._finish(row)

    def lost(self, key: str, reason: str) -> Row:
        """The job's worker died too often: store the trial as failed, from here."""
        job = self._jobs[key]
        row = identity_columns(job.config, self._settings.name, job.trial_id) | {
            "status": "failed",
            "error": reason,
            "steps_done": 0,
            "metrics": {"failures": float(self.failures(job) + 1)},
            "search": job.record,
            "host": platform.node(),
            "version": __version__,
            "started_at": datetime.datetime.now(datetime.UTC),
        }
        rows = TrialRows(trial=row, replicates=[], masks=[], curves=[])
        self._patiently(lambda: write_trial(self._storage, self._settings.name, rows))
        self.done(key, row)
        return row
