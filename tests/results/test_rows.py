from __future__ import annotations

import pytest

from ticketsweep.progress import UNDER_WAY
from ticketsweep.results.rows import (
    dotted_keys,
    figure_of,
    finite_number,
    setting_of,
    state_of,
)


@pytest.mark.parametrize("value", [None, True, "1", float("nan"), float("inf"), [1.0]])
def test_what_is_no_finite_number_counts_as_missing(value):
    assert finite_number(value) is None


@pytest.mark.parametrize("metrics", [{"loss": 0.5}, [("loss", 0.5)]])
def test_a_metric_is_found_in_a_column_or_in_the_map_of_metrics(metrics):
    assert figure_of({"val_accuracy": 0.9, "metrics": metrics}, "val_accuracy") == 0.9
    assert figure_of({"val_accuracy": 0.9, "metrics": metrics}, "loss") == 0.5
    assert figure_of({"loss": None, "metrics": None}, "loss") is None


def test_a_setting_is_found_by_every_dotted_key_and_by_no_other():
    config = {"gate": {"family": "gaussian", "init": 0.5}, "seed": 0}
    assert list(dotted_keys(config)) == ["gate", "gate.family", "gate.init", "seed"]
    assert setting_of(config, "gate.init") == 0.5
    for absent in ("gate.inits", "seed.x", "", "gate."):
        assert setting_of(config, absent) is None


@pytest.mark.parametrize(
    ("status", "metrics", "state"),
    [
        ("complete", {}, "complete"),
        ("failed", {"failures": 1.0}, "failed"),
        ("stopped", {"loss": 0.5}, "stopped"),
        ("stopped", None, "stopped"),
        ("stopped", {UNDER_WAY: 1.0}, "under_way"),
        ("stopped", [(UNDER_WAY, 1.0)], "under_way"),  # as Arrow hands it out
        ("complete", {UNDER_WAY: 1.0}, "complete"),
    ],
)
def test_a_stopped_trial_is_under_way_until_somebody_has_stopped_it(status, metrics, state):
    assert state_of({"status": status, "metrics": metrics}) == state
