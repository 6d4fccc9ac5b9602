"""Rank correlation beside SciPy's, and its interval."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from ticketsweep.analysis.trends import rank_correlation


def test_it_is_spearmans_whatever_the_scale_and_turns_with_a_figure() -> None:
    rng = np.random.default_rng(0)
    x = rng.random(20).round(1)
    y = x + rng.random(20)
    found = rank_correlation(x.tolist(), y.tolist())
    turned = rank_correlation(np.exp(x).tolist(), (-y).tolist())
    assert found is not None
    assert turned is not None
    assert found.value == pytest.approx(spearmanr(x, y).statistic)
    assert turned.value == pytest.approx(-found.value)
    assert turned.interval.low == pytest.approx(-found.interval.high)


@pytest.mark.parametrize(("x", "y"), [([1, 2, 3], [1, 2, 3]), ([1] * 9, list(range(9)))])
def test_too_few_trials_or_a_constant_say_nothing(x: list[float], y: list[float]) -> None:
    assert rank_correlation(x, y) is None


def test_its_interval_covers_none_of_independent_figures() -> None:
    rng = np.random.default_rng(1)
    found = [rank_correlation(rng.random(16).tolist(), rng.random(16).tolist()) for _ in range(600)]
    clear = np.mean([trend is not None and trend.is_clear for trend in found])
    assert 0.02 < clear < 0.08  # nominally 5 %
