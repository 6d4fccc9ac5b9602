"""Importance of settings, from rows as the database has them."""

from __future__ import annotations

import json

import numpy as np
import optuna
from optuna.distributions import FloatDistribution, distribution_to_json

from ticketsweep.sweep.importance import MIN_TRIALS, importances

OBJECTIVES = {"val_accuracy": "max", "sparsity": "max"}


def rows(count: int) -> list[dict]:
    """Sparsity follows `a`, accuracy is the same in all."""
    rng = np.random.default_rng(0)
    dealt = distribution_to_json(FloatDistribution(0.0, 1.0))
    return [
        {
            "trial_id": f"{i}",
            "status": "complete",
            "val_accuracy": 0.9,
            "sparsity": a,
            "search": json.dumps(
                {
                    "params": {"a": a, "b": b},
                    "distributions": {"a": dealt, "b": dealt},
                    "system_attrs": {},
                }
            ),
        }
        for i, (a, b) in enumerate(rng.random((count, 2)).tolist())
    ]


def test_the_setting_that_decides_comes_first_and_a_constant_objective_is_left_out() -> None:
    before = optuna.logging.get_verbosity()
    found = importances(rows(30), OBJECTIVES)
    assert [each.objective for each in found] == ["sparsity", "sparsity"]
    assert all(max(each.shares, key=lambda k, of=each: of.shares[k]) == "a" for each in found)
    assert importances(rows(30), OBJECTIVES) == found
    assert optuna.logging.get_verbosity() == before


def test_an_objective_without_variance_to_explain_is_left_out() -> None:
    by_rounding = [{**row, "sparsity": 0.5 + i % 2 * 2**-52} for i, row in enumerate(rows(20))]
    one = rows(1)[0]["search"]
    equal_settings = [{**row, "search": one} for row in rows(20)]
    for each in (by_rounding, equal_settings):
        assert len({row["sparsity"] for row in each}) > 1
        assert importances(each, OBJECTIVES) == []


def test_few_trials_are_not_estimated_from() -> None:
    few = rows(MIN_TRIALS - 1)
    failed = [{**row, "status": "failed"} for row in rows(20)]
    asked_for_by_hand = [{**row, "search": None} for row in rows(20)]
    assert importances([*few, *failed, *asked_for_by_hand], OBJECTIVES) == []
