"""Agreement beyond what each input or each unit keeps, and agreement of whole inputs and units.

The gates of a layer fall into groups of equal size: those of an input (a column of a linear layer,
an input channel of a convolution), or those of a unit (a row, an output channel). A second null
draws masks at random with the kept count of every group fixed, where the first fixes the layer's
alone. What is left beyond it is not explained by which inputs are worth connecting: in a first
layer that part of the agreement is the data's (dark pixels carry nothing), not the weights'.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Quotient:
    """A figure of pairs of masks as numerator and denominator, so that layers can be pooled."""

    top: Floats
    bottom: Floats

    def value(self) -> Floats:
        """The figure; NaN where its denominator is 0."""
        undefined = np.full(self.top.shape, np.nan)
        value: Floats = np.divide(self.top, self.bottom, out=undefined, where=self.bottom != 0)
        return value


@dataclass(frozen=True)
class GroupAgreement:
    """How every pair of M masks agrees about the groups of a layer; float64 (M, M) each.

    Parameters
    ----------
    given: chance-corrected overlap of the gates, given the kept count of each group.
    alive: share of the groups that keep a gate, mean of the two masks.
    overlap: chance-corrected overlap of the groups that keep a gate.
    correlation: Pearson's, of the kept counts of the groups.
    """

    given: Quotient
    alive: Quotient
    overlap: Quotient
    correlation: Quotient


def overlap_given_counts(
    shared: NDArray[np.int64], counts: NDArray[np.int64], gates: int
) -> Quotient:
    """Overlap beyond chance of every pair, where chance keeps the kept count of each group.

    `(I - E) / (min(a, b) - E)` with `E = sum a_g b_g / n` over the groups g of n gates, in place of
    the layer's `E = a b / n`. 0 in expectation for masks drawn at random with these counts, 1 where
    one contains the other; undefined where the counts leave nothing open.

    Parameters
    ----------
    shared: int64 (M, M), gates that each pair keeps in common.
    counts: int64 (M, G), gates that each mask keeps of each group.
    gates: in a group.
    """
    kept = np.diagonal(shared)
    chance = _products(counts) / gates
    headroom = np.minimum.outer(kept, kept) - chance
    headroom[headroom < 1e-9 * np.maximum(chance, 1)] = 0  # what is left of rounding
    return Quotient(np.where(headroom > 0, shared - chance, 0), headroom)


def group_agreement(
    shared: NDArray[np.int64], counts: NDArray[np.int64], gates: int
) -> GroupAgreement:
    """All figures of groups; arguments as of `overlap_given_counts`, without groups all 0 / 0."""
    masks, groups = counts.shape
    nothing = Quotient(np.zeros((masks, masks)), np.zeros((masks, masks)))
    alive = (counts > 0).astype(np.int64)
    living = alive.sum(axis=1)
    common = _products(alive)
    chance = np.outer(living, living) / max(groups, 1)
    headroom = np.minimum.outer(living, living) - chance
    centred = counts - counts.mean(axis=1, keepdims=True) if groups else np.zeros((masks, 0))
    covariance = centred @ centred.T
    spread = np.sqrt(np.diagonal(covariance))
    return GroupAgreement(
        given=overlap_given_counts(shared, counts, max(gates, 1)) if groups else nothing,
        alive=Quotient(np.add.outer(living, living) / 2, np.full((masks, masks), float(groups))),
        overlap=Quotient(common - chance, headroom),
        correlation=Quotient(covariance, np.outer(spread, spread)),
    )


def _products(counts: NDArray[np.int64]) -> Floats:
    """Sums of products of two rows, exact: far below 2^53."""
    real = counts.astype(np.float64)
    product: Floats = real @ real.T
    return product
