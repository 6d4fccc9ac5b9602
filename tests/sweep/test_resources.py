from __future__ import annotations

import pytest

from ticketsweep.errors import ConfigError
from ticketsweep.space import SweepSpec, parse_space
from ticketsweep.sweep.resources import check_resources, concurrency, fitting, local_cpus


def spec(**sweep: object) -> SweepSpec:
    tree = {"gate": {"l0_strength": {"uniform": [0.5, 1]}}, "sweep": {"name": "s", **sweep}}
    return parse_space(tree, source="test")


@pytest.mark.parametrize(
    ("cpus", "gpus", "wanted", "at_once"),
    [
        (8, 0, {"cpus": 1}, 8),
        (8, 0, {"cpus": 3}, 2),
        (8, 1, {"cpus": 1, "gpus": 0.25}, 4),
        (2, 1, {"cpus": 1, "gpus": 0.25}, 2),
        (8, 4, {"cpus": 1, "gpus": 2}, 2),
        (8, 1, {"cpus": 1, "gpus": 2}, 0),
        (100, 7, {"cpus": 1, "gpus": 0.07}, 100),  # though 7 / 0.07 is less in floating point
    ],
)
def test_the_scarcer_of_two_resources_says_how_many_trials_fit(cpus, gpus, wanted, at_once):
    assert fitting(spec(resources=wanted), cpus, gpus) == at_once


@pytest.mark.parametrize(
    ("asked", "cpus", "grows", "at_once"),
    [(None, 4, False, 4), (None, 0, True, 1), (2, 4, False, 2), (9, 4, False, 4), (9, 4, True, 9)],
)
def test_as_many_trials_at_once_as_were_asked_for_and_no_more_than_this_machine_runs(
    asked, cpus, grows, at_once
):
    assert concurrency(spec(concurrency=asked), cpus, 0, grows=grows) == at_once


def test_what_this_machine_can_never_give_is_refused():
    with pytest.raises(ConfigError, match=rf"sweep.resources.cpus.*must be <= {local_cpus()}"):
        check_resources(spec(resources={"cpus": local_cpus() + 1}))
    check_resources(spec(resources={"cpus": local_cpus()}))
