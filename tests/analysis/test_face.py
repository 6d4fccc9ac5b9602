"""What a notebook asks of the analysis: arrays in, results that read well out."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from IPython.core.formatters import PlainTextFormatter

from ticketsweep.analysis import LayerBits, Seeds, compare_masks, pack, stability, trial_stability


def test_the_examples_are_true():
    found = doctest.testmod(stability, optionflags=doctest.ELLIPSIS)
    assert found.attempted >= 4
    assert found.failed == 0


def test_masks_in_arrays_are_compared_as_packed_ones():
    rng = np.random.default_rng(0)
    masks = {"a": rng.random((4, 6, 5)) < 0.4, "b": rng.random((4, 7)) < 0.5}
    seeds = {"init": [1, 1, 2, 2], "gate": [5, 6, 5, 6]}
    packed = [LayerBits(name, each.shape[1:], pack(each)) for name, each in masks.items()]
    of = Seeds(*(np.array(each) for each in (seeds["init"], [0] * 4, seeds["gate"])))
    assert compare_masks(masks, **seeds) == trial_stability(packed, of)


@pytest.mark.parametrize(
    ("mask", "init", "message"),
    [
        (np.ones((2, 3)), [0, 1], "masks of layer 'a' must be bool"),
        ([[1, 0], [0, 1]], [0, 1], r"must be bool .*int64 \(2, 2\)"),
        (np.ones((3, 3), dtype=bool), [0.2, 0.7, 0.9], "init must be whole numbers.* got float64"),
        (np.ones((2, 3), dtype=bool), [0, 1, 2], r"init must have a seed for each of 2 repl.*\(3,"),
    ],
)
def test_arrays_that_are_no_masks_are_refused(mask, init, message):
    with pytest.raises(ValueError, match=message):
        compare_masks({"a": mask}, init=init)


def test_a_notebook_shows_a_result_as_it_prints():
    shown = PlainTextFormatter()
    found = compare_masks({"a": np.eye(3, dtype=bool)[:2, None]}, init=[0, 0], data=[0, 1])
    assert shown(found) == str(found)
    assert "same init" in shown(found)
    assert shown(found.rows[0]) == str(found.rows[0])
    assert shown([found.rows[0]]) == f"[{found.rows[0]}]"
