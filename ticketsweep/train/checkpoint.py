"""What a trial needs to go on where it was cut off, as bytes without pickle."""

from __future__ import annotations

import copy
import hashlib
import math
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import safetensors.torch
from torch import Tensor

FORMAT = 4
"""Part of every checkpoint. Raise it when the stages or their states change their meaning."""

READABLE = (FORMAT, 3)
"""Formats that can be read: in 3, only one pack could be under way."""

State = dict[str, Tensor]

_SHARE = 0.03  # of a trial's time that saving may cost
_SHORTEST = 10.0  # seconds between two checkpoints
_DIGEST = 16  # bytes


class Slot(Protocol):
    """Where one trial's checkpoint lies."""

    def read(self) -> bytes | None:
        """The bytes written last; None if there are none."""

    def write(self, content: bytes) -> None:
        """Put these bytes in the place of the last ones, wholly or not at all."""


class Checkpoints:
    """A trial's checkpoint: results of the stages that are done, and the states of those under way.

    Stages of several packs may be under way, each on a thread of its own. A slot whose content was
    cut short, damaged or written by another version counts as empty.

    Parameters
    ----------
    slot: None to keep nothing.
    seconds: between two checkpoints; None for as often as costs 3 % of the time.
    device: kind of device; another kind's checkpoint counts as none, since its generators of
        random numbers are others.
    last_by: moment, by `time.monotonic`, after which the trial will be stopped: one checkpoint more
        is due then, however soon after another.
    """

    def __init__(
        self,
        slot: Slot | None,
        *,
        seconds: float | None = None,
        device: str = "cpu",
        last_by: float = math.inf,
    ) -> None:
        self._writer = _Writer(slot, device) if slot else None
        self._prefix = ""
        self._device = device
        self._seconds = seconds
        self._last_by = last_by
        # These and the lock are the same in every part.
        self._results: dict[str, State] = {}
        self._under_way: dict[str, State] = {}
        self._lock = threading.Lock()
        self._beside = 1
        self._saved = time.monotonic()
        content = slot.read() if slot else None
        if content is not None:
            self._load(content)

    @property
    def are_kept(self) -> bool:
        """Whether anything is ever saved."""
        return self._writer is not None

    def within(self, name: str, *, beside: int = 1) -> Checkpoints:
        """The same checkpoint for stages of a part of the trial, whose names begin with this.

        Parameters
        ----------
        beside: how many parts are under way at once, each of which saves.
        """
        part = copy.copy(self)
        part._prefix = f"{self._prefix}{name}:"
        part._beside = beside
        part._saved = time.monotonic()
        return part

    def result(self, stage: str) -> State | None:
        """What `finish` was given for this stage; None if it is not done."""
        return self._results.get(self._prefix + stage)

    def state(self, stage: str) -> State | None:
        """What `save` or `keep` was given for this stage last, if it was cut off in it."""
        return self._under_way.get(self._prefix + stage)

    def due(self) -> bool:
        """Whether it is time to save."""
        if self._writer is None:
            return False
        now = time.monotonic()
        if self._saved < self._last_by <= now:
            return True
        seconds = self._seconds
        if seconds is None:
            if self._writer.is_busy:
                return False
            seconds = max(_SHORTEST, self._beside * self._writer.cost / _SHARE)
        return now - self._saved >= seconds

    def save(self, stage: str, state: State) -> None:
        """Write the results so far and the states of stages under way, while training goes on.

        The tensors are the checkpoint's from now on: nobody may change them.

        Raises what the last write raised.
        """
        if self._writer is None:
            return
        self._saved = time.monotonic()
        own = _on_host(state)
        with self._lock:
            states = {**self._under_way, self._prefix + stage: own}
            if self._prefix:  # the other parts save it too
                self._under_way[self._prefix + stage] = own
            tensors = {f"{kind}/{name}/{key}": value
                       for kind, stages in (("done", self._results), ("now", states))
                       for name, tensors in stages.items()
                       for key, value in tensors.items()}  # fmt: skip
            self._writer.write(_on_host(tensors))

    def keep(self, stage: str, state: State) -> None:
        """Hold the state of a stage that is left for a while; it is written with the next `save`.

        Nobody may change the tensors.
        """
        with self._lock:
            self._under_way[self._prefix + stage] = _on_host(state)

    def close(self) -> None:
        """Wait for what is being written. Raises what writing it raised."""
        if self._writer is not None:
            self._writer.wait()

    def finish(self, stage: str, result: State) -> None:
        """Keep the result of a stage; it is written with the next `save`."""
        with self._lock:
            self._results[self._prefix + stage] = result
            self._under_way.pop(self._prefix + stage, None)

    def forget(self) -> None:
        """Drop all results and states of this part, or, if it is the whole, of all parts."""
        with self._lock:
            for stages in (self._results, self._under_way):
                for name in [each for each in stages if each.startswith(self._prefix)]:
                    del stages[name]

    def _load(self, content: bytes) -> None:
        tensors = _unpack(content, self._device)
        for name, value in (tensors or {}).items():
            kind, stage, key = name.split("/", 2)
            stages = self._results if kind == "done" else self._under_way
            stages.setdefault(stage, {})[key] = value


class _Writer:
    """Writes one checkpoint after the other on a thread of its own.

    Attributes
    ----------
    cost: seconds that the last one took.
    """

    def __init__(self, slot: Slot, device: str) -> None:
        self._slot = slot
        self._device = device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self.cost = 0.0

    @property
    def is_busy(self) -> bool:
        """Whether the last one is still being written."""
        return self._writing is not None and not self._writing.done()

    def write(self, tensors: State) -> None:
        """Begin to write, after the last one is done."""
        self.wait()
        self._writing = self._thread.submit(self._write, tensors)

    def wait(self) -> None:
        """Raises what the last write raised."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def _write(self, tensors: State) -> None:
        began = time.monotonic()
        self._slot.write(_pack(tensors, self._device))
        self.cost = time.monotonic() - began


def under(prefix: str, state: Mapping[str, Tensor]) -> State:
    """`state` with every key below `prefix`."""
    return {f"{prefix}/{key}": value for key, value in state.items()}


def part(prefix: str, state: Mapping[str, Tensor]) -> State:
    """What `under` put below `prefix`."""
    start = f"{prefix}/"
    return {key.removeprefix(start): v for key, v in state.items() if key.startswith(start)}


def _on_host(state: State) -> State:
    return {key: value.detach().cpu().contiguous() for key, value in state.items()}


def _pack(tensors: State, device: str) -> bytes:
    content = safetensors.torch.save(tensors)
    return _digest(content, FORMAT, device) + content


def _unpack(content: bytes, device: str) -> State | None:
    digest, content = content[:_DIGEST], content[_DIGEST:]
    if any(_digest(content, version, device) == digest for version in READABLE):
        return safetensors.torch.load(content)
    return None


def _digest(content: bytes, version: int, device: str) -> bytes:
    # Of format and device too: another's checkpoint is as good as a damaged one.
    kind = f"{version} {device}".encode()[: hashlib.blake2b.PERSON_SIZE]
    return hashlib.blake2b(content, digest_size=_DIGEST, person=kind).digest()
