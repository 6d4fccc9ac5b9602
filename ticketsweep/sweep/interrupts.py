"""Ctrl-C and SIGTERM while a sweep runs."""

from __future__ import annotations

import signal
import threading
import time
from types import TracebackType
from typing import Any, Self

_IMPATIENCE = 20.0  # seconds, after which an ending that takes so long may be cut off
_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # SIGTERM is what schedulers and `kill` send


class Interrupts:
    """Raises KeyboardInterrupt on either signal, and remembers it.

    More of them are passed over for a while: they would cut off the ending of workers and of Ray
    that the first has begun. Where a signal comes while C code runs or a library is being imported,
    the exception may be swallowed there; `check` raises it again. Outside the main thread, where
    signals cannot be caught, this does nothing.
    """

    def __init__(self) -> None:
        self._asked: float | None = None  # when
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        self.install()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def install(self) -> None:
        """Catch the signals (again: Ray sets a handler of its own)."""
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                signal.signal(number, self._interrupt)

    def check(self) -> None:
        """Raise KeyboardInterrupt if either signal has come."""
        if self._asked is not None:
            raise KeyboardInterrupt

    def _interrupt(self, _signal: int, _frame: Any) -> None:
        now = time.monotonic()
        if self._asked is None or now - self._asked > _IMPATIENCE:
            self._asked = now
            raise KeyboardInterrupt
