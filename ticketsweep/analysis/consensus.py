"""Many masks at once: what all of them keep, and Nogueira's stability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from ticketsweep.analysis.intervals import CONFIDENCE, MIN_SEEDS, Interval
from ticketsweep.analysis.layers import LayerBits
from ticketsweep.readable import Readable


@dataclass(frozen=True)
class Nogueira(Readable):
    """Stability of a selection over M masks: 1 if all are equal, 0 in expectation by chance.

    `interval` takes the masks for independent draws of one distribution and M for large. Replicates
    that share a seed are not independent, and few masks make it too narrow (simulated: it covers
    85 % at 10 masks, 92 % at 40, 94 % at 150); None below three.
    """

    value: float
    interval: Interval | None
    masks: int

    def __str__(self) -> str:
        return f"{self.value:z.2f} {self.interval or ''}".rstrip() + f", {self.masks} masks"


def nogueira(shared: NDArray[np.int64], sizes: NDArray[np.int64]) -> Nogueira | None:
    """Nogueira's stability with its asymptotic 95 % interval, pooled over layers.

    `1 - sum_l S_l / sum_l k_l (1 - k_l / d_l)`, where of the d_l gates of layer l the masks keep
    k_l on average and S_l is the sum over the gates of the unbiased variance of being kept. Of one
    layer it is that of Nogueira, Sechidis and Brown (2018), equation 4, and the interval that of
    their corollary 9; pooled, the delta method that gives it takes in all layers' sums. It needs
    no gates, only what pairs share.

    Parameters
    ----------
    shared: int64 (L, M, M), gates that each pair of masks keeps in common, by layer.
    sizes: int64 (L,), gates of each layer.

    Returns
    -------
    None of fewer than two masks, or where they keep nothing, or all, of every layer.
    """
    masks = shared.shape[1]
    kept = np.diagonal(shared, axis1=1, axis2=2).astype(np.float64)  # (L, M)
    mean, d = kept.mean(axis=1, keepdims=True), sizes[:, None].astype(np.float64)
    spread = float(np.sum(mean * (1 - mean / np.maximum(d, 1))))
    if masks < 2 or spread <= 0:
        return None
    agreeing = shared.mean(axis=2)  # (L, M): of mask i, mean over all masks of what it shares
    variance = float(np.sum(mean[:, 0] - agreeing.mean(axis=1)))
    value = 1 - masks / (masks - 1) * variance / spread
    # How far the value moves with the weight of a mask, but for a constant: their phi_i.
    share = mean / np.maximum(d, 1)
    phi = np.sum(agreeing - kept * share + value / 2 * (2 * share - 1) * kept, axis=0) / spread
    half = float(ndtri((1 + CONFIDENCE) / 2) * 2 * phi.std() / np.sqrt(masks))
    interval = Interval(value - half, min(value + half, 1.0)) if masks >= MIN_SEEDS else None
    return Nogueira(value, interval, masks)


@dataclass(frozen=True)
class Consensus:
    """The core and the union of the masks of a layer, each uint8 (bytes,), packed as they are.

    `core` holds the gates that all masks keep, `union` those that any keeps.
    """

    core: NDArray[np.uint8]
    union: NDArray[np.uint8]


def consensus(bits: NDArray[np.uint8]) -> Consensus:
    """Core and union of at least one packed mask, uint8 (M, bytes)."""
    return Consensus(np.bitwise_and.reduce(bits), np.bitwise_or.reduce(bits))


def keep_frequency(layer: LayerBits) -> NDArray[np.float64]:
    """Share of the masks that keep each gate, float64 in the layer's shape; NaN without a mask."""
    keepers = np.zeros(layer.size, dtype=np.int64)
    for bits in layer.bits:
        keepers += np.unpackbits(bits, count=layer.size, bitorder="little")
    masks = len(layer.bits)
    shares = keepers / masks if masks else np.full(layer.size, np.nan)
    return shares.reshape(layer.shape)


def kept_by_chance(kept: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """How many gates 0, 1, ... M masks would keep if they were independent: float64 (M + 1,).

    The Poisson binomial distribution of the masks' densities, times the gates.

    Parameters
    ----------
    kept: int64 (M,), gates that each mask keeps.
    size: gates of the layer.
    """
    chances = np.array([float(size)])
    for density in kept / max(size, 1):
        chances = np.convolve(chances, [1 - density, density])
    return chances


@dataclass(frozen=True)
class LayerConsensus(Readable):
    """What all replicates of a trial have in common in one layer, or the mean of several trials.

    Parameters
    ----------
    layer: its name, or "all layers".
    masks: replicates of a trial; `trials` averaged.
    frequency: share of the gates that exactly 0, 1, ... M of the masks keep.
    by_chance: what that share would be for independent masks of the same densities.
    nogueira: Nogueira's stability over all replicates, None where it is undefined; `low` and `high`
        are its asymptotic interval, of a single trial of three replicates or more.
    """

    layer: str
    masks: int
    trials: int
    frequency: tuple[float, ...]
    by_chance: tuple[float, ...]
    nogueira: float | None
    low: float | None
    high: float | None

    @property
    def core(self) -> float:
        """Share of the gates that every mask keeps."""
        return self.frequency[-1]

    @property
    def union(self) -> float:
        """Share of the gates that some mask keeps."""
        return 1 - self.frequency[0]

    def __str__(self) -> str:
        shown = f"{self.layer}: {self.core:.1%} kept by all {self.masks} masks "
        shown += f"(chance {self.by_chance[-1]:.1%}), {self.union:.1%} by any "
        shown += f"(chance {1 - self.by_chance[0]:.1%})"
        if self.nogueira is None:
            return shown
        interval = ""
        if self.low is not None and self.high is not None:
            interval = f" {Interval(self.low, self.high)}"
        return f"{shown}, Nogueira's stability {self.nogueira:z.2f}{interval}"


def layer_consensus(
    layer: str,
    shared: NDArray[np.int64],
    sizes: NDArray[np.int64],
    by_masks: NDArray[np.int64],
) -> LayerConsensus:
    """The consensus of one trial's masks, over the layers given.

    Parameters
    ----------
    layer: what to call it.
    shared, sizes: as `nogueira` takes them.
    by_masks: int64 (M + 1,), how many of all gates 0, 1, ... M masks keep.
    """
    gates = max(int(sizes.sum()), 1)
    kept = np.diagonal(shared, axis1=1, axis2=2)
    chance = sum(kept_by_chance(k, int(n)) for k, n in zip(kept, sizes, strict=True))
    found = nogueira(shared, sizes)
    interval = found.interval if found else None
    return LayerConsensus(
        layer=layer,
        masks=shared.shape[1],
        trials=1,
        frequency=tuple((by_masks / gates).tolist()),
        by_chance=tuple(np.divide(chance, gates).tolist()),
        nogueira=found.value if found else None,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
    )


def mean_consensus(each: Sequence[LayerConsensus]) -> LayerConsensus | None:
    """The mean over trials of one layer; None where they have unlike numbers of replicates."""
    if len(each) == 1:
        return each[0]
    if len({one.masks for one in each}) > 1:
        return None
    known = [one.nogueira for one in each if one.nogueira is not None]
    return LayerConsensus(
        layer=each[0].layer,
        masks=each[0].masks,
        trials=len(each),
        frequency=_mean([one.frequency for one in each]),
        by_chance=_mean([one.by_chance for one in each]),
        nogueira=float(np.mean(known)) if known else None,
        low=None,
        high=None,
    )


def _mean(rows: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(np.mean(rows, axis=0).tolist())
