"""Which trial runs next, and what is done with its result: the driver's half of a sweep."""

from __future__ import annotations

import datetime
import platform
from collections import deque
from collections.abc import Callable
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from ticketsweep import __version__
from ticketsweep.space import SweepSpec
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import TrialRows
from ticketsweep.store.writer import copy_trial, write_trial
from ticketsweep.sweep.observer import Observer
from ticketsweep.sweep.search import Search, Suggestion, TrialRow, metric_of
from ticketsweep.sweep.tracking import Tracker
from ticketsweep.trial import Progress, identity_columns


class JobQueue:
    """Failed trials that may be tried again, then new suggestions, until there are enough.

    A suggestion that another sweep has completed is copied from there and never run.
    """

    def __init__(
        self,
        spec: SweepSpec,
        search: Search,
        storage: Storage,
        *,
        on_stored: Callable[[str, TrialRow], None],
    ) -> None:
        self._settings, self._search, self._storage = spec.settings, search, storage
        self._on_stored = on_stored
        self._again = deque(
            row
            for row in search.finished.values()
            if row["status"] == "failed" and _failures(row) <= spec.settings.max_failures
        )
        self._failures = {str(row["trial_id"]): _failures(row) for row in self._again}
        self._jobs: dict[str, Suggestion] = {}
        self.concurrency = 1
        self.exhausted = False

    @property
    def stored(self) -> int:
        """Trials of the sweep that need not be run."""
        return len(self._search.finished) - len(self._again)

    def has_work(self) -> bool:
        """Whether any job is left to be given out."""
        lacking = self._settings.samples - len(self._search.finished) - self._search.running
        return bool(self._again) or (lacking > 0 and not self.exhausted)

    def next(self, key: str) -> Suggestion | None:
        """The next job, filed under `key`; None while all places are taken, or without work."""
        if len(self._jobs) >= self.concurrency:
            return None
        while self.has_work():
            suggestion = self._search.again(self._again.popleft()) if self._again else self._ask()
            if suggestion is None:
                break
            row = self._copied(suggestion)
            if row is None:
                self._jobs[key] = suggestion
                return suggestion
            self._finish(row)
        return None

    def _ask(self) -> Suggestion | None:
        suggestion = self._search.ask()
        self.exhausted = suggestion is None
        return suggestion

    def _copied(self, suggestion: Suggestion) -> TrialRow | None:
        """The trial's row, if another sweep has completed it and all its rows could be copied."""
        name, identity = self._settings.name, suggestion.trial_id
        database = Database(self._storage)
        source = database.find_complete(identity)
        if source is None or source == name:
            return None
        copy_trial(self._storage, identity, source, name, search=suggestion.record)
        return database.trial(name, identity)

    def _finish(self, row: TrialRow) -> None:
        self._search.tell(row)
        self._on_stored(str(row["trial_id"]), row)

    def job(self, key: str) -> Suggestion:
        """The job filed under `key`."""
        return self._jobs[key]

    def failures(self, suggestion: Suggestion) -> int:
        """How often the job's trial has failed in earlier runs."""
        return self._failures.get(suggestion.trial_id, 0)

    def done(self, key: str, row: TrialRow) -> None:
        """The job's trial is stored."""
        del self._jobs[key]
        self._finish(row)

    def lost(self, key: str, reason: str) -> TrialRow:
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
        write_trial(self._storage, self._settings.name, rows)
        self.done(key, row)
        return row


class JobSearcher(Searcher):
    """Tune's view of the queue."""

    def __init__(self, queue: JobQueue) -> None:
        super().__init__()
        self._queue = queue

    def suggest(self, trial_id: str) -> Any:
        """A job for the worker; None: ask again later; FINISHED: there will be no more."""
        suggestion = self._queue.next(trial_id)
        if suggestion is None:
            return None if self._queue.has_work() else Searcher.FINISHED
        return {
            "config": suggestion.config.model_dump_json(),
            "search": suggestion.record,
            "failures": self._queue.failures(suggestion),
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the callback, which Tune calls as well, sees the error itself."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher for a restore that we never ask for."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the mask database is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the mask database is the state."""


class SweepCallback(tune.Callback):
    """Passes what Tune reports on to the queue, the observer and the tracker."""

    def __init__(self, queue: JobQueue, observer: Observer, tracker: Tracker) -> None:
        self._queue, self._observer, self._tracker = queue, observer, tracker

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for a restore that we never ask for."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker has taken the trial up."""
        job = self._queue.job(trial.trial_id)
        self._observer.trial_started(job.trial_id, job.config)
        self._tracker.begin(job.trial_id, job.config)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A logged step, or the trial's row."""
        identity = self._queue.job(trial.trial_id).trial_id
        if "progress" in result:
            figures = dict(result["progress"])
            self._observer.trial_progressed(identity, Progress(**figures))
            step = int(figures.pop("step"))
            self._tracker.log(identity, step, figures)
        else:
            row = result["row"]
            self._tracker.finish(identity, row)
            self._queue.done(trial.trial_id, row)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The worker died, or could not store the trial, more often than is tolerated."""
        identity = self._queue.job(trial.trial_id).trial_id
        row = self._queue.lost(trial.trial_id, _reason(trial))
        self._tracker.finish(identity, row)


def _failures(row: TrialRow) -> int:
    return int(metric_of(row, "failures") or 1)


def _reason(trial: Any) -> str:
    """What ended a trial's worker, in one line."""
    error = trial.get_error() if trial.error_filename or trial.pickled_error_filename else None
    cause = getattr(error, "cause", None) or error
    if cause is None:
        return "its worker process was lost"
    return " ".join(f"{type(cause).__name__}: {cause}".split())[:500]
