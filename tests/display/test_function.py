"""Comparisons on a console: no figure without a number, and what is only a sample is called so."""

from __future__ import annotations

import pytest
from rich.console import Console

from ticketsweep.display.function import function_parts
from ticketsweep.results.function import KINDS, FunctionRow, PairSpread

COUNTS = {"pairs": 128, "possible_pairs": 720}


def drawn(*rows: FunctionRow, keys: tuple[str, ...] = (), width: int = 100) -> str:
    console = Console(width=width, markup=False, highlight=False, emoji=False)
    with console.capture() as capture:
        for part in function_parts(console, rows, keys=keys):
            console.print(part)
    return capture.get()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [60, 100])
def test_without_figures_there_is_a_dash_and_a_sentence(kind: str, width: int) -> None:
    text = drawn(FunctionRow((), kind, "init", {}, 2, 1, 2, (COUNTS,)), width=width)
    assert "–" in text
    assert "nan" not in text
    words = " ".join(text.split())
    assert "2 pairs without figures: outputs that are not finite" in words
    assert "A sample of 128 of 720 pairs of a trial" in words
    assert max(map(len, text.splitlines())) <= width


def test_a_mean_has_its_range_where_pairs_differ() -> None:
    figures = {
        "test_barrier": PairSpread(0.0105, 0.001, 0.02, None, None),
        "train_barrier": PairSpread(0.004, 0.004, 0.004, None, None),
        "test_error": PairSpread(0.05, 0.04, 0.06, None, None),
        "stable": PairSpread(0.5, 0, 1, None, None),
    }
    whole = {"pairs": 2, "possible_pairs": 2, "steps": 50, "alphas": 30}
    row = FunctionRow((100,), "connectivity", "", figures, 2, 1, 0, (whole,))
    text = drawn(row, keys=("rewind_step",))
    (line,) = [line for line in text.splitlines() if "100 " in line and "none" in line]
    assert "1.05 (0.10 to 2.00)" in line
    assert "0.40" in line
    assert "50 %" in line
    assert "Retrained for 50 steps." in " ".join(text.split())
    assert "sample" not in text


def test_an_interval_over_seeds_stands_in_the_place_of_the_range() -> None:
    figures = {"agreement": PairSpread(0.9, 0.8, 0.95, 0.87, 0.93)}
    row = FunctionRow((), "predictions", "data", figures, 3, 1, 0, (COUNTS,))
    assert "90.00 [87.00, 93.00]" in drawn(row)


def test_nothing_compared_is_nothing_shown() -> None:
    assert drawn() == ""
