from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from ticketsweep.distributions import (
    Broken,
    Choice,
    Integer,
    Uniform,
    as_plain,
    corners,
    grid,
    parse_tree,
    walk,
)
from ticketsweep.errors import Fault


def parsed(raw: dict[Any, Any]) -> dict[str, Any]:
    faults: list[Fault] = []
    tree = parse_tree(raw, "", faults)
    assert faults == []
    return tree


NESTED = {
    "a": {"choice": [{"b": {"int": [1, 3]}, "c": "x"}, {"c": {"choice": ["y", "z"]}}, None]},
    "d": {"e": {"uniform": [0, 1]}, "f": {"loguniform": [1e-3, 1.0]}, "g": 5},
    "h": {"choice": [1, 2.5, "off", True]},
    "i": [1, {"uniform": 3}],
}


def test_the_four_forms():
    assert parsed({"a": {"uniform": [0, 1]}}) == {"a": Uniform(0.0, 1.0)}
    assert parsed({"a": {"loguniform": [1e-3, 1]}}) == {"a": Uniform(0.001, 1.0, log=True)}
    assert parsed({"a": {"int": [-1, 1]}}) == {"a": Integer(-1, 1)}
    assert parsed({"a": {"choice": ["x", None]}}) == {"a": Choice(("x", None))}


def test_a_mapping_with_more_keys_than_the_word_is_no_distribution():
    assert parsed({"a": {"uniform": [0, 1], "b": 1}}) == {"a": {"uniform": [0, 1], "b": 1}}


RANGE = "must be {uniform: [low, high]} with two numbers"
OPTIONS = "must be {choice: [option, …]} with at least one option"
BARE = "must not hold a bare distribution among its options"
TWICE = "must not name an option twice"


@pytest.mark.parametrize(
    ("raw", "rule"),
    [
        ({"uniform": []}, RANGE),
        ({"uniform": None}, RANGE),
        ({"uniform": [1]}, RANGE),
        ({"uniform": [1, 2, 3]}, RANGE),
        ({"uniform": [1, "2"]}, RANGE),
        ({"uniform": [False, True]}, RANGE),
        ({"uniform": [0, math.inf]}, RANGE),
        ({"uniform": [math.nan, 1]}, RANGE),
        ({"uniform": [0, 1 << 9999]}, RANGE),
        ({"uniform": {"low": 0, "high": 1}}, RANGE),
        ({"uniform": [2, 1]}, "must have low < high"),
        ({"uniform": [1, 1]}, "must have low < high"),
        ({"int": [1, 2.0]}, "must have whole numbers"),
        ({"int": [0, 1 << 9999]}, RANGE.replace("uniform", "int")),
        ({"loguniform": [0, 1]}, "must have low > 0"),
        ({"loguniform": [-1, 1]}, "must have low > 0"),
        ({"choice": []}, OPTIONS),
        ({"choice": None}, OPTIONS),
        ({"choice": "ab"}, OPTIONS),
        ({"choice": {"a": 1}}, OPTIONS),
        ({"choice": [1, {"uniform": [0, 1]}]}, BARE),
        ({"choice": [1, {"uniform": []}]}, BARE),
        ({"choice": [{"choice": [1]}]}, BARE),
        ({"choice": [1, 2, 1]}, TWICE),
        ({"choice": [1, 1.0]}, TWICE),
        ({"choice": [{"a": 1, "b": 2}, {"b": 2.0, "a": 1}]}, TWICE),
        ({"choice": [[1], [1]]}, TWICE),
    ],
)
def test_a_bad_distribution_is_one_fault_with_its_key(raw: dict[str, Any], rule: str):
    for broken, key in [({"a": raw}, "a"), ({"a": {"b": raw}}, "a.b")]:
        faults: list[Fault] = []
        tree = parse_tree(broken, "", faults)
        assert [(fault.key, fault.rule, fault.value) for fault in faults] == [(key, rule, raw)]
        stand_in = Broken(raw)  # its key is looked at, and nothing else of it
        assert list(corners(tree)) == [{"a": {"b": stand_in} if key == "a.b" else stand_in}]
        assert list(walk(tree, "")) == []
        assert as_plain(tree) == broken


def test_faults_in_every_option_are_found():
    faults: list[Fault] = []
    options = [{"b": {"uniform": [2, 1]}}, {"b": {"choice": []}}, {"c": {"int": "x"}}]
    parse_tree({"a": {"choice": options}}, "", faults)
    assert [fault.key for fault in faults] == ["a.b", "a.b", "a.c"]


def test_keys_that_are_no_text_are_faults():
    faults: list[Fault] = []
    assert parse_tree({1: 2, "a": {None: 3, "b": 4}}, "", faults) == {"a": {"b": 4}}
    assert [str(fault) for fault in faults] == [
        "1 is not a setting (a key must be text)",
        "a.None is not a setting (a key must be text)",
    ]


def test_true_and_1_are_two_options():
    assert parsed({"a": {"choice": [True, 1]}})["a"].labels == (True, 1)


def test_what_is_written_back_is_read_the_same():
    tree = parsed(NESTED)
    assert parsed(as_plain(tree)) == tree
    assert as_plain(parsed(as_plain(tree))) == as_plain(tree)


def test_labels_are_values_or_json():
    tree = parsed(NESTED)
    assert tree["h"].labels == (1, 2.5, "off", True)
    assert tree["a"].labels == ('{"b": {"int": [1, 3]}, "c": "x"}', '{"c": {"choice": ["y", "z"]}}',
                                "null")  # fmt: skip


def test_every_distribution_has_its_dotted_key():
    assert [(key, type(node)) for key, node in walk(parsed(NESTED), "")] == [
        ("a", Choice), ("a.b", Integer), ("a.c", Choice),
        ("d.e", Uniform), ("d.f", Uniform), ("h", Choice),
    ]  # fmt: skip


def test_corners_hold_both_ends_of_every_range_and_every_option():
    points = list(corners(parsed(NESTED)))
    assert {p["d"]["e"] for p in points} == {0.0, 1.0}
    assert {p["d"]["f"] for p in points} == {0.001, 1.0}
    assert [p["h"] for p in points if p["h"] is not points[0]["h"]] == [2.5, "off", True]
    of_a = [p["a"] for p in points]
    for expected in [{"b": 1, "c": "x"}, {"b": 3, "c": "x"}, {"c": "y"}, {"c": "z"}, None]:
        assert expected in of_a


def test_a_grid_is_the_product_of_its_axes():
    raw = {key: NESTED[key] for key in ("h", "a")} | {"j": {"k": {"int": [-1, 0]}}, "l": 3}
    tree = parsed(raw)
    of_a = [
        {"a": tree["a"].labels[0], "a.b": 1},
        {"a": tree["a"].labels[0], "a.b": 2},
        {"a": tree["a"].labels[0], "a.b": 3},
        {"a": tree["a"].labels[1], "a.c": "y"},
        {"a": tree["a"].labels[1], "a.c": "z"},
        {"a": "null"},
    ]
    expected = [
        {"h": h, **a, "j.k": k} for h, a, k in itertools.product(tree["h"].labels, of_a, (-1, 0))
    ]
    assert [dict(point) for point in grid(tree, "")] == expected


def test_a_grid_is_made_one_point_at_a_time():
    tree = parsed({"a": {"int": [0, 10**9]}, "b": {"int": [0, 10**9]}})
    points = [dict(point) for point in itertools.islice(grid(tree, ""), 2)]
    assert points == [{"a": 0, "b": 0}, {"a": 0, "b": 1}]


def test_a_space_without_distributions_has_one_point():
    assert list(grid(parsed({"a": 1, "b": {"c": 2}}), "")) == [()]
