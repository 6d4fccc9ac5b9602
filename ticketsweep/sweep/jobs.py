"""Which trial runs next, and what is done with its result: the driver's half of a sweep.

Nothing here knows Ray, which is started only where there is a job.
"""

from __future__ import annotations

import datetime
import platform
from collections import deque
from collections.abc import Callable, Collection, Iterable
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
from ticketsweep.store.under_way import note_begun, note_ended, record_of, trials_under_way
from ticketsweep.store.writer import replace_row, write_trial
from ticketsweep.sweep.budget import LAST_WORD_SECONDS, Budget
from ticketsweep.sweep.halving import Halving, rungs_of
from ticketsweep.sweep.search import Search, Suggestion
from ticketsweep.sweep.stored import failures_of, has_failed_for_good, to_be_tried_again
from ticketsweep.trial import reuse_trial

T = TypeVar("T")


class JobQueue:
    """Trials that were cut off, failed ones that may be tried again, then new suggestions, until
    there are enough.

    A suggestion that another sweep has completed is copied from there and never run.

    Parameters
    ----------
    budget: the time of this run; nothing is given out that would end too late.
    retry_failed: also run trials again that have failed for good, as if for the first time.
    """

    def __init__(
        self,
        spec: SweepSpec,
        search: Search,
        storage: Storage,
        *,
        budget: Budget,
        retry_failed: bool = False,
    ) -> None:
        self._settings, self._search, self._storage = spec.settings, search, storage
        self._budget = budget
        finished = search.finished.values()
        again = to_be_tried_again(finished, spec.settings, retry_failed=retry_failed)
        self._again = deque(again)
        self._failures = {
            str(row["trial_id"]): 0 if has_failed_for_good(row, spec.settings) else failures_of(row)
            for row in again
        }
        begun = trials_under_way(storage, spec.settings.name).get(spec.settings.name, set())
        self._cut_off = deque(sorted(begun - search.finished.keys()))
        for trial_id in begun & search.finished.keys() - self._failures.keys():
            note_ended(storage, spec.settings.name, trial_id)
        scheduler = spec.settings.scheduler
        self._halving: Halving | None = None
        if scheduler is not None:
            self._halving = Halving(scheduler.asha, search.finished.values())
        self._ahead: Suggestion | None = None
        self._jobs: dict[str, Suggestion] = {}
        self._places: Callable[[], int] = lambda: 0
        self._on_stored: Callable[[str, Row], None] | None = None
        self._on_copied: Callable[[Row], None] | None = None
        self._on_wait: Callable[[str], None] | None = None
        self.exhausted = False

    @property
    def earlier(self) -> Collection[Row]:
        """The rows of the sweep's stored trials."""
        return self._search.finished.values()

    @property
    def settled(self) -> list[Row]:
        """Those of them that will not be run again."""
        again = {row["trial_id"] for row in self._again}
        return [row for row in self.earlier if row["trial_id"] not in again]

    @property
    def stored(self) -> int:
        """How many of them need not be run again."""
        return len(self._search.finished) - len(self._again)

    def open(
        self,
        *,
        places: Callable[[], int],
        on_stored: Callable[[str, Row], None],
        on_copied: Callable[[Row], None],
        on_wait: Callable[[str], None],
    ) -> None:
        """Begin to give out jobs.

        Parameters
        ----------
        places: tells how many may be out at the moment; machines may join.
        on_stored: told of every trial (its id and row) that is stored from now on.
        on_copied: told of those that were copied from another sweep, after that.
        on_wait: told, before each pause, why the storage has to be waited for.
        """
        self._places, self._on_stored, self._on_wait = places, on_stored, on_wait
        self._on_copied = on_copied

    def look_ahead(self) -> bool:
        """Whether there is any job; the first one is kept for `next`."""
        self._ahead = self._ahead or self._take()
        return self._ahead is not None

    def has_work(self) -> bool:
        """Whether any job is left to be given out."""
        if self._ahead is not None:
            return self._budget.left > 0
        return self.is_short and self._budget.allows(self._search.finished.values())

    @property
    def seconds_left(self) -> float:
        """Until running trials write their last checkpoint in this run; may be infinite."""
        return self._budget.left + LAST_WORD_SECONDS

    @property
    def is_short(self) -> bool:
        """Whether there are trials left to give out, if there is the time."""
        return bool(self._again) or (self._lacking > 0 and not self.exhausted)

    @property
    def _lacking(self) -> int:
        """Trials that are neither stored nor given out."""
        return self._settings.samples - len(self._search.finished) - self._search.running

    def next(self, key: str) -> Suggestion | None:
        """The next job, filed under `key`; None while all places are taken, or without work."""
        if len(self._jobs) >= self._places() or self._budget.left <= 0 or not self.look_ahead():
            return None
        assert self._ahead is not None
        job, self._ahead = self._ahead, None
        self._jobs[key] = job
        note_begun(self._storage, self._settings.name, job.trial_id, job.record)
        return job

    def _take(self) -> Suggestion | None:
        """What is to be run next; what other sweeps have completed is stored on the way."""
        while self.has_work():
            suggestion = self._gone_on_with()
            if suggestion is None and self._again:
                suggestion = self._search.again(self._again.popleft())
            suggestion = suggestion or self._ask()
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
            if self._on_copied is not None:
                self._on_copied(row)
        return None

    def _gone_on_with(self) -> Suggestion | None:
        """A trial that an earlier run has begun and not finished."""
        while self._cut_off and self._lacking > 0:
            identity = self._cut_off.popleft()
            record = record_of(self._storage, self._settings.name, identity)
            suggestion = None if record is None else self._search.go_on(identity, record)
            if suggestion is not None:
                return suggestion
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

    def trials(self, keys: Iterable[str]) -> list[str]:
        """The ids of the trials filed under these keys, but of such as are stored."""
        return [self._jobs[key].trial_id for key in keys if key in self._jobs]

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
        note_ended(self._storage, self._settings.name, str(row["trial_id"]))

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
