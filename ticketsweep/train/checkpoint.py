"""What a trial needs to go on where it was cut off, as bytes without pickle."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import safetensors.torch
from torch import Tensor

FORMAT = 3
"""Part of every checkpoint. Raise it when the stages or their states change their meaning."""

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
    """A trial's checkpoint: results of the stages that are done, and the state of one under way.

    A slot whose content was cut short, damaged or written by another version counts as empty.

    Parameters
    ----------
    slot: None to keep nothing.
    seconds: between two checkpoints; None for as often as costs 3 % of the time.
    device: kind of device; another kind's checkpoint counts as none, since its generators of
        random numbers are others.
    """

    def __init__(
        self, slot: Slot | None, *, seconds: float | None = None, device: str = "cpu"
    ) -> None:
        self._writer = _Writer(slot, device) if slot else None
        self._prefix = ""
        self._device = device
        self._seconds = seconds
        self._results: dict[str, State] = {}
        self._under_way: tuple[str, State] | None = None
        content = slot.read() if slot else None
        if content is not None:
            self._load(content)

    @property
    def are_kept(self) -> bool:
        """Whether anything is ever saved."""
        return self._writer is not None

    def within(self, name: str) -> Checkpoints:
        """The same checkpoint for stages of a part of the trial, whose names begin with this."""
        part = copy.copy(self)
        part._prefix = f"{self._prefix}{name}:"
        return part

    def result(self, stage: str) -> State | None:
        """What `finish` was given for this stage; None if it is not done."""
        return self._results.get(self._prefix + stage)

    def state(self, stage: str) -> State | None:
        """What `save` was given for this stage last, if it was cut off in it."""
        if self._under_way is None or self._under_way[0] != self._prefix + stage:
            return None
        return self._under_way[1]

    def due(self) -> bool:
        """Whether it is time to save."""
        if self._writer is None:
            return False
        seconds = self._seconds
        if seconds is None:
            if self._writer.is_busy:
                return False
            seconds = max(_SHORTEST, self._writer.cost / _SHARE)
        return time.monotonic() - self._writer.began >= seconds

    def save(self, stage: str, state: State) -> None:
        """Write the results so far and the state of the stage under way, while training goes on.

        The tensors are the checkpoint's from now on: nobody may change them.

        Raises what the last write raised.
        """
        if self._writer is None:
            return
        self._writer.began = time.monotonic()
        tensors = {f"done/{name}/{key}": value for name, result in self._results.items()
                   for key, value in result.items()}  # fmt: skip
        tensors |= {f"now/{self._prefix}{stage}/{key}": value for key, value in state.items()}
        self._writer.write(
            {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        )

    def close(self) -> None:
        """Wait for what is being written. Raises what writing it raised."""
        if self._writer is not None:
            self._writer.wait()

    def finish(self, stage: str, result: State) -> None:
        """Keep the result of a stage; it is written with the next `save`."""
        self._results[self._prefix + stage] = result
        self._under_way = None

    def _load(self, content: bytes) -> None:
        tensors = _unpack(content, self._device)
        for name, value in (tensors or {}).items():
            kind, stage, key = name.split("/", 2)
            if kind == "done":
                self._results.setdefault(stage, {})[key] = value
            else:
                if self._under_way is None:
                    self._under_way = (stage, {})
                self._under_way[1][key] = value


class _Writer:
    """Writes one checkpoint after the other on a thread of its own.

    Attributes
    ----------
    began: when the last one was begun, or this was made.
    cost: seconds that the last one took.
    """

    def __init__(self, slot: Slot, device: str) -> None:
        self._slot = slot
        self._device = device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self.began = time.monotonic()
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


def _pack(tensors: State, device: str) -> bytes:
    content = safetensors.torch.save(tensors)
    return _digest(content, device) + content


def _unpack(content: bytes, device: str) -> State | None:
    digest, content = content[:_DIGEST], content[_DIGEST:]
    return safetensors.torch.load(content) if _digest(content, device) == digest else None


def _digest(content: bytes, device: str) -> bytes:
    # Of format and device too: another's checkpoint is as good as a damaged one.
    kind = f"{FORMAT} {device}".encode()[: hashlib.blake2b.PERSON_SIZE]
    return hashlib.blake2b(content, digest_size=_DIGEST, person=kind).digest()
