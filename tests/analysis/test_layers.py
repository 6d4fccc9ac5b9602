"""Masks summed over inputs, units and masks, beside sums of the unpacked arrays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from ticketsweep.analysis.layers import LayerBits, count_kept
from ticketsweep.analysis.overlap import pack

Bools = NDArray[np.bool_]


def layer(masks: Bools) -> LayerBits:
    return LayerBits("fc1", masks.shape[1:], pack(masks))


@given(arrays(np.bool_, array_shapes(min_dims=2, max_dims=5, max_side=7)))
def test_counts_equal_sums_of_the_masks(masks: Bools) -> None:
    counts = count_kept(layer(masks))
    flat = masks.reshape(len(masks), -1)
    keepers = flat.sum(axis=0)
    assert counts.by_masks.tolist() == [np.sum(keepers == m) for m in range(len(masks) + 1)]
    if masks.ndim > 2:
        over = tuple(range(3, masks.ndim))
        np.testing.assert_array_equal(counts.units, masks.sum(axis=(2, *over)))
        np.testing.assert_array_equal(counts.inputs, masks.sum(axis=(1, *over)))
    else:
        assert counts.units.shape == counts.inputs.shape == (len(masks), 0)


def test_counts_of_wide_layers_and_of_many_masks_do_not_overflow() -> None:
    kept = np.ones((2, 1_000, 700), dtype=bool)
    counts = count_kept(layer(kept))
    assert np.all(counts.units == 700)
    assert np.all(counts.inputs == 1_000)
    assert counts.by_masks.tolist() == [0, 0, 700_000]
    many = count_kept(layer(np.ones((300, 3, 3), dtype=bool)))
    assert many.by_masks[-1] == 9


@given(st.integers(0, 3))
def test_a_layer_without_gates_keeps_nothing(units: int) -> None:
    counts = count_kept(LayerBits("fc1", (units, 0), np.zeros((2, 0), np.uint8)))
    assert counts.units.tolist() == [[0] * units] * 2
    assert counts.by_masks.tolist() == [0, 0, 0]


def test_padding_bits_are_refused_not_counted() -> None:
    bits = pack(np.ones((2, 9), dtype=bool))
    LayerBits("fc1", (9,), bits)
    bits[1, -1] |= 1 << 7
    with pytest.raises(ValueError, match="padding bits of layer 'fc1'"):
        LayerBits("fc1", (3, 3), bits)


@pytest.mark.parametrize(
    "bits",
    [np.zeros((2, 3), np.uint8), np.zeros(2, np.uint8), np.zeros((2, 2), bool)],
    ids=["width", "one mask without a row", "type"],
)
def test_bits_of_another_layout_are_refused(bits: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match=r"must be uint8 \(M, 2\)"):
        LayerBits("fc1", (9,), bits)
