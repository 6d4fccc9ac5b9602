from __future__ import annotations

import pytest

from ticketsweep.names import TEST_FIGURES
from ticketsweep.results.networks import NETWORKS, STRONG, differences
from ticketsweep.store.schema import REPLICATES

ROWS = [
    {
        "strong_accuracy": 0.9,
        "random_mask_accuracy": 0.5,
        "shuffled_mask_accuracy": 0.8,
        "retrained_accuracy": 0.95,
        "dense_accuracy": 0.97,
        "metrics": {"random_mask_val_accuracy": 0.6, "shuffled_mask_val_accuracy": 0.1},
    },
    {
        "strong_accuracy": 0.8,
        "random_mask_accuracy": 0.2,
        "shuffled_mask_accuracy": 0.7,
        "dense_accuracy": 0.9,
        "metrics": [("random_mask_val_accuracy", 0.4), ("shuffled_mask_val_accuracy", 0.2)],
    },
]


def test_the_ticket_is_compared_with_the_control_that_is_best_on_the_validation_split():
    control, dense = differences(ROWS)
    assert (control.of.test, control.less.test) == ("strong_accuracy", "random_mask_accuracy")
    assert control.mean == pytest.approx((0.4 + 0.6) / 2)
    assert (control.low, control.high, control.n) == (pytest.approx(0.4), pytest.approx(0.6), 2)
    assert (dense.of.test, dense.less.test) == ("retrained_accuracy", "dense_accuracy")


def test_a_replicate_that_lacks_a_figure_is_left_out_of_its_difference_alone():
    control, dense = differences(ROWS)
    assert (control.n, dense.n) == (2, 1)
    assert dense.mean == pytest.approx(-0.02)


def test_a_ticket_alone_is_compared_with_nothing():
    assert differences([{"strong_accuracy": 0.9}]) == []
    assert differences([{"metrics": {"diverged_at_step": 3.0}}]) == []
    assert differences([]) == []


def test_every_accuracy_on_the_test_split_is_of_a_network_and_none_is_searched_for():
    tested = {network.test for network in NETWORKS}
    assert tested == set(TEST_FIGURES)
    assert {name for name in REPLICATES.names if name.endswith("accuracy")} <= {
        *tested,
        STRONG.validation,
    }
