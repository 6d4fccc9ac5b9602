"""The packs of a trial on its devices, a thread for each; at rungs they wait for one another."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Collection, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import torch

from ticketsweep.progress import Alive
from ticketsweep.seeds import Replicate
from ticketsweep.train.checkpoint import Checkpoints
from ticketsweep.train.division import halved
from ticketsweep.train.gates.kernels import choose
from ticketsweep.train.learning import CurvePoint
from ticketsweep.train.memory import is_out_of_memory
from ticketsweep.train.stages import Stages
from ticketsweep.train.tickets import Tickets, joined
from ticketsweep.train.weights import Passage

SIZES = "packs"
"""The stage whose result in the checkpoint are the packs' sizes."""

Told = CurvePoint | Passage | Alive
Running = Generator[Told | Tickets, None, Tickets]

_BEGINNING = threading.Lock()  # of stages, which set what all threads of a process share


@dataclass(frozen=True)
class Packs:
    """The packs that a trial's replicates are trained in; what follows is told by one of them.

    Attributes
    ----------
    sizes: replicates in each.
    done: how many packs have been trained.
    first: of the trial's replicates, which the pack that tells begins with.
    elsewhere: steps of learning gates that the others have done, as far as they have told.
    """

    sizes: tuple[int, ...]
    done: int
    first: int = 0
    elsewhere: int = 0


@dataclass(frozen=True)
class _Ended:
    tickets: Tickets


@dataclass(frozen=True)
class _OutOfMemory:
    pass


@dataclass(eq=False)
class _Part:
    """A pack: the replicates from `first` on.

    Attributes
    ----------
    running: its stages, while a device has them.
    told: the last step of its curve that was told.
    rung: its tickets so far, while it waits at a rung for the other packs.
    passed: the step of the last rung that it has left.
    found: its tickets, once it is done.
    """

    first: int
    size: int
    checkpoints: Checkpoints
    running: Running | None = None
    told: int = 0
    rung: Tickets | None = None
    passed: int = 0
    found: Tickets | None = None

    def leave(self) -> None:
        """Give the device's memory back; the checkpoint has what it takes to go on."""
        if self.running is not None:
            self.running.close()
        self.running = None


class _Lane:
    """A device, and the thread that works there: the caller's if it is the only one.

    Attributes
    ----------
    part: what it works on, or what waits there at a rung.
    heard: what that tells next.
    """

    def __init__(self, device: torch.device, *, alone: bool) -> None:
        self.device = device
        self.part: _Part | None = None
        self.heard: Future[Told | Tickets | _Ended | _OutOfMemory] | None = None
        self._thread = None if alone else ThreadPoolExecutor(
            1, thread_name_prefix="pack",
            initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),),
        )  # fmt: skip

    def start(self, begin: Callable[[torch.device], Stages]) -> None:
        """Train to the next thing that the pack has to tell."""
        assert self.part is not None
        if self._thread is not None:
            self.heard = self._thread.submit(self._advance, self.part, begin)
        else:
            self.heard = Future()
            self.heard.set_result(self._advance(self.part, begin))

    def close(self) -> None:
        """Wait for what is being done."""
        if self._thread is not None:
            self._thread.shutdown()

    def _advance(
        self, part: _Part, begin: Callable[[torch.device], Stages]
    ) -> Told | Tickets | _Ended | _OutOfMemory:
        with _current(self.device):
            try:
                if part.running is None:
                    with _BEGINNING:
                        part.running = begin(self.device).run()
                return next(part.running)
            except StopIteration as stop:
                return _Ended(stop.value)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Not in the handler, whose error holds on to all that was allocated.
            part.leave()
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return _OutOfMemory()


class Spreading:
    """Trains a trial's packs, as many at once as there are devices.

    Each device has a thread, and torch lets other threads run while it launches kernels. What does
    not: Python's own share of a step, which is most of it for small networks on a GPU. A pack's
    results do not depend on the device's place in the list, nor on what is trained beside it.

    With rungs, all packs come to one before any goes on. Where there are more packs than devices,
    those that wait leave their device and go on from their checkpoint.

    Parameters
    ----------
    begin: stages of some replicates, on a device; see `Stages`.
    sizes: replicates in each pack.
    devices: of one kind.
    rungs: see `packs.find_tickets`.
    whole: the stages of all replicates on the first device, if they are there already.
    """

    def __init__(
        self,
        begin: Callable[..., Stages],
        replicates: Sequence[Replicate],
        sizes: Sequence[int],
        devices: Sequence[torch.device],
        checkpoints: Checkpoints,
        *,
        rungs: Collection[int],
        whole: Stages | None,
    ) -> None:
        self._begin, self._replicates = begin, replicates
        self._checkpoints, self._rungs = checkpoints, rungs
        self._lanes = [_Lane(device, alone=len(devices) == 1) for device in devices]
        if len(sizes) == 1:
            running = None if whole is None else whole.run()
            self._parts = [_Part(0, sizes[0], checkpoints, running)]
        else:
            self._parts = self._divided(sizes, first=0)
        self._speaker = self._parts[0]

    def run(self) -> Generator[Told | Packs | Tickets, None, list[Tickets]]:
        """Train them to the end: a `Packs` wherever another pack tells, and before the first.

        Yields
        ------
        What packs tell; at rungs, the tickets of all of them.

        Raises
        ------
        TrialFailure: one replicate alone does not fit; or what a pack raises.
        """
        if len(self._lanes) > 1:
            choose(self._lanes[0].device.type)  # which threads would try at the same time
        if len(self._parts) > 1:
            yield self._standing()
        try:
            while any(part.found is None for part in self._parts):
                self._fill()
                busy = {lane.heard: lane for lane in self._lanes if lane.heard is not None}
                if not busy:
                    yield from self._pass_rung()
                    continue
                ready, _ = wait(busy, return_when=FIRST_COMPLETED)
                for heard in [each for each in busy if each in ready]:
                    yield from self._hear(busy[heard], heard.result())
        finally:
            for lane in self._lanes:
                lane.close()
            for part in self._parts:
                part.leave()
        return [part.found for part in self._parts if part.found is not None]

    def _fill(self) -> None:
        """Let every device work for which there is anything to do."""
        taken = [lane.part for lane in self._lanes]
        free = [
            part
            for part in self._parts
            if part.found is None and part.rung is None and part not in taken
        ]
        for lane in self._lanes:
            if lane.part is None and free:
                lane.part = free.pop(0)
            if lane.part is not None and lane.part.rung is None and lane.heard is None:
                lane.start(self._beginning(lane.part))

    def _beginning(self, part: _Part) -> Callable[[torch.device], Stages]:
        def begin(device: torch.device) -> Stages:
            return self._begin(
                self._replicates[part.first : part.first + part.size],
                device,
                part.checkpoints,
                others=len(self._parts) > 1,
                rungs=[rung for rung in self._rungs if rung > part.passed],
            )

        return begin

    def _hear(
        self, lane: _Lane, heard: Told | Tickets | _Ended | _OutOfMemory
    ) -> Generator[Told | Packs, None, None]:
        part = lane.part
        assert part is not None
        lane.heard = None
        if isinstance(heard, Tickets):
            part.rung = heard
            if sum(each.found is None for each in self._parts) > len(self._lanes):
                lane.part = None
                part.leave()
        elif isinstance(heard, _Ended):
            part.found, lane.part = heard.tickets, None
            part.leave()
        elif isinstance(heard, _OutOfMemory):
            lane.part = None
            self._speaker = self._halve(part)
            yield self._standing()
        elif not isinstance(heard, CurvePoint) or heard.step > part.told:
            if part is not self._speaker:
                self._speaker = part
                yield self._standing()
            if isinstance(heard, CurvePoint):
                part.told = heard.step
            yield heard

    def _pass_rung(self) -> Generator[Tickets, None, None]:
        """Go on from the earliest rung at which packs wait; all wait at one.

        If there are others beyond it, which went on from a later checkpoint, it was told before.
        """
        waiting = [(part, part.rung) for part in self._parts if part.rung is not None]
        step = min(rung.steps for _, rung in waiting)
        here = [(part, rung) for part, rung in waiting if rung.steps == step]
        if len(here) == len(self._parts):
            yield joined([rung for _, rung in here])
        for part, _ in here:
            part.rung, part.passed = None, step

    def _halve(self, part: _Part) -> _Part:
        """Put two packs in the place of one, and return the first of them."""
        at = self._parts.index(part)
        sizes = halved(self._sizes, at)
        part.checkpoints.forget()
        self._parts[at : at + 1] = self._divided(sizes[at : at + 2], first=part.first)
        self._checkpoints.finish(SIZES, {"sizes": torch.tensor(sizes)})
        return self._parts[at]

    def _divided(self, sizes: Sequence[int], *, first: int) -> list[_Part]:
        parts = []
        for size in sizes:
            own = self._checkpoints.within(f"{first}-{first + size}", beside=len(self._lanes))
            parts.append(_Part(first, size, own))
            first += size
        return parts

    @property
    def _sizes(self) -> tuple[int, ...]:
        return tuple(part.size for part in self._parts)

    def _standing(self) -> Packs:
        return Packs(
            self._sizes,
            done=sum(part.found is not None for part in self._parts),
            first=self._speaker.first,
            elsewhere=sum(part.told for part in self._parts if part is not self._speaker),
        )


def _current(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Where kernels are launched that do not ask where their tensors lie."""
    if device.type != "cuda" or device.index is None:
        return contextlib.nullcontext()
    return torch.cuda.device(device)
