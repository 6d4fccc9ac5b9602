"""How long a run may take, and how it ends when that time is up.

No trial is begun that would end too late, by what the sweep's trials have taken so far. Those still
running at the limit are stopped once they have written a checkpoint; the next run goes on from it.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping

from ticketsweep.results.rows import Row, figure_of

LAST_WORD_SECONDS = 3.0
"""After the limit, when trials write a checkpoint; the driver knows the ones before by then."""
GRACE_SECONDS = 300.0
"""After the limit, for the checkpoints of what is still running."""

_LATEST = 1000  # trials whose times tell how long the next takes
_LOOKS = 1.0  # seconds between two looks at the checkpoints


class Budget:
    """The time of one run.

    Parameters
    ----------
    seconds: None for as long as it takes.
    clock: seconds since any fixed moment.
    """

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds = math.inf if seconds is None else seconds
        self._began = clock()
        self._typical, self._counted = 0.0, 0  # of so many trials

    @property
    def left(self) -> float:
        """Seconds up to the limit, negative after it; infinite without one."""
        return self._seconds - (self._clock() - self._began)

    def allows(self, finished: Collection[Row]) -> bool:
        """Whether a trial may be begun, by how long those of the sweep have taken.

        One that would take longer than any such run is begun, or none ever would be: it is stopped
        and gone on with until it is done.
        """
        if self.left <= 0 or self._seconds == math.inf:
            return self.left > 0
        if len(finished) != self._counted:  # asked many times a second, between two trials
            self._typical, self._counted = _typical_seconds(finished), len(finished)
        return self._typical <= self.left or self._typical > self._seconds


def _typical_seconds(finished: Collection[Row]) -> float:
    taken = [
        seconds
        for row in deque(finished, _LATEST)
        if row["status"] == "complete" and (seconds := figure_of(row, "wall_seconds"))
    ]
    return statistics.median(taken) if taken else 0.0


class Closing:
    """The end of a run whose time is up.

    Parameters
    ----------
    written: tells when checkpoints were written, in any unit, by their trials' ids; None where
        that cannot be told at the moment.
    """

    def __init__(self, budget: Budget, written: Callable[[], Mapping[str, int] | None]) -> None:
        self._budget, self._written = budget, written
        self._before: Mapping[str, int] | None = None
        self._looked = math.inf
        self._saved: set[str] = set()

    def is_over(self, running: Collection[str]) -> bool:
        """Whether nothing is left to wait for: no trial runs but such as have been saved since."""
        left = self._budget.left
        if left > 0:
            return False
        if left < -GRACE_SECONDS:
            return True
        if self._looked - left >= _LOOKS:
            self._looked = left
            now = self._written()
            if now is None:
                return False
            before = self._before = now if self._before is None else self._before
            self._saved |= {each for each, at in now.items() if at != before.get(each)}
        return self._saved.issuperset(running)
