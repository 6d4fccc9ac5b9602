"""The null that keeps kept counts per input or unit, and agreement of whole inputs and units."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import hypergeom

from ticketsweep.analysis.layers import LayerBits, Seeds
from ticketsweep.analysis.overlap import chance_corrected_overlap, pack
from ticketsweep.analysis.stability import trial_stability
from ticketsweep.analysis.units import group_agreement, overlap_given_counts

Bools = NDArray[np.bool_]

layers = st.tuples(st.integers(2, 4), st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.bool_, shape)
)


def counted(masks: Bools) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Of masks (M, units, inputs): what pairs share, kept per input, gates of an input."""
    flat = masks.reshape(len(masks), -1).astype(np.int64)
    return flat @ flat.T, masks.sum(axis=1, dtype=np.int64), masks.shape[1]


@given(layers)
def test_it_equals_a_slow_sum_over_inputs(masks: Bools) -> None:
    found = overlap_given_counts(*counted(masks)).value()
    for one, a in enumerate(masks):
        for other, b in enumerate(masks):
            kept = [(int(a[:, i].sum()), int(b[:, i].sum())) for i in range(a.shape[1])]
            chance = Fraction(sum(x * y for x, y in kept), len(a))
            headroom = min(int(a.sum()), int(b.sum())) - chance
            if headroom:
                slow = (int((a & b).sum()) - chance) / headroom
                assert found[one, other] == pytest.approx(float(slow))
            else:
                assert np.isnan(found[one, other])


@given(st.integers(2, 4).flatmap(lambda m: arrays(np.bool_, (m, 12, 1))))
def test_of_a_single_input_it_is_the_corrected_overlap(masks: Bools) -> None:
    shared, counts, gates = counted(masks)
    found = overlap_given_counts(shared, counts, gates).value()
    kept = np.diagonal(shared)
    expected = chance_corrected_overlap(shared, kept[:, None], kept, 12)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_masks_drawn_with_the_counts_of_each_input_agree_by_zero_in_expectation() -> None:
    """And the chance level is the sum of SciPy's hypergeometric means."""
    rng = np.random.default_rng(0)
    kept = rng.integers(1, 8, size=(2, 30))  # of 8 gates, by mask and input
    order = rng.permuted(np.tile(np.arange(8)[:, None], (2, 2_000, 1, 30)), axis=2)
    drawn = order < kept[:, None, None, :]  # (mask, draw, unit, input)
    inter = (drawn[0] & drawn[1]).sum(axis=(1, 2))
    chance = hypergeom.mean(8, kept[0], kept[1]).sum()
    assert inter.mean() == pytest.approx(chance, abs=4 * inter.std() / 2_000**0.5)
    values = [overlap_given_counts(*counted(drawn[:, at])).value()[0, 1] for at in range(300)]
    assert abs(np.mean(values)) < 4 * np.std(values) / 300**0.5
    layerwise = chance_corrected_overlap(inter, kept[0].sum(), kept[1].sum(), 240)
    assert layerwise.mean() != pytest.approx(0, abs=0.001)  # this null is not the layer's


@given(layers)
def test_it_is_symmetric_never_above_one_and_one_where_one_mask_contains_the_other(
    masks: Bools,
) -> None:
    masks = np.concatenate([masks, masks[:1] & masks[1:2]])
    found = overlap_given_counts(*counted(masks)).value()
    np.testing.assert_allclose(found, found.T)
    defined = found[~np.isnan(found)]
    assert np.all(defined <= 1 + 1e-9)
    for contained in (found[-1, 0], found[-1, 1]):
        assert np.isnan(contained) or contained == pytest.approx(1)


@given(layers)
def test_whole_inputs_agree_as_masks_of_inputs(masks: Bools) -> None:
    shared, counts, gates = counted(masks)
    groups = group_agreement(shared, counts, gates)
    alive, overlap, correlation = (
        figure.value() for figure in (groups.alive, groups.overlap, groups.correlation)
    )
    lives = counts > 0
    for one, other in [(0, 1), (1, 0), (0, 0)]:
        a, b = int(lives[one].sum()), int(lives[other].sum())
        inter = int((lives[one] & lives[other]).sum())
        assert alive[one, other] == pytest.approx((a + b) / 2 / lives.shape[1])
        expected = chance_corrected_overlap(inter, a, b, lives.shape[1])
        assert overlap[one, other] == pytest.approx(float(expected), nan_ok=True)
        if min(np.ptp(counts[one]), np.ptp(counts[other])) > 0:
            slow = np.corrcoef(counts[one], counts[other])[0, 1]
            assert correlation[one, other] == pytest.approx(slow)


def test_agreement_about_inputs_alone_is_the_inputs() -> None:
    """A first layer's masks that connect the same pixels, at random units."""
    rng = np.random.default_rng(1)
    bright = rng.random(200) < 0.3
    masks = (rng.random((6, 100, 200)) < 0.25) & bright
    seed = np.arange(6)
    layer = LayerBits("fc1", (100, 200), pack(masks))
    stability = trial_stability([layer], Seeds(seed, seed * 0, seed * 0))
    row = next(r for r in stability.rows if r.differs == "init")
    assert row.corrected is not None
    assert row.inputs_given is not None
    assert row.corrected > 0.15
    assert abs(row.inputs_given) < 0.01
    assert row.units_given == pytest.approx(row.corrected, abs=0.01)
    assert row.inputs_alive == pytest.approx(bright.mean())
    assert row.inputs_overlap == pytest.approx(1)
    assert row.inputs_correlation is not None
    assert row.inputs_correlation > 0.8


def test_gates_of_units_have_no_figures_of_inputs_and_do_not_count_in_the_pooled() -> None:
    rng = np.random.default_rng(2)
    seed = np.arange(3)
    seeds = Seeds(seed, seed * 0, seed * 0)
    units = LayerBits("units", (40,), pack(rng.random((3, 40)) < 0.5))
    weights = LayerBits("fc1", (20, 30), pack(rng.random((3, 20, 30)) < 0.5))
    alone = {r.layer: r for r in trial_stability([weights], seeds).rows if r.differs == "init"}
    both = {
        r.layer: r for r in trial_stability([units, weights], seeds).rows if r.differs == "init"
    }
    assert (both["units"].inputs_given, both["units"].units_alive) == (None, None)
    assert both["units"].corrected is not None
    assert both["all layers"].inputs_given == alone["fc1"].inputs_given
