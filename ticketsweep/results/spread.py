"""A mean with how far its values lie apart and how many there are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev

from ticketsweep.results.rows import finite_number


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1 in the denominator) of `n` values; no `sd` of one."""

    mean: float
    sd: float | None
    n: int

    def __str__(self) -> str:
        """Of fractions, as per cent."""
        mean = f"{100 * self.mean:.2f}"
        return f"{mean} %" if self.sd is None else f"{mean} ± {100 * self.sd:.2f} %"


def spread_of(values: Iterable[object]) -> Spread | None:
    """The spread of those values that are finite numbers; None if none is."""
    known = [number for value in values if (number := finite_number(value)) is not None]
    if not known:
        return None
    return Spread(fmean(known), stdev(known) if len(known) > 1 else None, len(known))
