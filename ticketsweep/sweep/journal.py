"""The study's journal: for Optuna's dashboards, and never in the search's way.

The mask database is the truth and nothing reads the journal back, so a disk that is full or away
holds nobody up: what could not be written waits, in memory, and follows with the next line.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend


class MirroredJournal(BaseJournalBackend):
    """Hands a process its own lines back from memory, and writes them to a file as it can.

    The file is what `optuna.storages.journal.JournalFileBackend` reads.

    Parameters
    ----------
    path: is begun afresh, its lock of that class included.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unread: list[dict[str, Any]] = []
        self._first = 0  # number of the first unread line
        self._unwritten = b""
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            for leftover in (path, path.with_name(f"{path.name}.lock")):
                leftover.unlink(missing_ok=True)

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Lines from this number on; earlier ones are then forgotten, since nobody asks twice."""
        del self._unread[: log_number_from - self._first]
        self._first = log_number_from
        return list(self._unread)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Take lines up; whether they reach the file now or later is all one."""
        lines = [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]
        # As a file hands them back: the storage changes what it gives us.
        self._unread += [json.loads(line) for line in lines]
        self._unwritten += "".join(lines).encode()
        try:
            self._write()
        except OSError:
            return

    def _write(self) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            before = os.fstat(descriptor).st_size
            written = 0
            try:
                while written < len(self._unwritten):
                    written += os.write(descriptor, self._unwritten[written:])
            except OSError:
                os.ftruncate(descriptor, before)  # no half a line, which nobody could read
                raise
            self._unwritten = b""
        finally:
            os.close(descriptor)
