"""Waiting for a storage that is full, read-only or away for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import TypeVar

from ticketsweep.errors import MissingStorage, StorageError
from ticketsweep.store.remote import is_permanent

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0  # seconds

T = TypeVar("T")


def waiting(action: Callable[[], T], *, seconds: float) -> Generator[str, None, T]:
    """The action's result; it is tried again, after longer and longer pauses, for so long.

    Yields, before each pause, why it has to wait. Raises StorageError, the last one, if it has not
    come about by then, and at once for a fault that does not pass: no such database or bucket, no
    permission.
    """
    until, pause = time.monotonic() + seconds, _FIRST_PAUSE
    while True:
        try:
            return action()
        except StorageError as error:
            left = until - time.monotonic()
            if left <= 0 or isinstance(error, MissingStorage) or is_permanent(error.__cause__):
                raise
            why = str(error)
        yield why
        time.sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST_PAUSE)


def patiently(
    action: Callable[[], T], *, seconds: float, on_wait: Callable[[str], None] | None = None
) -> T:
    """`waiting` to its end; `on_wait` is told, before each pause, for what."""
    trying = waiting(action, seconds=seconds)
    while True:
        try:
            why = next(trying)
        except StopIteration as stop:
            result: T = stop.value
            return result
        if on_wait is not None:
            on_wait(f"waiting for the storage: {why}")
