"""A small file that is written anew, by a thread of its own, while what it says goes on changing.

Whoever changes it never waits for the storage: one that is slow or away makes the file late, and
one that never comes back makes it incomplete.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pyarrow as pa

from ticketsweep.errors import StorageError
from ticketsweep.store.files import put, remove
from ticketsweep.store.paths import Storage


class Publication:
    """Keeps one file of the storage up to date.

    Parameters
    ----------
    path: where the file lies.
    content: makes what it holds; called by the thread, None for what need not be written yet.
    every: least seconds between two writings.
    first: seconds after which it may be written for the first time.
    beat: most seconds between two writings; None: only what has changed is written.
    failed: told, by the thread, where what `content` has made could not be written.
    """

    def __init__(
        self,
        storage: Storage,
        path: str,
        content: Callable[[], bytes | None],
        *,
        every: float,
        first: float,
        beat: float | None = None,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._storage, self._path, self._content = storage, path, content
        self._failed = failed
        self._every, self._beat = every, beat
        self._next = time.monotonic() + first
        self._changed, self._over = threading.Event(), threading.Event()
        self._is_removed = False
        self._thread = threading.Thread(target=self._work, name="publication", daemon=True)
        self._thread.start()

    def changed(self) -> None:
        """What the file should hold is no longer what was written last."""
        self._changed.set()

    def close(self, *, seconds: float, removed: bool = False) -> None:
        """Write it once more, or remove it; wait so long at most: the thread goes on without us."""
        self._is_removed = removed
        self._over.set()
        self._changed.set()
        self._thread.join(seconds)

    def _work(self) -> None:
        while not self._over.is_set():
            self._changed.wait(self._beat)
            self._over.wait(max(0.0, self._next - time.monotonic()))
            if not self._over.is_set():
                self._changed.clear()
                self._write()
                self._next = time.monotonic() + self._every
        if self._is_removed:
            with suppress(StorageError):
                remove(self._storage, self._path)
        else:
            self._write()

    def _write(self) -> None:
        content = self._content()
        if content is not None:
            try:
                put(self._storage, self._path, pa.py_buffer(content), lasting=False)
            except (StorageError, pa.ArrowException, OSError):
                self._failed()
