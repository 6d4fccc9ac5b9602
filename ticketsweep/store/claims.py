"""Claims: of the processes that want to do the same work on a sweep, one does it.

A claim is a small file that its process writes anew every few seconds. Nobody's clock is asked how
old one is: whoever finds another's claim either knows its process, being on the same machine, or
watches whether the file changes. So neither a clock that goes back nor a machine that was put to
sleep makes two of them work at once.
"""

from __future__ import annotations

import datetime
import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from ticketsweep.errors import StorageError
from ticketsweep.store.files import put, remove
from ticketsweep.store.paths import Storage, this_host

RENEWAL_SECONDS = 10.0
LEASE_SECONDS = 60.0  # without a renewal: storages have been away for that long

Work = Literal["run", "compaction"]
_DOING: dict[Work, str] = {"run": "run", "compaction": "compacted"}
_STALE_SECONDS = 3600.0  # without a renewal, on another machine
_PAUSE_SECONDS = 0.2  # between two looks at others' claims


class Claim:
    """The claim of this process; `check` says whether it still stands."""

    def __init__(self, storage: Storage, sweep: str, work: Work) -> None:
        self._storage, self._sweep, self._work = storage, sweep, work
        self._name = f"{work}.{secrets.token_hex(8)}.json"
        self._path = f"{storage.claims_folder(sweep)}/{self._name}"
        self._content: dict[str, Any] = {
            **this_process(),
            "since": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "held": False,
            "beat": 0,
        }
        self._dead: set[str] = set()
        self._lost = False
        self._over = threading.Event()
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raises StorageError if another process has taken this one for dead."""
        if self._lost:
            raise StorageError(
                f"sweep {self._sweep}: this process was taken for dead, since it had not been able "
                f"to renew its claim for {LEASE_SECONDS:g} s; what it has stored stays (run the "
                f"same command again)"
            )

    def announce(self) -> None:
        """Write the claim, which is then to be renewed. Raises StorageError where that fails."""
        with self._lock:
            self._write()

    def acquire(self, waiting: Callable[[str], None]) -> None:
        """Wait until no other claim stands. Raises StorageError if one does."""
        watched: dict[str, tuple[bytes, float]] = {}
        while others := self._others():
            rivals = {}
            for path, content in others.items():
                other = _parsed(content)
                is_alive = is_running(other)
                before, since = watched.setdefault(path, (content, time.monotonic()))
                silent = time.monotonic() - since >= LEASE_SECONDS
                if is_alive is False or (is_alive is None and before == content and silent):
                    self._bury(path)
                    continue
                rivals[path] = other
                # Of two that have only asked, the greater name gives way.
                is_first = other.get("held") is True or path.rsplit("/", 1)[1] < self._name
                if is_first and (is_alive or before != content):
                    raise self._refusal(other)
                if is_alive is None:
                    waiting(f"waiting to see whether {_named(other)} is still running")
            if rivals:
                time.sleep(_PAUSE_SECONDS)
        with self._lock:
            self._content["held"] = True
            self._write()

    def renew_until_released(self) -> None:
        """What the thread does that keeps the claim alive."""
        while not self._over.wait(RENEWAL_SECONDS):
            # While the storage is away there is nobody who could take the claim either.
            with suppress(StorageError, pa.ArrowException, OSError):
                self._renew()

    def release(self) -> None:
        """Give the claim up. One that cannot be deleted stands until this process has ended."""
        self._over.set()
        with self._lock, suppress(StorageError):
            remove(self._storage, self._path)

    def _renew(self) -> None:
        with self._lock:
            if self._over.is_set():
                return
            # A claim that has been buried may have been written again by one that was just waking.
            for path in self._dead:
                remove(self._storage, path)
            if not self._storage.is_there():
                return
            (info,) = self._storage.filesystem.get_file_info([self._path])
            if not info.is_file:
                self._lost = True
                self._over.set()
                return
            self._write()

    def _write(self) -> None:
        self._content["beat"] += 1
        put(self._storage, self._path, pa.py_buffer(json.dumps(self._content).encode()))

    def _bury(self, path: str) -> None:
        with self._lock:
            self._dead.add(path)
            remove(self._storage, path)

    def _others(self) -> dict[str, bytes]:
        found = {}
        for path in self._storage.claims(self._sweep):
            name = path.rsplit("/", 1)[1]
            if name != self._name and name.startswith(f"{self._work}."):
                with suppress(FileNotFoundError):  # given up meanwhile
                    found[path] = self._read(path)
        return found

    def _read(self, path: str) -> bytes:
        try:
            with self._storage.filesystem.open_input_file(path) as stream:
                content: bytes = stream.read()
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise StorageError(
                f"storage {self._storage.uri}: cannot read {path}: {error}"
            ) from error
        return content

    def _refusal(self, other: dict[str, Any]) -> StorageError:
        return StorageError(
            f"sweep {self._sweep} is being {_DOING[self._work]} by {_named(other)}, since "
            f"{other.get('since')} (wait until it has ended, or end it there; one that was killed "
            f"is noticed at once on its own machine, and after {LEASE_SECONDS:g} s elsewhere)"
        )


@contextmanager
def claimed(
    storage: Storage, sweep: str, work: Work, *, waiting: Callable[[str], None]
) -> Iterator[Claim]:
    """Keep other processes away that want to do the same work on the sweep.

    Each writes its claim and then looks for others, so that of two at least one sees the other's.

    Parameters
    ----------
    waiting: told, several times a second, of whom one waits for: a process of another machine that
        may be dead, which shows within `LEASE_SECONDS`.

    Raises StorageError if a process that is running has the claim, or where the storage cannot be
    written to.
    """
    claim = Claim(storage, sweep, work)
    renewal = threading.Thread(target=claim.renew_until_released, name="claim", daemon=True)
    try:
        claim.announce()
        renewal.start()  # not before: it would miss the file and take its own claim for buried
        claim.acquire(waiting)
        yield claim
    finally:
        claim.release()


def claim_states(storage: Storage, sweep: str) -> dict[str, bool]:
    """The claims on a sweep by their paths, and whether each may still stand.

    One of another machine does for an hour after it was written, since nobody here can tell.

    Raises StorageError where they cannot be listed.
    """
    states = {}
    for info in storage.list_files(storage.claims_folder(sweep)):
        if info.path.endswith(".json"):
            with suppress(pa.ArrowException, OSError):  # given up meanwhile
                with storage.filesystem.open_input_file(info.path) as stream:
                    runs = is_running(_parsed(stream.read()))
                silent = time.time() - (info.mtime_ns or 0) / 1e9 > _STALE_SECONDS
                states[info.path] = not silent if runs is None else runs
    return states


def _named(other: dict[str, Any]) -> str:
    return f"process {other.get('pid')} of {other.get('host')}"


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        other = json.loads(content)
    except ValueError:
        other = None
    return other if isinstance(other, dict) else {"held": True}


def this_process() -> dict[str, Any]:
    """What tells this process from all others, to be written down; `is_running` reads it."""
    pid = os.getpid()
    return {"host": this_host(), "machine": _machine(), "pid": pid, "started": _started(pid)}


def is_running(other: Mapping[str, Any]) -> bool | None:
    """Whether a process runs; None where that cannot be told: on another machine."""
    pid = other.get("pid")
    if other.get("machine") != _machine() or not isinstance(pid, int):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process
        return True
    return _started(pid) == other.get("started")


def _machine() -> str:
    """What tells this machine's processes, since it was booted, from all others'.

    A container has processes of its own, though it may have its host's name.
    """
    words = [this_host()]
    with suppress(OSError):
        words.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        words.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(words)


def _started(pid: int) -> str | None:
    """When a process began, in a unit of the kernel's own; None without one, or for a zombie.

    Numbers of processes are given out again.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]
