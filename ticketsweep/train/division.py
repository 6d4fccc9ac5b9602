"""Into packs of how many replicates a trial is divided."""

from __future__ import annotations

import numpy as np

from ticketsweep.errors import TrialFailure
from ticketsweep.train.demand import Demand

FILLED = 0.8
"""Share of the free memory that packs are made for: the rest is for what is not counted."""


def fitting(replicates: int, demand: Demand, *, available: int | None) -> tuple[int, ...]:
    """As few packs as fit, as even as can be; never less than one replicate in each.

    Parameters
    ----------
    available: bytes; None for as many as are asked for.
    """
    if available is None:
        return (replicates,)
    room = int(available * FILLED - demand.fixed)
    largest = room // demand.each
    if largest < replicates:
        largest = (room - replicates * demand.waiting) // demand.each
    return sizes_of(replicates, largest=max(1, largest))


def spread(sizes: tuple[int, ...], devices: int) -> tuple[int, ...]:
    """The same replicates in packs of no more, equally many for each device if there are enough.

    More packs than that would not be over sooner, and fewer would leave devices idle at the end.
    """
    replicates, rounds = sum(sizes), -(-len(sizes) // devices)
    return evenly(replicates, min(replicates, rounds * devices))


def sizes_of(replicates: int, *, largest: int) -> tuple[int, ...]:
    """As few packs of at most so many as there can be, as even as can be."""
    return evenly(replicates, max(1, -(-replicates // largest)))


def evenly(replicates: int, packs: int) -> tuple[int, ...]:
    """So many packs, as even as can be."""
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
    return (*sizes[:at], *evenly(sizes[at], 2), *sizes[at + 1 :])
