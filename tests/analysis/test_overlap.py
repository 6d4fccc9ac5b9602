"""Laws of the measures on pairs of masks, beside SciPy, scikit-learn and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import hypergeom
from sklearn.metrics import hamming_loss, jaccard_score

from ticketsweep.analysis.overlap import (
    chance_corrected_overlap,
    expected_intersection,
    expected_jaccard,
    hamming,
    intersection_variance,
    jaccard,
    overlap_coefficient,
    z_score,
)

Bools = NDArray[np.bool_]

counts = st.integers(2, 60).flatmap(
    lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.just(n))
)
pairs_of_masks = st.integers(1, 70).flatmap(lambda n: arrays(np.bool_, (2, n)))


def pair_counts(masks: Bools) -> tuple[int, int, int, int]:
    one, other = masks
    return int((one & other).sum()), int(one.sum()), int(other.sum()), one.size


def null(a: int, b: int, n: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every intersection that is possible, and its probability under the null."""
    shared = np.arange(max(0, a + b - n), min(a, b) + 1)
    return shared, hypergeom.pmf(shared, n, a, b)


def draws(rng: np.random.Generator, n: int, kept: int, size: int) -> Bools:
    """Masks that keep `kept` gates, drawn at random: (size, n)."""
    ranks = rng.permuted(np.broadcast_to(np.arange(n), (size, n)), axis=1)
    return ranks < kept


@given(pairs_of_masks)
def test_jaccard_and_hamming_equal_those_of_scikit_learn(masks: Bools) -> None:
    i, a, b, n = pair_counts(masks)
    assert hamming(i, a, b, n) == pytest.approx(hamming_loss(masks[0], masks[1]))
    if a + b:
        assert jaccard(i, a, b) == pytest.approx(jaccard_score(masks[0], masks[1]))
    else:
        assert np.isnan(jaccard(i, a, b))


@given(pairs_of_masks)
def test_the_overlap_coefficient_is_the_share_of_the_smaller_mask(masks: Bools) -> None:
    i, a, b, _ = pair_counts(masks)
    smaller = masks[0] if a <= b else masks[1]
    if smaller.any():
        assert overlap_coefficient(i, a, b) == pytest.approx(masks.all(axis=0)[smaller].mean())
    else:
        assert np.isnan(overlap_coefficient(i, a, b))


@given(counts)
def test_expectation_and_variance_are_the_hypergeometric_ones(abn: tuple[int, int, int]) -> None:
    a, b, n = abn
    shared, chance = null(a, b, n)
    mean = np.sum(chance * shared)
    assert expected_intersection(a, b, n) == pytest.approx(mean)
    assert intersection_variance(a, b, n) == pytest.approx(
        np.sum(chance * (shared - mean) ** 2), abs=1e-9
    )


@pytest.mark.parametrize(
    ("a", "b", "n", "error"),
    [
        (5, 5, 10, 0.003),
        (30, 30, 100, 1e-3),
        (100, 20, 300, 5e-4),
        (300, 500, 1000, 1e-5),
        (10, 10, 10, 1e-12),
    ],
)
def test_the_jaccard_of_chance_is_the_exact_expectation(
    a: int, b: int, n: int, error: float
) -> None:
    shared, chance = null(a, b, n)
    exact = np.sum(chance * shared / (a + b - shared))
    assert expected_jaccard(a, b, n) == pytest.approx(exact, abs=error)


@given(counts)
def test_the_corrected_overlap_of_independent_masks_is_zero_in_expectation(
    abn: tuple[int, int, int],
) -> None:
    a, b, n = abn
    shared, chance = null(a, b, n)
    for measure in (chance_corrected_overlap, z_score):
        expectation = np.sum(chance * measure(shared, a, b, n))
        if 0 < a < n and 0 < b < n:
            assert expectation == pytest.approx(0, abs=1e-9)
        else:
            assert np.isnan(expectation)


@given(counts)
def test_the_z_score_of_independent_masks_has_variance_one(abn: tuple[int, int, int]) -> None:
    a, b, n = abn
    if 0 < a < n and 0 < b < n:
        shared, chance = null(a, b, n)
        assert np.sum(chance * z_score(shared, a, b, n) ** 2) == pytest.approx(1)


@given(arrays(np.bool_, st.integers(1, 70)))
def test_equal_masks_overlap_fully(mask: Bools) -> None:
    i, a, b, n = pair_counts(np.stack([mask, mask]))
    if 0 < a < n:
        assert chance_corrected_overlap(i, a, b, n) == pytest.approx(1)
        assert jaccard(i, a, b) == overlap_coefficient(i, a, b) == 1
    assert hamming(i, a, b, n) == 0


@given(pairs_of_masks)
def test_measures_are_symmetric_and_never_above_one(masks: Bools) -> None:
    i, a, b, n = pair_counts(masks)
    corrected = chance_corrected_overlap(i, a, b, n)
    np.testing.assert_equal(corrected, chance_corrected_overlap(i, b, a, n))
    np.testing.assert_equal(z_score(i, a, b, n), z_score(i, b, a, n))
    np.testing.assert_equal(expected_jaccard(a, b, n), expected_jaccard(b, a, n))
    assert np.isnan(corrected) or corrected <= 1 + 1e-12


def test_layers_are_pooled_against_their_own_chance_levels() -> None:
    """Two independent masks of a dense and a sparse layer: counted together they seem to agree."""
    rng = np.random.default_rng(1)
    dense, sparse = draws(rng, 2_000, 1_800, 200), draws(rng, 8_000, 80, 200)
    kept = np.array([[1_800], [80]])
    gates = np.array([[2_000], [8_000]])
    inter = np.stack([(m[:100] & m[100:]).sum(axis=1) for m in (dense, sparse)])  # (2, 100)

    pooled = chance_corrected_overlap(inter, kept, kept, gates, layer_axis=0)
    assert pooled.shape == (100,)
    assert abs(pooled.mean()) < 4 * pooled.std() / 10
    z = z_score(inter, kept, kept, gates, layer_axis=0)
    assert abs(z.mean()) < 0.4
    assert 0.7 < z.std() < 1.3
    counted_first = chance_corrected_overlap(inter.sum(axis=0), 1_880, 1_880, 10_000)
    assert counted_first.mean() > 0.7

    raw = jaccard(inter, kept, kept, layer_axis=0)
    assert raw.mean() == pytest.approx(expected_jaccard(kept, kept, gates, layer_axis=0), rel=5e-3)


def test_pooled_measures_equal_their_sums() -> None:
    inter, a, b, n = np.array([30, 7]), np.array([50, 10]), np.array([40, 20]), np.array([100, 400])
    chance = a * b / n
    variance = [hypergeom.var(*counts) for counts in zip(n, a, b, strict=True)]
    assert jaccard(inter, a, b, layer_axis=0) == pytest.approx(37 / (120 - 37))
    assert overlap_coefficient(inter, a, b, layer_axis=0) == pytest.approx(37 / 50)
    assert hamming(inter, a, b, n, layer_axis=0) == pytest.approx((120 - 2 * 37) / 500)
    assert chance_corrected_overlap(inter, a, b, n, layer_axis=0) == pytest.approx(
        (37 - chance.sum()) / (50 - chance.sum())
    )
    assert z_score(inter, a, b, n, layer_axis=0) == pytest.approx(
        (37 - chance.sum()) / np.sqrt(np.sum(variance))
    )


def test_an_empty_or_full_layer_leaves_the_pooled_overlap_alone() -> None:
    inter, a, b, n = np.array([30, 9]), np.array([50, 9]), np.array([40, 64]), np.array([100, 64])
    assert chance_corrected_overlap(inter, a, b, n, layer_axis=0) == pytest.approx(
        chance_corrected_overlap(30, 50, 40, 100)
    )


def test_counts_of_large_layers_do_not_overflow() -> None:
    n, a = 2_000_000_000, 900_000_000
    assert chance_corrected_overlap(a, a, a, n) == pytest.approx(1)
    assert intersection_variance(a, a, n) == pytest.approx(n * (0.45 * 0.55) ** 2)
    assert np.isnan(chance_corrected_overlap(n, n, n, n))
