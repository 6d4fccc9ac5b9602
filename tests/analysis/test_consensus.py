"""Many masks at once, beside the published formulas on unpacked masks and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import binom

from ticketsweep.analysis.consensus import (
    consensus,
    keep_frequency,
    kept_by_chance,
    layer_consensus,
    mean_consensus,
    nogueira,
)
from ticketsweep.analysis.layers import LayerBits, count_kept
from ticketsweep.analysis.overlap import chance_corrected_overlap, pack

Bools = NDArray[np.bool_]

several = st.tuples(st.integers(2, 7), st.integers(2, 40)).flatmap(lambda s: arrays(np.bool_, s))


def shared(masks: Bools) -> NDArray[np.int64]:
    flat = masks.astype(np.float32)  # a fast product, exact for so few gates
    return (flat @ flat.T)[None].astype(np.int64)


def published(masks: Bools) -> tuple[float, float]:
    """Stability and its variance as Nogueira et al. write them, gate by gate."""
    m, d = masks.shape
    p, k = masks.mean(axis=0), masks.sum(axis=1)
    mean = p.sum()
    denominator = (mean / d) * (1 - mean / d)
    value = 1 - (m / (m - 1)) * np.mean(p * (1 - p)) / denominator
    phi = [
        (
            np.mean(masks[i] * p)
            - k[i] * mean / d**2
            + value / 2 * (2 * mean * k[i] / d**2 - k[i] / d - mean / d + 1)
        )
        / denominator
        for i in range(m)
    ]
    return float(value), float(4 / m**2 * np.sum((phi - np.mean(phi)) ** 2))


@given(several)
def test_nogueiras_stability_and_its_interval_are_the_published_ones(masks: Bools) -> None:
    found = nogueira(shared(masks), np.array([masks.shape[1]]))
    if masks.any() and not masks.all():
        value, variance = published(masks)
        assert found is not None
        assert found.value == pytest.approx(value)
        if len(masks) > 2:
            assert found.interval is not None
            assert found.interval.low == pytest.approx(value - 1.959964 * variance**0.5)
            assert found.interval.high == pytest.approx(min(1, value + 1.959964 * variance**0.5))
        else:
            assert found.interval is None
    else:
        assert found is None


def test_of_masks_that_keep_equally_many_it_is_the_mean_corrected_overlap() -> None:
    rng = np.random.default_rng(0)
    masks = np.argsort(rng.random((5, 60)), axis=1) < 20
    both = shared(masks)
    pairs = [
        chance_corrected_overlap(both[0, i, j], 20, 20, 60) for i in range(5) for j in range(i)
    ]
    found = nogueira(both, np.array([60]))
    assert found is not None
    assert found.value == pytest.approx(np.mean(pairs))


def test_equal_masks_have_stability_one_and_independent_ones_zero() -> None:
    rng = np.random.default_rng(1)
    mask = rng.random((1, 50)) < 0.3
    same = nogueira(shared(np.repeat(mask, 4, axis=0)), np.array([50]))
    assert same is not None
    assert same.value == pytest.approx(1)
    values = []
    for _ in range(400):
        drawn = np.concatenate([rng.random((4, 60)) < 0.8, rng.random((4, 300)) < 0.05], axis=1)
        layers = np.concatenate([shared(drawn[:, :60]), shared(drawn[:, 60:])])
        found = nogueira(layers, np.array([60, 300]))
        assert found is not None
        values.append(found.value)
    assert abs(np.mean(values)) < 4 * np.std(values) / 20


def test_the_interval_of_pooled_layers_covers_independent_masks_in_the_long_run() -> None:
    rng = np.random.default_rng(2)
    held, runs = 0, 200
    truth = 0.5  # a gate keeps its template's value with probability sqrt(0.5), else is drawn anew
    templates = [rng.random(400) < 0.5, rng.random(800) < 0.5]
    for _ in range(runs):
        both = []
        for template in templates:
            strength = np.sqrt(truth)
            fresh = rng.random((100, len(template))) < template.mean()
            keeps = rng.random(fresh.shape) < strength
            both.append(shared(np.where(keeps, template, fresh)))
        found = nogueira(np.concatenate(both), np.array([400, 800]))
        assert found is not None
        assert found.interval is not None
        held += found.interval.low <= truth <= found.interval.high
    assert held / runs >= 0.9


@given(several)
def test_core_union_and_frequency_are_those_of_the_masks(masks: Bools) -> None:
    layer = LayerBits("fc1", masks.shape[1:], pack(masks))
    frequency = keep_frequency(layer)
    np.testing.assert_allclose(frequency, masks.mean(axis=0))
    both = consensus(layer.bits)
    np.testing.assert_array_equal(both.core, pack(masks.all(axis=0)[None])[0])
    np.testing.assert_array_equal(both.union, pack(masks.any(axis=0)[None])[0])
    found = layer_consensus(
        "fc1", shared(masks), np.array([layer.size]), count_kept(layer).by_masks
    )
    assert found.core == pytest.approx(masks.all(axis=0).mean())
    assert found.union == pytest.approx(masks.any(axis=0).mean())
    assert sum(found.frequency) == pytest.approx(1)
    assert sum(found.by_chance) == pytest.approx(1)


def test_of_masks_of_one_density_chance_keeps_binomially_many() -> None:
    found = kept_by_chance(np.array([30, 30, 30, 30]), 100)
    assert found == pytest.approx(100 * binom.pmf(np.arange(5), 4, 0.3))


def test_chance_of_unequal_densities_is_that_of_independent_masks() -> None:
    rng = np.random.default_rng(3)
    kept = np.array([100, 400, 700])
    drawn = np.array(
        [np.argsort(rng.random((3, 1_000)), axis=1) < kept[:, None] for _ in range(200)]
    )
    counts = np.stack([np.bincount(each.sum(axis=0), minlength=4) for each in drawn])
    error = 5 * counts.std(axis=0) / 200**0.5
    assert np.all(np.abs(counts.mean(axis=0) - kept_by_chance(kept, 1_000)) <= error)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_masks_that_keep_nothing_or_everything_say_so_without_a_figure(share: float) -> None:
    masks = np.full((3, 9), share == 1)
    layer = LayerBits("fc1", (9,), pack(masks))
    found = layer_consensus("fc1", shared(masks), np.array([9]), count_kept(layer).by_masks)
    assert (found.nogueira, found.low, found.high) == (None, None, None)
    assert str(found) == (
        f"fc1: {share:.1%} kept by all 3 masks (chance {share:.1%}), "
        f"{share:.1%} by any (chance {share:.1%})"
    )


def test_trials_are_averaged_unless_they_have_unlike_numbers_of_masks() -> None:
    rng = np.random.default_rng(4)

    def of(masks: int) -> object:
        drawn = rng.random((masks, 30)) < 0.5
        layer = LayerBits("fc1", (30,), pack(drawn))
        return layer_consensus("fc1", shared(drawn), np.array([30]), count_kept(layer).by_masks)

    one, other = of(4), of(4)
    mean = mean_consensus([one, other])  # type: ignore[list-item]
    assert mean is not None
    assert mean.trials == 2
    assert mean.core == pytest.approx((one.core + other.core) / 2)  # type: ignore[attr-defined]
    assert (mean.low, mean.high) == (None, None)  # the trials share seeds
    assert mean_consensus([one, of(3)]) is None  # type: ignore[list-item]
