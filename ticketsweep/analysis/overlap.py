"""Agreement of two masks: raw, and against what chance alone would give.

A mask of a layer has `n` gates, of which `a` are kept; two masks share `inter` kept gates. Every
measure is a function of these counts, takes integers or integer arrays that broadcast, and returns
float64 of their common shape. Where a measure is undefined (its denominator is 0, because a mask
keeps nothing or everything) it is NaN, without a warning.

The null of the chance-corrected measures draws both masks at random with their kept counts fixed:
`inter` is then hypergeometric.

`layer_axis`, where given, is the axis along which layers lie: numerator and denominator are summed
over it before they are divided, so each layer is compared with the chance level of its own density.
Summing the counts first and correcting afterwards would make unequal layer densities look like
agreement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Counts: TypeAlias = int | Sequence[int] | NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]


def pack(masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Bit-pack masks, bool (M, ...) -> uint8 (M, ceil(gates / 8)).

    Gates lie in C order, least significant bit first, zero-padded to whole bytes: the layout of
    `bits` in the mask database.
    """
    return np.packbits(masks.reshape(len(masks), -1), axis=1, bitorder="little")


def jaccard(inter: Counts, a: Counts, b: Counts, *, layer_axis: int | None = None) -> Floats:
    """`|A and B| / |A or B|`, in [0, 1]; NaN where both masks are empty."""
    i, a, b = _counts(inter, a, b)
    return _ratio(i, a + b - i, layer_axis)


def hamming(
    inter: Counts, a: Counts, b: Counts, n: Counts, *, layer_axis: int | None = None
) -> Floats:
    """Share of the gates on which the masks disagree, in [0, 1]; NaN where there is no gate."""
    i, a, b, n = _counts(inter, a, b, n)
    return _ratio(a + b - 2 * i, n, layer_axis)


def overlap_coefficient(
    inter: Counts, a: Counts, b: Counts, *, layer_axis: int | None = None
) -> Floats:
    """`|A and B| / min(|A|, |B|)`, in [0, 1]; NaN where a mask is empty."""
    i, a, b = _counts(inter, a, b)
    return _ratio(i, np.minimum(a, b), layer_axis)


def expected_intersection(a: Counts, b: Counts, n: Counts) -> Floats:
    """Expectation of the intersection under the null: `a b / n`; NaN where there is no gate."""
    a, b, n = _counts(a, b, n)
    return _ratio(a * b, n)


def intersection_variance(a: Counts, b: Counts, n: Counts) -> Floats:
    """Variance of the intersection under the null: `a b (n-a) (n-b) / (n^2 (n-1))`.

    A layer of a single gate has variance 0; NaN where there is no gate.
    """
    a, b, n = _counts(a, b, n)
    # Two quotients, for the product of four counts overflows.
    return _ratio(a * b, n) * _ratio((n - a) * (n - b), n * np.maximum(n - 1, 1))


def expected_jaccard(a: Counts, b: Counts, n: Counts, *, layer_axis: int | None = None) -> Floats:
    """Jaccard index that chance alone would give, to second order.

    With `s = a + b`, `E[I / (s - I)]` is expanded about `m = E[I]`: `m / (s-m) + s V[I] / (s-m)^3`.
    The remainder shrinks as the square of the number of kept gates.
    """
    a, b, n = _counts(a, b, n)
    mean, variance = expected_intersection(a, b, n), intersection_variance(a, b, n)
    total = a + b
    if layer_axis is not None:
        mean, variance = mean.sum(axis=layer_axis), variance.sum(axis=layer_axis)
        total = total.sum(axis=layer_axis)
    union = total - mean
    return _ratio(mean, union) + _ratio(total * variance, union**3)


def chance_corrected_overlap(
    inter: Counts, a: Counts, b: Counts, n: Counts, *, layer_axis: int | None = None
) -> Floats:
    """`(I - ab/n) / (min(a, b) - ab/n)`: 0 for independent masks, 1 where one contains the other.

    Never above 1; below 0 where masks avoid each other. NaN where a mask is empty or full (in every
    layer, where layers are pooled): then nothing is left that could agree beyond chance.
    """
    i, a, b, n = _counts(inter, a, b, n)
    # In integers up to the last division, so that a full mask's denominator is exactly 0.
    excess = _ratio(i * n - a * b, n)
    headroom = _ratio(np.minimum(a, b) * (n - np.maximum(a, b)), n)
    return _ratio(excess, headroom, layer_axis)


def z_score(
    inter: Counts, a: Counts, b: Counts, n: Counts, *, layer_axis: int | None = None
) -> Floats:
    """Excess of the intersection over chance, in standard deviations of the null.

    Layers are independent under the null, so their variances add where they are pooled. NaN where a
    mask is empty or full (in every layer, where pooled).
    """
    i, a, b, n = _counts(inter, a, b, n)
    excess, variance = _ratio(i * n - a * b, n), intersection_variance(a, b, n)
    if layer_axis is not None:
        excess, variance = excess.sum(axis=layer_axis), variance.sum(axis=layer_axis)
    return _ratio(excess, np.sqrt(variance))


def _counts(*counts: Counts) -> tuple[NDArray[np.int64], ...]:
    """Counts as int64 arrays of one shape: products of layer sizes need more than 32 bits."""
    return np.broadcast_arrays(*(np.asarray(count, dtype=np.int64) for count in counts))


def _ratio(
    numerator: NDArray[np.int64] | Floats,
    denominator: NDArray[np.int64] | Floats,
    layer_axis: int | None = None,
) -> Floats:
    """Quotient as float64, NaN where the denominator is 0."""
    top, bottom = numerator.astype(np.float64), denominator.astype(np.float64)
    if layer_axis is not None:
        top, bottom = top.sum(axis=layer_axis), bottom.sum(axis=layer_axis)
    undefined = np.full(np.shape(bottom), np.nan)
    quotient: Floats = np.divide(top, bottom, out=undefined, where=bottom != 0)
    return quotient
