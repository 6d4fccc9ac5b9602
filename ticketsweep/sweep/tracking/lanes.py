"""One thread for each tracker: a slow or absent one holds up neither the sweep nor the others."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ticketsweep.sweep.tracking.login import without_key
from ticketsweep.sweep.tracking.records import Best, Ending, Figures, Standing, Tracker, Trial

_TOO_LATE = 30.0  # seconds; a tracker that is so far behind is told to hurry
_PATIENCE = 90.0  # seconds in which a tracker has to come to its end, half of them in a hurry

_BACKLOG, _LAST = 1, 2  # turns; whatever goes on has none before it

Curve = dict[int, dict[str, float]]
_Job = Callable[[Tracker], None]


class Lane:
    """Calls a tracker from a thread of its own, in order, and remembers which trials are open.

    A trial that was begun and whose ending the tracker has not taken, for the driver was killed or
    the disk full, is told again by the next process (`begun`, and not in `ended`).

    Parameters
    ----------
    name: of the tracker, in warnings.
    connect: makes the tracker, in the thread: its libraries may be slow to import.
    ledger: the file of what is remembered.
    warn: called with one sentence, the first time that something could not be tracked.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Tracker],
        *,
        ledger: Path,
        warn: Callable[[str], None],
    ) -> None:
        self._name, self._connect, self._warn = name, connect, warn
        self.begun, self.ended = told_of(ledger)
        self._ledger = _Ledger(ledger)
        self._last: dict[str, int] = {}
        self._broken: set[str] = set()  # trials of which something could not be tracked
        self._warned = False
        self._tracker: Tracker | None = None
        # By their turns: what is told later waits for what was told earlier.
        self._jobs: queue.PriorityQueue[tuple[int, int, float, _Job | None]] = queue.PriorityQueue()
        self._count = itertools.count()
        self._thread = threading.Thread(target=self._work, name=f"tracking-{name}", daemon=True)
        self._thread.start()

    def begin(self, trial: Trial) -> None:
        """A trial has started, perhaps for the second time."""
        self._ledger.write("begun", trial.trial_id)
        self._put(trial.trial_id, lambda tracker: self._begin(tracker, trial))

    def stored(
        self, trial: Trial, curve: Callable[[], Curve], ending: Callable[[], Ending]
    ) -> None:
        """A trial of which nothing was told while it ran; whatever goes on is told before it."""
        name = trial.trial_id

        def tell(tracker: Tracker) -> None:
            self._ledger.write("begun", name)
            self._begin(tracker, trial)
            self._end(tracker, name, curve, ending)

        self._put(name, tell, turn=_BACKLOG)

    def log(self, trial_id: str, step: int, figures: Figures) -> None:
        """Figures of a step; one that is known already is passed over."""
        self._put(trial_id, lambda tracker: self._log(tracker, trial_id, step, figures))

    def end(self, trial_id: str, curve: Callable[[], Curve], ending: Callable[[], Ending]) -> None:
        """A trial has ended.

        Parameters
        ----------
        curve: reads its stored curve, of which steps are logged that no call has told.
        ending: reads what became of it.
        """
        self._put(trial_id, lambda tracker: self._end(tracker, trial_id, curve, ending))

    def standing(self, standing: Standing) -> None:
        """How far the sweep has come."""
        self._put("", lambda tracker: tracker.standing(standing))

    def close(self, final: Callable[[], tuple[Standing, Best]]) -> None:
        """Close the tracker; returns after a bounded time, whatever it does."""
        self._put("", lambda tracker: tracker.close(*final()), turn=_LAST)
        self._jobs.put((_LAST, next(self._count), 0.0, None))
        self._thread.join(_PATIENCE / 2)
        if self._thread.is_alive() and self._tracker is not None:
            self._tracker.hurry()
        self._thread.join(_PATIENCE / 2)
        if self._thread.is_alive():
            self._warn(
                f"tracking with {self._name} did not end within {_PATIENCE:.0f} s; what is missing "
                f"is added when the sweep is run again"
            )
        self._ledger.close()

    def _put(self, trial_id: str, job: _Job, *, turn: int = 0) -> None:
        def guarded(tracker: Tracker) -> None:
            self._guarded(trial_id, tracker, job)

        self._jobs.put((turn, next(self._count), time.monotonic(), guarded))

    def _work(self) -> None:
        while True:
            turn, _, asked, job = self._jobs.get()
            if job is None:
                return
            try:
                if self._tracker is None:
                    self._tracker = self._connect()
            except Exception as error:
                self._failed("", error)
                continue
            if not turn and time.monotonic() - asked > _TOO_LATE:
                self._tracker.hurry()
            job(self._tracker)

    def _guarded(self, trial_id: str, tracker: Tracker, job: _Job) -> None:
        try:
            job(tracker)
        except Exception as error:  # tracking must never end a sweep
            self._failed(trial_id, error)

    def _failed(self, trial_id: str, error: Exception) -> None:
        self._broken.add(trial_id)
        if not self._warned:
            self._warned = True
            said = without_key(str(error)) or type(error).__name__
            self._warn(
                f"tracking with {self._name}: {said}; the sweep goes on, and what is missing is "
                f"added when it is run again"
            )

    def _begin(self, tracker: Tracker, trial: Trial) -> None:
        if trial.trial_id not in self._last:
            self._last[trial.trial_id] = tracker.begin(trial)

    def _log(self, tracker: Tracker, trial_id: str, step: int, figures: Figures) -> None:
        if trial_id in self._broken:
            return  # the trial's end tells all that is missing, in order
        if trial_id in self._last and step > self._last[trial_id]:
            tracker.log(trial_id, step, figures)
            self._last[trial_id] = step

    def _end(
        self,
        tracker: Tracker,
        trial_id: str,
        curve: Callable[[], Curve],
        ending: Callable[[], Ending],
    ) -> None:
        if trial_id not in self._last:
            return  # it could not be begun
        self._broken.discard(trial_id)
        for step, figures in curve().items():
            self._log(tracker, trial_id, step, figures)
        tracker.end(trial_id, ending())
        del self._last[trial_id]
        self._ledger.write("ended", trial_id)


def told_of(ledger: Path) -> tuple[set[str], set[str]]:
    """Trials that were begun and not ended since, and those that were ended, by a lane's ledger.

    As far as it can be read.
    """
    begun, ended = set[str](), set[str]()
    with contextlib.suppress(OSError):
        for line in ledger.read_text(encoding="utf-8", errors="replace").splitlines():
            event, _, trial_id = line.partition(" ")
            (begun if event == "begun" else ended).add(trial_id)
            (ended if event == "begun" else begun).discard(trial_id)
    return begun, ended


class _Ledger:
    """Lines "begun ID" and "ended ID"."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a", encoding="utf-8")

    def write(self, event: str, trial_id: str) -> None:
        """Add a line. Where the disk is full, the worst is that a trial is told twice."""
        with contextlib.suppress(OSError, ValueError):  # the second: closed, in a late thread
            self._file.write(f"{event} {trial_id}\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with contextlib.suppress(OSError):
            self._file.close()
