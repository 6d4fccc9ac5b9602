from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ticketsweep.errors import (
    MISSING,
    ConfigError,
    DataError,
    Fault,
    TicketsweepError,
    TrialFailure,
    UserError,
    did_you_mean,
    shown,
)

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=30,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (1, "1"),
        (0.001, "0.001"),
        (float("nan"), "nan"),
        ("off", "'off'"),
        ("a\x1b[31m\n", r"'a\x1b[31m\n'"),
        ({"uniform": [0, 1.5]}, "{uniform: [0, 1.5]}"),
        ({1: None, "a\n": False}, r"{1: null, 'a\n': false}"),
        ([], "[]"),
        ([[[[1], {}]]], "[[[[…], {…}]]]"),
        pytest.param(1 << 99_999, "a whole number of 100000 bits", id="long"),
    ],
)
def test_values_are_shown_as_yaml_has_them(value: object, text: str):
    assert shown(value) == text


@given(PLAIN)
def test_a_shown_value_is_one_short_printable_line(value: object):
    text = shown(value)
    assert len(text) <= 60
    assert text.isprintable()


def test_a_value_that_holds_itself_can_be_shown():
    value: dict[str, Any] = {"a": 1}
    value["b"] = [value, value]
    assert len(shown(value)) <= 60


def test_a_fault_names_key_rule_value_and_remedy():
    assert str(Fault("gate.temperature", -0.5, "must be > 0", "typical 0.1 to 1")) == (
        "gate.temperature must be > 0, got -0.5 (typical 0.1 to 1)"
    )
    assert str(Fault("lr", None, "must be a number")) == "lr must be a number, got null"
    assert str(Fault("modl", MISSING, "is not a setting")) == "modl is not a setting"
    assert "\n" not in str(Fault("a\nb" * 1000, MISSING, "is not a setting"))


def test_every_fault_stands_in_the_message_of_at_most_80_columns():
    faults = [Fault(f"train.key{i}", "x" * i, "must be " + "y " * i) for i in range(60)]
    error = ConfigError("space.yaml", faults)
    first, *lines = str(error).splitlines()
    assert first == "space.yaml: 60 faults"
    assert all(len(line) <= 80 for line in lines)
    assert [line.split()[0] for line in lines if not line.startswith("   ")] == [
        fault.key for fault in faults
    ]


def test_errors_cross_process_boundaries():
    error = ConfigError("f.yaml", [Fault("a", MISSING, "is required"), Fault("b", [1], "is odd")])
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.faults) == (ConfigError, str(error), error.faults)
    assert copy.deepcopy(error).faults[0].value is MISSING


def test_exit_codes_follow_from_the_class():
    assert TicketsweepError("").exit_code == TrialFailure("").exit_code == 1
    assert UserError("").exit_code == DataError("").exit_code == 2
    assert ConfigError("f", [Fault("a", 1, "is odd")]).exit_code == 2


def test_the_nearest_word_is_suggested_or_all_are_listed():
    assert did_you_mean("optimiser", ["lr", "optimizer"]) == "did you mean 'optimizer'?"
    assert did_you_mean("MNIST", ["mnist", "digits"]) == "did you mean 'mnist'?"
    assert did_you_mean("zzz", ["b", "a"]) == "known: a, b"
