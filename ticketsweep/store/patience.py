"""Waiting for a storage that is full, read-only or away for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ticketsweep.errors import StorageError

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0  # seconds

T = TypeVar("T")


def patiently(action: Callable[[], T], *, seconds: float) -> T:
    """The action's result; it is tried again, after longer and longer pauses, for so long.

    Raises StorageError, the last one, if it has not come about by then.
    """
    until, pause = time.monotonic() + seconds, _FIRST_PAUSE
    while True:
        try:
            return action()
        except StorageError:
            left = until - time.monotonic()
            if left <= 0:
                raise
        time.sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST_PAUSE)
