"""Where along training masks become the ticket, and where those of other seeds part from it.

A mask on the way is compared with the ticket of its own replicate, and with the masks that the
other replicates of the same initial weights have at the same step. Chance-corrected overlap is 1
for a mask that holds the ticket and much else besides, as gates that begin open do; so that it is
the ticket itself is judged by `in_common`, which is 1 for equal masks alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ticketsweep.analysis.intervals import Interval, overlap_interval, trial_weights
from ticketsweep.analysis.layers import FACTORS, LayerBits, Seeds
from ticketsweep.analysis.overlap import chance_corrected_overlap, hamming
from ticketsweep.analysis.pairs import intersections

SETTLED = 0.95
"""Share of the ticket and of the mask that they have in common from where a mask has settled."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TrialSettling:
    """The masks of a trial's M replicates at S steps, over all layers; NaN where undefined.

    Parameters
    ----------
    steps: int64 (S,), ascending; the last one's masks are the tickets.
    hamming: float64 (S, M), share of the gates on which mask and ticket disagree.
    overlap: float64 (S, M), chance-corrected overlap of mask and ticket.
    in_common: float64 (S, M), gates kept by both, of those that the larger of the two keeps.
    density: float64 (S, M), share of the gates that the mask keeps.
    between: float64 (S, P), chance-corrected overlap of the masks of two replicates of the same
        initial weights.
    seeds: int64 (P, factor, 2), theirs.
    """

    steps: Ints
    hamming: Floats
    overlap: Floats
    in_common: Floats
    density: Floats
    between: Floats
    seeds: Ints

    @property
    def settled_at(self) -> Floats:
        """First step from which on mask and ticket have `SETTLED` in common, float64 (M,).

        NaN for a ticket that keeps nothing.
        """
        sure = self.in_common >= SETTLED
        since = np.logical_and.accumulate(sure[::-1], axis=0)[::-1]  # from here to the end
        found = self.steps[np.argmax(since, axis=0)].astype(np.float64)
        return np.where(since.any(axis=0), found, np.nan)


@dataclass(frozen=True)
class Between:
    """Mean chance-corrected overlap of `pairs` replicates of the same initial weights.

    `interval` is a 95 % one over seeds; None where they are too few.
    """

    value: float
    interval: Interval | None
    pairs: int


def mean_between(trials: Sequence[TrialSettling], *, at: int) -> Between | None:
    """`between` of some trials at the step of that index, a trial weighing as much as another.

    None where no pair defines it: there is one replicate of each init, or masks are full or empty.
    """
    values = np.concatenate([trial.between[at] for trial in trials])
    seeds = np.concatenate([trial.seeds for trial in trials])
    trial = np.repeat(np.arange(len(trials)), [len(each.seeds) for each in trials])
    defined = ~np.isnan(values)
    if not defined.any():
        return None
    values, seeds, trial = values[defined], seeds[defined], trial[defined]
    kind = (seeds[:, :, 0] != seeds[:, :, 1]) @ (1 << np.arange(len(FACTORS)))
    alike = np.unique(trial * 8 + kind, return_inverse=True)[1]
    weights = trial_weights(trial)
    interval = overlap_interval(values, weights, alike, seeds)
    return Between(float(values @ weights), interval, len(values))


def trial_settling(masks: Mapping[int, Sequence[LayerBits]], seeds: Seeds) -> TrialSettling:
    """Follow the masks of a trial to its tickets.

    Parameters
    ----------
    masks: step -> layers, the same ones in the same order at each, M masks in each.
    seeds: of the M replicates.

    Raises
    ------
    ValueError: no step, no layer, or layers that differ between steps.
    """
    steps = sorted(masks)
    shapes = {tuple((of.layer, of.shape, len(of.bits)) for of in masks[step]) for step in steps}
    if len(shapes) != 1 or () in shapes:
        raise ValueError(f"every step must have the same layers, at least one, got {shapes}")
    ticket = masks[steps[-1]]
    sizes = np.array([of.size for of in ticket], dtype=np.int64)[:, None]
    one, other, triples = _same_init(seeds)
    rows = [_at(masks[step], ticket, sizes, one, other) for step in steps]
    distance, overlap, in_common, density, between = (
        np.stack(each) for each in zip(*rows, strict=True)
    )
    return TrialSettling(
        steps=np.array(steps, dtype=np.int64),
        hamming=distance,
        overlap=overlap,
        in_common=in_common,
        density=density,
        between=between,
        seeds=triples,
    )


def _at(
    layers: Sequence[LayerBits], ticket: Sequence[LayerBits], sizes: Ints, one: Ints, other: Ints
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """The five figures of one step, (M,) each, the last one (P,)."""
    kept = np.stack([_count(of.bits) for of in layers])  # (L, M)
    final = np.stack([_count(of.bits) for of in ticket])
    both = np.stack([_count(of.bits & to.bits) for of, to in zip(layers, ticket, strict=True)])
    larger = np.maximum(kept.sum(axis=0), final.sum(axis=0))
    in_common = np.full(larger.shape, np.nan)
    np.divide(both.sum(axis=0), larger, out=in_common, where=larger > 0)
    in_common[final.sum(axis=0) == 0] = np.nan  # there is no ticket to become
    between = np.empty(0)
    if len(one):
        shared = np.stack([intersections(of.bits)[one, other] for of in layers])  # (L, P)
        between = chance_corrected_overlap(
            shared, kept[:, one], kept[:, other], sizes, layer_axis=0
        )
    return (
        hamming(both, kept, final, sizes, layer_axis=0),
        chance_corrected_overlap(both, kept, final, sizes, layer_axis=0),
        in_common,
        kept.sum(axis=0) / sizes.sum(),
        between,
    )


def _count(bits: NDArray[np.uint8]) -> Ints:
    counts: Ints = np.bitwise_count(bits).sum(axis=1, dtype=np.int64)
    return counts


def _same_init(seeds: Seeds) -> tuple[Ints, Ints, Ints]:
    """Pairs of the same initial weights that differ in a seed, and their seeds (P, factor, 2)."""
    triples = np.stack([seeds.init, seeds.data, seeds.gate], axis=1)
    one, other = np.triu_indices(len(triples), k=1)
    differ = triples[one] != triples[other]
    wanted = ~differ[:, 0] & differ.any(axis=1)
    one, other = one[wanted], other[wanted]
    return one, other, np.stack([triples[one], triples[other]], axis=2)
