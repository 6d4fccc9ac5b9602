"""Does a seed decide anything? A permutation test on the overlaps of crossed replicates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations, permutations, product

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from ticketsweep.analysis.layers import FACTORS
from ticketsweep.readable import Readable

SIGNIFICANT = 0.05

_ALL, _DRAWN = 5_000, 1_999  # arrangements: all are looked at up to so many, else so many are drawn


@dataclass(frozen=True)
class Permutation(Readable):
    """Result of a permutation test: its p, and the smallest p that the design allows."""

    p: float
    smallest: float

    def __str__(self) -> str:
        return f"p = {self.p:.2g}"


def permutation_test(
    overlap: NDArray[np.float64] | None, replicates: NDArray[np.int64], factor: str
) -> Permutation | None:
    """Test that replicates with the same seed of one factor agree no more than others.

    Replicates that share all other seeds form a cell. If the factor decided nothing, its seeds
    could be handed out anew within each cell. What is compared is the overlap of pairs that share
    this seed alone (one-sided: more of it counts). All arrangements are looked at if there are few,
    else 1,999 drawn at random, always the same.

    Parameters
    ----------
    overlap: float64 (M, M), symmetric; None is answered by None.
    replicates: int64 (M, factor), their seeds in the order of `FACTORS`.

    Returns
    -------
    None where seeds are not fully crossed, once each, where no other factor varies, or where an
    overlap that is needed is undefined.
    """
    own = FACTORS.index(factor)
    others = np.delete(replicates, own, axis=1)
    cells, cell = np.unique(others, axis=0, return_inverse=True)
    seeds, seed = np.unique(replicates[:, own], return_inverse=True)
    crossed = len(np.unique(replicates, axis=0)) == len(replicates) == len(cells) * len(seeds)
    varying = np.ptp(others, axis=0) > 0
    if overlap is None or not crossed or not varying.any() or len(seeds) < 2:
        return None
    at = np.empty((len(cells), len(seeds)), dtype=np.int64)
    at[cell.reshape(-1), seed] = np.arange(len(replicates))
    unlike = [
        (one, other)
        for one, other in combinations(range(len(cells)), 2)
        if np.all(cells[one, varying] != cells[other, varying])
    ]
    one, other = np.array(unlike).T
    # Cells that are not joined by any pair are independent, and one of those that are joined can
    # keep its order: only the order of the others against it counts.
    joined = np.zeros((len(cells), len(cells)), dtype=np.bool_)
    joined[one, other] = True
    components, component = connected_components(joined, directed=False)
    free = np.setdiff1d(np.arange(len(cells)), np.unique(component, return_index=True)[1])
    arrangements = math.factorial(len(seeds)) ** (len(cells) - components)

    def agreement(order: NDArray[np.int64]) -> NDArray[np.float64]:
        """Summed overlap of pairs that share a seed in each arrangement, (B, cells, seeds)."""
        given = np.take_along_axis(at[None], order, axis=2)
        summed: NDArray[np.float64] = overlap[given[:, one], given[:, other]].sum(axis=(1, 2))
        return summed

    if np.isnan(overlap[at[one][:, :, None], at[other][:, None, :]]).any():
        return None
    few = arrangements <= _ALL
    seen = float(agreement(np.arange(len(seeds))[None, None].repeat(len(cells), axis=1))[0])
    found = agreement(_every_order(at.shape, free) if few else _drawn_orders(at.shape, free))
    reached = int(np.sum(found >= seen - 1e-12 * max(1.0, abs(seen))))
    p = reached / arrangements if few else (1 + reached) / (1 + _DRAWN)
    return Permutation(p, 1 / min(arrangements, 1 + _DRAWN))


def _every_order(shape: tuple[int, ...], free: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every order of the seeds in the free cells: int64 (B, cells, seeds)."""
    cells, seeds = shape
    orders = np.array(list(permutations(range(seeds))))
    chosen = np.array(list(product(range(len(orders)), repeat=len(free))), dtype=np.int64)
    every = np.broadcast_to(np.arange(seeds), (len(chosen), cells, seeds)).copy()
    every[:, free] = orders[chosen]
    return every


def _drawn_orders(shape: tuple[int, ...], free: NDArray[np.int64]) -> NDArray[np.int64]:
    cells, seeds = shape
    drawn = np.broadcast_to(np.arange(seeds), (_DRAWN, cells, seeds)).copy()
    drawn[:, free] = np.random.default_rng(0).permuted(drawn[:, free], axis=2)
    return drawn
