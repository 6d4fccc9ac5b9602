"""Laws of the interval over seeds."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from ticketsweep.analysis.intervals import Interval, jackknife_interval, overlap_interval

Floats = NDArray[np.float64]


def pairs_within(seeds: int) -> NDArray[np.int64]:
    """All pairs of the seeds of one factor: (P, 1, 2)."""
    return np.array(list(combinations(range(seeds), 2)), dtype=np.int64)[:, None, :]


def alike(values: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Equal weights and one stratum."""
    return np.full(len(values), 1 / len(values)), np.zeros(len(values), dtype=np.int64)


def slow_interval(
    values: Floats, weights: Floats, strata: NDArray[np.int64], seeds: NDArray[np.int64]
) -> Interval:
    """Leave each seed out and compute the weighted mean anew."""
    shares = {s: weights[strata == s].sum() for s in set(strata.tolist())}

    def mean(keep: NDArray[np.bool_]) -> float:
        return float(sum(w * values[keep & (strata == s)].mean() for s, w in shares.items()))

    variance, freedom = 0.0, []
    for factor in range(seeds.shape[1]):
        levels = np.unique(seeds[:, factor])
        if len(levels) > 1:
            means = [mean(~np.any(seeds[:, factor] == level, axis=1)) for level in levels]
            variance += (len(levels) - 1) * np.var(means)
            freedom.append(len(levels) - 1)
    half = stats.t.ppf(0.975, min(freedom)) * np.sqrt(variance)
    centre = mean(np.ones(len(values), dtype=bool))
    return Interval(centre - half, centre + half)


@pytest.mark.parametrize("seeds", [3, 4, 8, 20])
def test_for_a_sum_over_the_two_seeds_it_is_students_interval(seeds: int) -> None:
    effects = np.random.default_rng(seeds).normal(size=seeds)
    pairs = pairs_within(seeds)
    values = effects[pairs[:, 0]].sum(axis=1)
    interval = jackknife_interval(values, *alike(values), pairs)
    low, high = stats.t.interval(
        0.95, seeds - 1, loc=2 * effects.mean(), scale=2 * stats.sem(effects)
    )
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((low, high))


@pytest.mark.parametrize("shape", [(3, 3, 1), (4, 3, 3), (1, 5, 4)])
def test_it_equals_leaving_every_seed_out_by_hand(shape: tuple[int, int, int]) -> None:
    """Pairs of all kinds at once, as strata of the kind and with unequal weights between them."""
    rng = np.random.default_rng(0)
    plan = np.array(list(product(*map(range, shape))))
    pairs = np.array([np.stack([a, b], axis=1) for a, b in combinations(plan, 2)])
    kind = (pairs[:, :, 0] != pairs[:, :, 1]) @ np.array([1, 2, 4])
    strata = np.unique(kind, return_inverse=True)[1]
    share = rng.dirichlet(np.ones(strata.max() + 1))
    weights = (share / np.bincount(strata))[strata]
    values = rng.normal(size=len(pairs))
    seeds = rng.permutation(100)[pairs]  # neither in order nor from 0
    interval = jackknife_interval(values, weights, strata, seeds)
    expected = slow_interval(values, weights, strata, seeds)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_the_order_of_the_pairs_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    pairs = pairs_within(6)
    values = rng.normal(size=len(pairs))
    order = rng.permutation(len(pairs))
    one = jackknife_interval(values, *alike(values), pairs)
    other = jackknife_interval(values[order], *alike(values), pairs[order][:, :, ::-1])
    assert one is not None
    assert other is not None
    assert (one.low, one.high) == pytest.approx((other.low, other.high))


def test_two_seeds_allow_no_interval() -> None:
    pairs = pairs_within(2)
    assert jackknife_interval(np.array([0.4]), np.ones(1), np.zeros(1, dtype=int), pairs) is None


def test_a_second_factor_of_two_seeds_allows_none_either() -> None:
    pairs = np.repeat(pairs_within(4), 2, axis=0)  # (12, 1, 2)
    other = np.tile(np.array([[[0, 0]], [[1, 1]]]), (6, 1, 1))
    values = np.linspace(0, 1, 12)
    assert jackknife_interval(values, *alike(values), np.concatenate([pairs, other], 1)) is None


def test_a_factor_of_one_seed_changes_nothing() -> None:
    pairs = pairs_within(5)
    values = np.linspace(0, 1, len(pairs)) ** 2
    constant = np.concatenate([pairs, np.full_like(pairs, 7)], axis=1)
    assert jackknife_interval(values, *alike(values), pairs) == jackknife_interval(
        values, *alike(values), constant
    )


def test_a_stratum_that_hangs_on_one_seed_allows_no_interval() -> None:
    """Three seeds in all, but the pairs of one kind all contain seed 0."""
    pairs = pairs_within(3)  # 0-1, 0-2, 1-2
    weights = np.array([0.25, 0.25, 0.5])
    values = np.array([0.1, 0.2, 0.3])
    assert jackknife_interval(values, weights, np.array([0, 0, 1]), pairs) is None


def test_where_nothing_varies_there_is_no_interval() -> None:
    same = np.zeros((2, 1, 2), dtype=np.int64)
    values = np.array([0.1, 0.2])
    assert jackknife_interval(values, *alike(values), same) is None


def test_an_interval_prints_without_a_negative_zero() -> None:
    assert str(Interval(-0.001, 0.4567)) == "[0.00, 0.46]"


@pytest.mark.parametrize("seeds", [3, 5, 8, 20])
def test_it_covers_as_often_as_it_says(seeds: int) -> None:
    """Pairs whose agreement is the product of their seeds' own: expectation 0.6 squared."""
    rng = np.random.default_rng(seeds)
    pairs = pairs_within(seeds)
    covered = 0
    for _ in range(1_000):
        strength = rng.normal(0.6, 0.1, size=seeds)
        values = strength[pairs[:, 0]].prod(axis=1)
        interval = jackknife_interval(values, *alike(values), pairs)
        assert interval is not None
        covered += interval.low <= 0.36 <= interval.high
    assert 0.93 <= covered / 1_000 <= 0.97


def test_the_interval_of_a_difference_is_the_difference_of_what_leaving_seeds_out_gives() -> None:
    """Pairs of two kinds, one counted against the other."""
    rng = np.random.default_rng(3)
    pairs = np.concatenate([pairs_within(6)] * 2)
    strata = np.repeat([0, 1], 15)
    values = rng.normal(size=30)
    interval = jackknife_interval(values, np.where(strata, -1 / 15, 1 / 15), strata, pairs)
    same = jackknife_interval(values[:15] - values[15:], *alike(values[:15]), pairs[:15])
    assert interval is not None
    assert same is not None
    assert (interval.low, interval.high) == pytest.approx((same.low, same.high))


@pytest.mark.parametrize("mean", [-0.2, 0.0, 0.02, 0.3, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("spread", [0.0, 0.01, 0.2])
def test_the_interval_of_an_overlap_holds_the_symmetric_one_and_ends_at_one(
    mean: float, spread: float
) -> None:
    pairs = pairs_within(4)
    values = mean + spread * (np.arange(6) - 2.5)
    plain = jackknife_interval(values, *alike(values), pairs)
    found = overlap_interval(values, *alike(values), pairs)
    assert plain is not None
    assert found is not None
    assert found.low <= plain.low + 1e-12
    assert min(plain.high, 1) - 1e-12 <= found.high <= 1
    if mean <= 0:
        assert (found.low, found.high) == pytest.approx((plain.low, min(plain.high, 1)))
    else:  # an overlap near chance does not reach far beyond the symmetric interval
        assert found.high <= max(plain.high, np.exp(4) * mean)


def test_the_interval_of_an_overlap_reaches_as_far_as_one_of_its_logit() -> None:
    """Towards the side with room; small spreads, for which the delta method is exact."""
    pairs = pairs_within(5)
    values = 0.1 + 1e-3 * np.random.default_rng(0).normal(size=10)
    logits = jackknife_interval(np.log(values / (1 - values)), *alike(values), pairs)
    plain = jackknife_interval(values, *alike(values), pairs)
    found = overlap_interval(values, *alike(values), pairs)
    assert plain is not None
    assert logits is not None
    assert found is not None
    assert found.low == pytest.approx(plain.low)
    assert found.high - 0.1 == pytest.approx(1 / (1 + np.exp(-logits.high)) - 0.1, rel=0.01)
    assert overlap_interval(values[:1], np.ones(1), np.zeros(1, dtype=int), pairs[:1]) is None


Draw = Callable[[np.random.Generator, int], Floats]


@pytest.mark.parametrize("seeds", [3, 8])
@pytest.mark.parametrize(
    ("draw", "mean", "least"),
    [
        (lambda rng, n: rng.normal(0.6, 0.1, n), 0.6, 0.93),
        (lambda rng, n: rng.uniform(0.3, 0.9, n), 0.6, 0.93),
        (lambda rng, n: 0.4 * np.exp(rng.normal(0, 0.5, n)), 0.4 * np.exp(0.125), 0.93),
        # Known to be short of it: an exponential tail on one side of a bound that is not at 0 or 1.
        (lambda rng, n: 0.3 + 0.1 * rng.exponential(1, n), 0.4, 0.88),
        (lambda rng, n: 0.9 - 0.1 * rng.exponential(1, n), 0.8, 0.89),
    ],
    ids=["normal", "uniform", "log-normal", "a lowest overlap", "a highest overlap"],
)
def test_the_interval_of_an_overlap_covers_skewed_effects_too(
    draw: Draw, mean: float, least: float, seeds: int
) -> None:
    """Pairs that overlap by the product of what their seeds bring."""
    rng = np.random.default_rng(seeds)
    pairs = pairs_within(seeds)
    covered = 0
    for _ in range(1_000):
        strength = draw(rng, seeds)
        values = strength[pairs[:, 0, 0]] * strength[pairs[:, 0, 1]]
        interval = overlap_interval(values, *alike(values), pairs)
        assert interval is not None
        covered += interval.low <= mean**2 <= interval.high
    assert covered / 1_000 >= least - 0.016  # two standard deviations of a thousand draws
