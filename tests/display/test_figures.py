from __future__ import annotations

import pytest

from ticketsweep.display.figures import (
    duration,
    figure,
    first_line,
    named_figure,
    setting,
    with_spread,
)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "–"),
        (0, "0.0 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1:00"),
        (3599.7, "1:00:00"),
        (4025, "1:07:05"),
        (90_000, "1 day 1:00:00"),
        (200_000, "2 days 7:33:20"),
    ],
)
def test_a_duration_reads_as_a_clock(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("val_accuracy", 0.9712, "97.12"),
        ("sparsity", 1.0, "100.00"),
        ("loss", 0.123456, "0.1235"),
        ("stability", -0.001, "0.00"),
        ("stability", None, "–"),
    ],
)
def test_shares_are_in_per_cent_and_what_is_missing_is_a_dash(name, value, shown):
    assert figure(value, name) == shown


def test_a_figure_carries_its_spread_where_there_is_one():
    assert with_spread(0.9712, 0.0008, "val_accuracy") == "97.12 ±0.08"
    assert with_spread(0.9712, None, "val_accuracy") == "97.12"
    assert with_spread(None, 0.1, "val_accuracy") == "–"


def test_a_named_figure_has_its_unit():
    assert named_figure(0.5, "density") == "density 50.00 %"
    assert named_figure(0.5, "loss") == "loss 0.5"
    assert named_figure(None, "density") == "density –"


def test_settings_of_every_kind_are_short_text():
    values = (None, 0.123456789, 3, "adam", {"family": "gaussian"}, [], ["a", "b"])
    shown = [setting(value) for value in values]
    assert shown == ["–", "0.1235", "3", "adam", '{"family": "gaussian"}', "none", "a, b"]


def test_the_first_line_of_an_error_is_one_that_says_something():
    assert first_line("\n\n  loss is NaN\nTraceback") == "loss is NaN"
    assert first_line(None) == "–"
