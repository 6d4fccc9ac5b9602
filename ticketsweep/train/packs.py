"""A trial's replicates in packs that fit into memory, trained one pack after the other."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ticketsweep.errors import TrialFailure
from ticketsweep.progress import Alive
from ticketsweep.seeds import Replicate
from ticketsweep.train.checkpoint import Checkpoints
from ticketsweep.train.data import Dataset
from ticketsweep.train.demand import Demand
from ticketsweep.train.learning import CurvePoint
from ticketsweep.train.memory import available_memory, is_out_of_memory
from ticketsweep.train.plan import Plan
from ticketsweep.train.stages import Stages
from ticketsweep.train.tickets import Tickets, joined
from ticketsweep.train.weights import Passage

FILLED = 0.8
"""Share of the free memory that packs are made for: the rest is for what is not counted."""

_SIZES = "packs"  # the stage whose result they are in the checkpoint


@dataclass(frozen=True)
class Packs:
    """The packs that a trial's replicates are trained in, one after the other.

    Attributes
    ----------
    sizes: replicates in each.
    done: how many packs have been trained.
    """

    sizes: tuple[int, ...]
    done: int


def find_tickets(
    plan: Plan,
    dataset: Dataset,
    replicates: Sequence[Replicate],
    *,
    log_points: int,
    device: str,
    checkpoints: Checkpoints,
    pack: int | None = None,
    snapshots: bool = False,
    rungs: Collection[int] = (),
) -> Generator[CurvePoint | Passage | Alive | Packs | Tickets, None, Tickets]:
    """Learn the gates of all replicates, and return their hardened tickets.

    Replicates are trained together in as few packs as fit into memory, and in smaller ones where
    memory turns out not to suffice.

    A replicate's weights, batches and noise are the same bit for bit whatever else is in the pack;
    its results are the same within rounding. The same call on the same machine with the same
    number of threads and the same packs gives, on the CPU, the same masks bit for bit, also where
    it was cut off and went on from a checkpoint. A replicate whose loss becomes infinite or NaN is
    marked, and the others go on.

    Parameters
    ----------
    log_points: about how many points of the curve are yielded; the last step always is. None are
        for a family that learns nothing. Other training tells as often how far it has come.
    device: as torch names it.
    pack: replicates in a pack; None for as many as fit.
    snapshots: whether the masks of the logged steps are kept too, a bit a gate and step. They are
        missing for steps before a checkpoint of a trial that went without.
    rungs: steps after which the tickets are yielded as they would be if there were no more, without
        test figures; never where there are several packs, which are trained one after the other.

    Yields
    ------
    The points of each pack's curve, and how far other stages have come. Where there are several
    packs, `Packs` before each of them. `Tickets` at rungs.

    Raises
    ------
    TrialFailure: every replicate's loss or weights became infinite or NaN, or memory does not
        suffice for one of them.
    DataError, ModelError: see `check_plan`; or a streamed image cannot be read.
    """
    try:
        return (
            yield from _pack_by_pack(
                functools.partial(Stages, plan, dataset, snapshots=snapshots, rungs=rungs),
                replicates,
                log_points,
                torch.device(device),
                checkpoints,
                pack,
            )
        )
    finally:
        # What the last write raised is of no concern to a trial that has ended, and must not hide
        # how it did: if the storage is broken, writing the trial itself will say so.
        with contextlib.suppress(Exception):
            checkpoints.close()


def _pack_by_pack(
    stages_of: Callable[..., Stages],
    replicates: Sequence[Replicate],
    log_points: int,
    device: torch.device,
    checkpoints: Checkpoints,
    pack: int | None,
) -> Generator[CurvePoint | Passage | Alive | Packs | Tickets, None, Tickets]:
    whole = None
    if pack is None and len(replicates) > 1:
        whole = stages_of(replicates, log_points, device, checkpoints, others=False)
        demand = whole.demand(saved=checkpoints.are_kept)
        sizes = fitting(len(replicates), demand, available=available_memory(device))
    else:
        sizes = sizes_of(len(replicates), largest=pack or 1)
    saved = checkpoints.result(_SIZES)
    begun = () if saved is None else tuple(saved["sizes"].tolist())
    # They are ended as they were begun, unless that is more than fits or is asked for now.
    if sum(begun) == len(replicates) and max(begun) <= max(sizes):
        sizes = begun
    if sizes != begun:
        checkpoints.finish(_SIZES, {"sizes": torch.tensor(sizes)})
    found: list[Tickets] = []
    while len(found) < len(sizes):
        done, first = len(found), sum(sizes[: len(found)])
        own, several = checkpoints, len(sizes) > 1
        if several:
            whole = None  # with all that it holds
            yield Packs(sizes, done)
            own = checkpoints.within(f"{first}-{first + sizes[done]}")
        rows = replicates[first : first + sizes[done]]
        stages: Stages | None = None
        try:
            stages = whole or stages_of(rows, log_points, device, own, others=several)
            found.append((yield from stages.run()))
            continue
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Not in the handler, whose error holds on to all that was allocated.
        whole = stages = None
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        sizes = halved(sizes, done)
        checkpoints.finish(_SIZES, {"sizes": torch.tensor(sizes)})
    return joined(found)


def fitting(replicates: int, demand: Demand, *, available: int | None) -> tuple[int, ...]:
    """As few packs as fit, as even as can be; never less than one replicate in each.

    Parameters
    ----------
    available: bytes; None for as many as are asked for.
    """
    largest = replicates
    if available is not None:
        largest = max(1, int(available * FILLED - demand.fixed) // demand.each)
    return sizes_of(replicates, largest=largest)


def sizes_of(replicates: int, *, largest: int) -> tuple[int, ...]:
    """As few packs of at most so many as there can be, as even as can be."""
    packs = max(1, -(-replicates // largest))
    return tuple(len(part) for part in np.array_split(np.arange(replicates), packs))


def halved(sizes: tuple[int, ...], at: int) -> tuple[int, ...]:
    """Two packs in the place of one.

    Raises
    ------
    TrialFailure: it is a single replicate.
    """
    if sizes[at] == 1:
        raise TrialFailure(
            "out of memory with a single replicate in the pack (lower train.batch_size or width, "
            "or give the trial more memory)"
        )
    return (*sizes[:at], *sizes_of(sizes[at], largest=-(-sizes[at] // 2)), *sizes[at + 1 :])
