"""The nodes of a cluster: what they have in all, and what each must share with the driver."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import ticketsweep
from ticketsweep.errors import StorageError, SweepError

_LIBRARIES = ("torch", "torchvision", "numpy", "optuna", "ray")
_SOURCES = "sources"
_SECONDS_BETWEEN_LOOKS = 2.0
_SECONDS_TO_ANSWER = 120.0  # a node's first task may wait for Python to start on a busy machine
_SECONDS_TO_BE_MISSED = 120.0  # a node; Ray asks it several times
_SECONDS_TO_APPEAR = 5.0  # of a new file, on another machine, where a folder is shared by NFS


@dataclass(frozen=True)
class Seen:
    """What a process finds where it runs.

    Attributes
    ----------
    versions: of Python, ticketsweep and the libraries that decide results; and a digest of
        ticketsweep's sources, since two states of a clone have the same version.
    token: whether it sees the driver's token file; True where there is none to be seen.
    """

    versions: Mapping[str, str]
    token: bool


def look(token: Path | None) -> Seen:
    """What this process finds."""
    versions = {
        "Python": ".".join(platform.python_version_tuple()[:2]),
        "ticketsweep": ticketsweep.__version__,
        _SOURCES: _digest(Path(ticketsweep.__file__).parent),
    }
    for name in _LIBRARIES:
        try:
            # A build for the CPU (`2.15.0+cpu`) goes with one for CUDA.
            versions[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "none"
    return Seen(versions, token is None or _appears(token))


def _digest(package: Path) -> str:
    """A hash of a package's Python files and their names, 8 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=4)
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()


def _appears(token: Path) -> bool:
    """Whether the file is there, or soon will be."""
    until = time.monotonic() + _SECONDS_TO_APPEAR
    while not _is_seen(token):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def _is_seen(token: Path) -> bool:
    try:
        return token.exists()
    except OSError:  # a stale mount, or a folder that may not be entered
        return False


@contextlib.contextmanager
def token_file(path: Path | None) -> Iterator[None]:
    """The (empty) file exists meanwhile. Raises StorageError if it cannot be written."""
    if path is None:
        yield
        return
    try:
        path.touch(exist_ok=False)
    except OSError as error:
        raise StorageError(f"storage {path.parent} cannot be written to: {error}") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the folder may be gone
            path.unlink(missing_ok=True)


class Capacity:
    """What the connected Ray has in all, as nodes come and go.

    Parameters
    ----------
    grows: whether it is a cluster, which machines may join: by hand, or started by an autoscaler
        for what waits.
    """

    def __init__(self, *, grows: bool) -> None:
        self.grows = grows
        self._found: Mapping[str, float] = {}
        self._next_look = 0.0

    @property
    def cpus(self) -> float:
        """Processors."""
        return self._total().get("CPU", 0.0)

    @property
    def gpus(self) -> float:
        """Devices."""
        return self._total().get("GPU", 0.0)

    @property
    def gpus_of_one(self) -> float:
        """Devices of the node that has the most."""
        nodes = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's own lack
        found = (node["Resources"].get("GPU", 0.0) for node in nodes if node["Alive"])
        return max(found, default=0.0)

    def _total(self) -> Mapping[str, float]:
        now = time.monotonic()
        if not self._found or (self.grows and now >= self._next_look):
            self._next_look = now + _SECONDS_BETWEEN_LOOKS
            self._found = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray's own lack
        return self._found


class Nodes:
    """Asks each node of the connected Ray, as it joins, what it finds there.

    Parameters
    ----------
    token: a file of the driver's in a storage that is a folder, so that each node must see it.
    """

    def __init__(self, token: Path | None) -> None:
        self._token, self._own = token, look(token)
        self._asked: set[str] = set()
        self._pending: dict[Any, Mapping[str, Any]] = {}  # the answer to come, and whose
        self._next_look = 0.0

    def wait(self) -> None:
        """Look at all nodes that are there. Raises SweepError as `check` does."""
        until = time.monotonic() + _SECONDS_TO_ANSWER
        self.check()
        while self._pending and time.monotonic() < until:
            ray.wait(list(self._pending), timeout=0.5)
            self.check()

    def check(self) -> None:
        """Look at nodes that have joined since, without waiting for their answers.

        Raises
        ------
        SweepError: a node has other versions than the driver, or another folder at the storage's
            path. The message names the node, the difference and the remedy.
        """
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _SECONDS_BETWEEN_LOOKS
            self._ask_new_nodes()
        if self._pending:
            # Those that are ready, of all that are pending.
            answers, _ = ray.wait(list(self._pending), num_returns=len(self._pending), timeout=0)
            for answer in answers:
                self._judge(answer, self._pending.pop(answer))

    def _ask_new_nodes(self) -> None:
        for node in ray.nodes():  # type: ignore[no-untyped-call]  # Ray's own lack
            identity = node["NodeID"]
            if node["Alive"] and identity not in self._asked:
                self._asked.add(identity)
                there = NodeAffinitySchedulingStrategy(identity, soft=False)
                task = _look_there.options(scheduling_strategy=there)
                self._pending[task.remote(self._token)] = node

    def _judge(self, answer: Any, of: Mapping[str, Any]) -> None:
        node = of["NodeManagerAddress"]
        remedy = "install the same state of ticketsweep on every machine: cluster/README.md"
        try:
            seen: Seen = ray.get(answer)
        except RayTaskError as error:
            # It could not be loaded there: no ticketsweep, or one that has no such task.
            reason = " ".join(str(error).split())[-200:]
            raise SweepError(
                f"node {node} must have ticketsweep {self._own.versions['ticketsweep']}, as the "
                f"driver has, but cannot load it: {reason} ({remedy})"
            ) from None
        except RayError:
            self._asked.discard(of["NodeID"])  # gone again; if it is not, it is asked once more
            return
        others = differences(self._own.versions, seen.versions)
        if others:
            raise SweepError(
                f"node {node} must have the driver's versions, got {', '.join(others)} ({remedy})"
            )
        if not seen.token:
            assert self._token is not None
            raise SweepError(
                f"--storage must be seen by every node, but node {node} has another folder, or "
                f"none, at {self._token.parents[2]} (give s3://BUCKET/PREFIX or "
                "gs://BUCKET/PREFIX, or a folder that all nodes mount at the same path)"
            )


class Losses:
    """Workers that have died with their nodes, which Ray knows only some time after the workers."""

    def __init__(self) -> None:
        self._suspects: list[tuple[str, Any, float]] = []  # the node, whose worker, until when
        self._next_look = 0.0

    def suspect(self, actor: str | None, of: Any) -> None:
        """A worker has died, by the id of its actor, and perhaps its node has."""
        known = ray._private.state.actors(actor) if actor else {}
        node = known.get("Address", {}).get("NodeID")
        if node:
            self._suspects.append((node, of, time.monotonic() + _SECONDS_TO_BE_MISSED))

    def found(self) -> list[Any]:
        """Whose workers have died with their nodes, each told once."""
        now = time.monotonic()
        if not self._suspects or now < self._next_look:
            return []
        self._next_look = now + _SECONDS_BETWEEN_LOOKS
        nodes = ray.nodes()  # type: ignore[no-untyped-call]  # Ray's own lack
        alive = {node["NodeID"] for node in nodes if node["Alive"]}
        lost = [of for node, of, _ in self._suspects if node not in alive]
        self._suspects = [each for each in self._suspects if each[0] in alive and each[2] > now]
        return lost


@ray.remote(num_cpus=0, max_retries=0)
def _look_there(token: Path | None) -> Seen:
    return look(token)


def differences(own: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """What differs, in words: `torch 2.14.0 (driver: 2.15.0)`."""
    if own["ticketsweep"] == other["ticketsweep"] and own[_SOURCES] != other[_SOURCES]:
        changed = f"ticketsweep {own['ticketsweep']} with other sources"
        found = [f"{changed} {other[_SOURCES]} (driver: {own[_SOURCES]})"]
    else:
        found = []
    return found + [
        f"{name} {other[name]} (driver: {version})"
        for name, version in own.items()
        if name != _SOURCES and other[name] != version
    ]
