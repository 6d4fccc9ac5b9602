"""A trial's replicates in packs that fit into memory, on one device or spread over several."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Generator, Sequence
from dataclasses import replace

import torch

from ticketsweep.progress import Alive
from ticketsweep.seeds import Replicate
from ticketsweep.train.checkpoint import Checkpoints
from ticketsweep.train.data import Dataset
from ticketsweep.train.division import fitting, sizes_of, spread
from ticketsweep.train.learning import CurvePoint
from ticketsweep.train.memory import available_memory
from ticketsweep.train.plan import Plan
from ticketsweep.train.spreading import SIZES, Packs, Spreading
from ticketsweep.train.stages import Stages
from ticketsweep.train.tickets import Tickets, joined
from ticketsweep.train.weights import Passage


def find_tickets(
    plan: Plan,
    dataset: Dataset,
    replicates: Sequence[Replicate],
    *,
    log_points: int,
    devices: Sequence[str],
    checkpoints: Checkpoints,
    pack: int | None = None,
    snapshots: bool = False,
    rungs: Collection[int] = (),
) -> Generator[CurvePoint | Passage | Alive | Packs | Tickets, None, Tickets]:
    """Learn the gates of all replicates, and return their hardened tickets.

    Replicates are trained together in as few packs as fit into memory, and in smaller ones where
    memory turns out not to suffice. Packs are trained on all devices at once, and one after the
    other where there are more of them.

    A replicate's weights, batches and noise are the same bit for bit whatever else is in the pack;
    its results are the same within rounding. The same call on the same machine with the same
    number of threads and the same packs gives, on the CPU, the same masks bit for bit, also on
    another number of devices, and where it was cut off and went on from a checkpoint. A replicate
    whose loss becomes infinite or NaN is marked, and the others go on.

    Parameters
    ----------
    log_points: about how many points of the curve are yielded; the last step always is. None are
        for a family that learns nothing. Other training tells as often how far it has come.
    devices: as torch names them, at least one, all of a kind.
    pack: replicates in a pack; None for as many as fit, in a pack for each device or more.
    snapshots: whether the masks of the logged steps are kept too, a bit a gate and step. They are
        missing for steps before a checkpoint of a trial that went without.
    rungs: steps after which the tickets are yielded as they would be if there were no more, without
        test figures. All packs are trained to a rung before any goes on.

    Yields
    ------
    The points of each pack's curve, and how far other stages have come. Where there are several
    packs, `Packs` wherever another one tells. `Tickets` at rungs.

    Raises
    ------
    TrialFailure: every replicate's loss or weights became infinite or NaN, or memory does not
        suffice for one of them.
    DataError, ModelError: see `check_plan`; or a streamed image cannot be read.
    """

    def begin(
        rows: Sequence[Replicate], device: torch.device, own: Checkpoints,
        *, others: bool, rungs: Collection[int],
    ) -> Stages:  # fmt: skip
        return Stages(
            plan, dataset, rows, log_points, device, own,
            others=others, snapshots=snapshots, rungs=rungs,
        )  # fmt: skip

    places = [torch.device(device) for device in devices]
    try:
        spreading = _spreading(begin, replicates, places, checkpoints, pack, rungs)
        return joined((yield from spreading.run()))
    finally:
        # What the last write raised is of no concern to a trial that has ended, and must not hide
        # how it did: if the storage is broken, writing the trial itself will say so.
        with contextlib.suppress(Exception):
            checkpoints.close()


def _spreading(
    begin: Callable[..., Stages],
    replicates: Sequence[Replicate],
    devices: Sequence[torch.device],
    checkpoints: Checkpoints,
    pack: int | None,
    rungs: Collection[int],
) -> Spreading:
    """The packs, as they were begun, or as they fit now."""
    whole = None
    if pack is None and len(replicates) > 1:
        whole = begin(replicates, devices[0], checkpoints, others=False, rungs=rungs)
        demand = whole.demand(saved=checkpoints.are_kept)
        if not rungs:
            demand = replace(demand, waiting=0)
        fit = fitting(len(replicates), demand, available=_available(devices, whole.held))
        largest, sizes = max(fit), spread(fit, len(devices))
    else:
        largest = pack or 1
        sizes = sizes_of(len(replicates), largest=largest)
    saved = checkpoints.result(SIZES)
    begun = () if saved is None else tuple(saved["sizes"].tolist())
    # They are ended as they were begun, unless that is more than fits or is asked for now.
    if sum(begun) == len(replicates) and max(begun) <= largest:
        sizes = begun
    if sizes != begun:
        checkpoints.forget()
        checkpoints.finish(SIZES, {"sizes": torch.tensor(sizes)})
    return Spreading(begin, replicates, sizes, devices, checkpoints, rungs=rungs, whole=whole)


def _available(devices: Sequence[torch.device], held: int) -> int | None:
    """Bytes that a pack may take on any of the devices; None where that cannot be told.

    Parameters
    ----------
    held: bytes of the images, which are on the first device already.
    """
    found = [available_memory(device) for device in devices]
    left = [
        room // devices.count(device) - (held if at else 0)
        for at, (device, room) in enumerate(zip(devices, found, strict=True))
        if room is not None
    ]
    return min(left, default=None)
