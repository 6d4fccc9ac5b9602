"""Connecting to Ray: a running cluster by address, or a local one that leaves nothing behind."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ray

from ticketsweep.errors import SweepError
from ticketsweep.store.paths import Storage, temporary_path
from ticketsweep.sweep import reaper
from ticketsweep.sweep.nodes import Capacity, Nodes, token_file

_FOLDER_PREFIX = "ticketsweep-ray-"
_LONGEST_FOLDER = 18  # we and Ray append up to 89 characters, and a socket's path may have 107
_SECONDS_TO_ANSWER = 10.0
_SECONDS_TO_REAP = 10.0
_STARTS = 3
_OBJECT_STORE_SPARE = 128 * 2**20  # bytes beside the data sets, for Ray's own messages


@dataclass(frozen=True)
class Cluster:
    """The connected Ray.

    Attributes
    ----------
    capacity: what it has in all, at the moment.
    scratch: a folder of this machine that goes when the connection is closed.
    check: to be called again and again; raises SweepError once a node has joined that has other
        versions, or does not see the storage.
    """

    capacity: Capacity
    scratch: Path
    check: Callable[[], None]


@contextlib.contextmanager
def connect(
    address: str | None, *, cpus: int, shared_bytes: int, storage: Storage, sweep: str
) -> Iterator[Cluster]:
    """A connection to Ray, closed at the end; without an `address`, a local Ray for that long.

    Parameters
    ----------
    address: `auto` or `HOST:PORT`; None starts a local Ray.
    cpus: processors of the local Ray.
    shared_bytes: size of the data that will lie in the object store.
    storage, sweep: what the workers read and write. If it is a folder, every node of a cluster
        must see a file that lies among the sweep's while the connection is open.

    Raises
    ------
    SweepError: there is no cluster at the address, or a node of it has other versions than this
        process, or does not see the storage.
    StorageError: the storage cannot be written to.
    """
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_temporary_folder())
        if address is None:
            stack.enter_context(_reaped(folder))
        stack.callback(ray.shutdown)  # before ray.init, which may be interrupted half-way
        if address is None:
            _start(folder, cpus=cpus, shared_bytes=shared_bytes)
        else:
            _join(address)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # failures are told by us
        check = _no_check if address is None else stack.enter_context(_watched(storage, sweep))
        scratch = folder / "tune"
        scratch.mkdir()
        yield Cluster(Capacity(grows=address is not None), scratch, check)


def _no_check() -> None:
    """A local Ray is this very machine and environment."""


@contextlib.contextmanager
def _watched(storage: Storage, sweep: str) -> Iterator[Callable[[], None]]:
    # Named as what a writer has not finished: readers pass it by, and if we are killed, the next
    # run removes it.
    path = temporary_path(storage.sweep_file(sweep))
    token = None if storage.local is None else Path(path)
    with token_file(token):
        nodes = Nodes(token)
        nodes.wait()
        yield nodes.check


def _start(folder: Path, *, cpus: int, shared_bytes: int) -> None:
    """Start a local Ray. On a busy machine it may take longer than Ray waits for itself."""
    for _ in range(_STARTS):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=max(2 * shared_bytes, shared_bytes + _OBJECT_STORE_SPARE),
                _temp_dir=str(folder),
            )
            return
        except Exception as error:  # of no class of its own
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            ray.shutdown()
    raise SweepError(
        f"Ray could not be started on this machine in {_STARTS} attempts: {reason} "
        "(see what takes its processors, memory or disk; `ticketsweep doctor` looks at them)"
    )


def _join(address: str) -> None:
    rule = f"--address must be that of a running Ray cluster, got {address!r}"
    if address.startswith("ray://"):
        raise SweepError(
            f"{rule} (Ray's client cannot run Tune's callbacks; give HOST:PORT of the head node, "
            "or start the sweep there with `ray job submit`)"
        )
    # Ray tries for five minutes; `auto` may name a cluster that is no more.
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "5")
    try:
        if address != "auto":
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SweepError(
            f"{rule} ({reason}; start one with `ray start --head`, or leave --address out)"
        ) from None


@contextlib.contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A folder for a local Ray's sockets and logs; those of killed drivers are removed first.

    Its owner holds a lock on it, which ends with the process in whatever way that ends, and which
    is also seen from other containers that share the parent folder.
    """
    parent = Path(tempfile.gettempdir())
    if len(str(parent)) > _LONGEST_FOLDER:
        parent = Path("/tmp")
    for leftover in parent.glob(f"{_FOLDER_PREFIX}*"):
        # An empty one has just been made and is about to be locked.
        with contextlib.suppress(OSError):
            if any(leftover.iterdir()):
                with _locked(leftover):
                    shutil.rmtree(leftover, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_FOLDER_PREFIX, dir=parent))
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _reaped(folder: Path) -> Iterator[None]:
    """A process that ends the local Ray in this folder once we are through, or have been killed."""
    command = [sys.executable, "-I", "-S", reaper.__file__, str(folder)]
    # A session of its own: Ctrl-C and a kill of our process group do not reach it.
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    assert watcher.stdin is not None
    try:
        yield
    finally:
        watcher.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            watcher.wait(_SECONDS_TO_REAP)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder. Raises BlockingIOError, an OSError, if another process does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
