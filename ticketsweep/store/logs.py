"""What a trial tells while it runs: a file of lines for each attempt, kept in the storage.

Python's logging collects it: everything of this package, warnings and errors of all libraries, and
Python's warnings. An object store cannot append, so the file is written anew from time to time, by
a thread of its own: a trial never waits for its log.
"""

from __future__ import annotations

import logging
import re
import secrets
import threading
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

import pyarrow as pa

from ticketsweep.errors import StorageError, UserError
from ticketsweep.store.paths import Storage, check_name, one_line
from ticketsweep.store.publication import Publication
from ticketsweep.store.redaction import Redaction

HEAD_BYTES, TAIL_BYTES = 64 << 10, 192 << 10
"""Of a longer log, so much of its beginning and of its end is kept."""

ENDED = "end: "
"""The message of an attempt's last line begins so; it is followed by how it ended."""

_SECONDS = 15.0  # between two writings
_FIRST_SECONDS = 2.0  # before the first: the log of a shorter trial is written but once
_CLOSING_SECONDS = 2.0  # for the last one; a slow storage gets it later
_LONGEST = 4 << 10  # characters of a line
_LAST = re.compile(rf"^\S+ {ENDED}.*\n?\Z", re.MULTILINE)


@dataclass(frozen=True)
class LogFile:
    """What one attempt at a trial has told; attempts are in order by `began`.

    Attributes
    ----------
    size, mtime_ns: as a listing saw it; another size or time of writing is another content.
    """

    sweep: str
    trial_id: str
    began: str
    path: str
    size: int
    mtime_ns: int


def log_files(storage: Storage, sweep: str | None = None) -> list[LogFile]:
    """The logs of all trials (of one sweep), by sweep, trial and attempt.

    Raises StorageError where the storage cannot be listed.
    """
    found = []
    for of, name, info in storage.told(storage.logs_folder(sweep)):
        words = name.rsplit(".", 2)
        if len(words) == 3 and words[2] == "log":
            trial_id, began, _ = words
            found.append(LogFile(of, trial_id, began, info.path, info.size, info.mtime_ns or 0))
    return sorted(found, key=lambda file: (file.sweep, file.trial_id, file.began))


def read_log(storage: Storage, file: LogFile) -> str:
    """The text of an attempt, empty if it has gone. Raises StorageError if it cannot be read."""
    try:
        with storage.filesystem.open_input_file(file.path) as stream:
            content: bytes = stream.read()
    except FileNotFoundError:
        return ""
    except (pa.ArrowException, OSError) as error:
        raise StorageError(
            f"storage {storage.uri}: cannot read {file.path}: {one_line(error)}"
        ) from error
    return content.decode(errors="replace")


def news(before: str, after: str) -> str:
    """What a log has more than when it was read last; the middle of a long one may have gone."""
    if after.startswith(before):
        return after[len(before) :]
    last = before.rstrip("\n").rpartition("\n")[2]
    return after.rpartition(f"{last}\n")[2]


def is_ended(text: str) -> bool:
    """Whether the last line says how the attempt ended."""
    return _LAST.search(text) is not None


class _Lines:
    """The lines of a log, of which the middle is left out where they are too many."""

    def __init__(self) -> None:
        self._head: list[bytes] = []
        self._tail: deque[bytes] = deque()
        self._head_bytes = self._tail_bytes = self._left_out = 0
        self._lock, self._redacted = threading.Lock(), Redaction()

    def add(self, moment: datetime, text: str) -> None:
        """Add a message, whose first line gets the time."""
        stamp = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for number, line in enumerate(self._redacted(text).splitlines()):
            shown = line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"
            self._add(f"{'' if number else f'{stamp} '}{shown}\n".encode(errors="replace"))

    def _add(self, line: bytes) -> None:
        with self._lock:
            if not self._tail and self._head_bytes + len(line) <= HEAD_BYTES:
                self._head.append(line)
                self._head_bytes += len(line)
                return
            self._tail.append(line)
            self._tail_bytes += len(line)
            while self._tail_bytes > TAIL_BYTES:
                self._tail_bytes -= len(self._tail.popleft())
                self._left_out += 1

    def content(self) -> bytes | None:
        """All of it; None as long as there is nothing."""
        with self._lock:
            gap = f"… {self._left_out} lines left out …\n".encode() if self._left_out else b""
            return b"".join([*self._head, gap, *self._tail]) or None


class _Handler(logging.Handler):
    """Adds what is logged to the lines of a trial."""

    def __init__(self, lines: _Lines, changed: Any) -> None:
        super().__init__()
        self._lines, self._changed = lines, changed
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Add a record; all but this package's own news with level and name of the logger."""
        is_ours = record.name.startswith(f"{_PACKAGE}.")
        if record.levelno < (logging.INFO if is_ours else logging.WARNING):
            return
        try:
            text = self.format(record)
        except Exception:  # a library's own mistake, of no concern to a trial
            text = str(record.msg)
        if not is_ours or record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {record.name}: {text}"
        self._lines.add(datetime.fromtimestamp(record.created, UTC), text)
        self._changed()


_PACKAGE = "ticketsweep"


class TrialLog:
    """The log of one attempt, which `trial_log` opens."""

    def __init__(self) -> None:
        self.outcome = "interrupted"
        """How the attempt has ended, for its last line."""


@contextmanager
def trial_log(storage: Storage, sweep: str, trial_id: str) -> Iterator[TrialLog]:
    """Keep what is told in this process from here on as the log of an attempt at a trial.

    Messages of this package count from the level INFO, all others from WARNING. What an exception
    that leaves it says is the last thing in the log. Only one can be open at a time.
    """
    lines = _Lines()
    publication = Publication(
        storage,
        _new_path(storage, sweep, trial_id),
        lines.content,
        every=_SECONDS,
        first=_FIRST_SECONDS,
    )
    handler = _Handler(lines, publication.changed)
    root, own = logging.getLogger(), logging.getLogger(_PACKAGE)
    level, shown = own.level, warnings.showwarning
    log = TrialLog()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        text = f"warning: {category.__name__}: {message} ({filename}:{lineno})"
        lines.add(datetime.now(UTC), text)
        publication.changed()
        shown(message, category, filename, lineno, file, line)

    root.addHandler(handler)
    own.setLevel(logging.INFO)
    warnings.showwarning = show
    try:
        yield log
    except Exception as error:
        if not isinstance(error, UserError):  # whose message says it all
            own.getChild("trial").error("%s", type(error).__name__, exc_info=error)
        log.outcome = f"failed: {type(error).__name__}: {one_line(error)}"
        raise
    finally:
        if warnings.showwarning is show:
            warnings.showwarning = shown
        own.setLevel(level)
        root.removeHandler(handler)
        lines.add(datetime.now(UTC), f"{ENDED}{log.outcome}")
        publication.close(seconds=_CLOSING_SECONDS)


def add_note(
    storage: Storage, sweep: str, trial_id: str, text: str, *, seconds: float = 0.0
) -> None:
    """Add a line to a trial's log, in a file of its own: this process does not run the trial.

    Parameters
    ----------
    seconds: to wait for the storage at most; without, it is written by and by.
    """
    lines = _Lines()
    lines.add(datetime.now(UTC), text)
    path = _new_path(storage, sweep, trial_id)
    Publication(storage, path, lines.content, every=_SECONDS, first=0.0).close(seconds=seconds)


def _new_path(storage: Storage, sweep: str, trial_id: str) -> str:
    began = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    name = f"{check_name(trial_id)}.{began}-{secrets.token_hex(2)}.log"
    return f"{storage.logs_folder(sweep)}/{name}"
