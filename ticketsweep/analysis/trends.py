"""Does one figure move with another over the trials of a sweep? Rank correlation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

from ticketsweep.analysis.intervals import CONFIDENCE, Interval
from ticketsweep.readable import Readable

MIN_TRIALS = 6  # fewer, and the interval is nearly all of [-1, 1]


@dataclass(frozen=True)
class Trend(Readable):
    """Spearman's rank correlation of `n` trials with its approximate 95 % interval."""

    value: float
    interval: Interval
    n: int

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.interval.low > 0 or self.interval.high < 0

    def __str__(self) -> str:
        return f"{self.value:+.2f} {self.interval}, {self.n} trials"


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> Trend | None:
    """Spearman's correlation of two figures, with Bonett and Wright's interval (2000).

    Parameters
    ----------
    x, y: finite, a value each a trial.

    Returns
    -------
    None of fewer than six trials, or where one of the two is the same in all.

    Notes
    -----
    Fisher's z with variance (1 + r^2 / 2) / (n - 3). It takes trials for independent draws; those
    of a search that learns are not, so it is a description, no test.
    """
    n = len(x)
    if n < MIN_TRIALS or len(set(x)) < 2 or len(set(y)) < 2:
        return None
    value = float(np.clip(np.corrcoef(rankdata(x), rankdata(y))[0, 1], -1.0, 1.0))
    z = math.atanh(max(-0.999999, min(0.999999, value)))
    half = float(ndtri((1 + CONFIDENCE) / 2)) * math.sqrt((1 + value**2 / 2) / (n - 3))
    return Trend(value, Interval(math.tanh(z - half), math.tanh(z + half)), n)
