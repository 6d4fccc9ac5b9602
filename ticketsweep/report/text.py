"""Numbers and names as the report writes them: like the command line's tables."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from statistics import stdev

from ticketsweep.analysis.attribution import Estimate
from ticketsweep.analysis.layers import ALL_LAYERS
from ticketsweep.analysis.stability import SAME_INIT, Stability, StabilityRow
from ticketsweep.display.figures import NONE, is_share, setting, short
from ticketsweep.results.rows import Row

LABELS: Mapping[str, str] = {
    "val_accuracy": "validation accuracy",
    "strong_accuracy": "test accuracy",
    "joint_val_accuracy": "joint validation accuracy",
    "retrained_val_accuracy": "retrained validation accuracy",
    "expected_density": "expected density",
    "undecided": "undecided gates",
    "stability": "stability",
    "sparsity": "sparsity",
    "density": "density",
    "loss": "loss",
}
DIGITS = 4  # of what a figure draws: a tenth of a pixel


def label(metric: str) -> str:
    """A metric in words."""
    return LABELS.get(metric, metric.replace("_", " "))


def axis_label(metric: str) -> str:
    """A metric with its unit."""
    if metric == "stability":
        return "stability (overlap beyond chance)"
    return f"{label(metric)}, %" if is_share(metric) else label(metric)


def scaled(value: float | None, metric: str) -> float | None:
    """What an axis shows: shares in per cent, rounded."""
    if value is None:
        return None
    return rounded(100 * value if is_share(metric) else value)


def rounded(value: float | None) -> float | None:
    """The value with as many digits as can be seen; None stays, and so does what is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.{DIGITS}g}")


def percent(share: float | None, digits: int = 1) -> str:
    """`97.1 %`, `–` where there is none."""
    return NONE if share is None else f"{100 * share:.{digits}f} %"


def with_sd(values: list[float]) -> str:
    """`97.1 ± 0.2 %` of shares; without ± of a single one."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return percent(mean)
    return f"{100 * mean:.1f} ± {100 * stdev(values):.1f} %"


def same_init(stability: Stability | None, layer: str = ALL_LAYERS) -> StabilityRow | None:
    """The row of pairs with the same initial weights, if there are any."""
    return row_of(stability, SAME_INIT, layer)


def row_of(
    stability: Stability | None, differs: str, layer: str = ALL_LAYERS
) -> StabilityRow | None:
    """The row of one layer and kind of pair."""
    rows = stability.rows if stability else ()
    return next((row for row in rows if (row.layer, row.differs) == (layer, differs)), None)


def overlap(row: StabilityRow | None) -> str:
    """`0.41 [0.38, 0.44]`; `–` where it is not defined."""
    if row is None or row.corrected is None:
        return NONE
    if row.low is None or row.high is None:
        return f"{row.corrected:z.2f}"
    return f"{row.corrected:z.2f} [{row.low:z.2f}, {row.high:z.2f}]"


def estimate(found: Estimate | None) -> str:
    """A share with its interval."""
    return NONE if found is None else str(found)


def value_of(value: object) -> str:
    """The value of a setting; `none` for what is not set."""
    return setting(value)


def named(rank: int, row: Row) -> str:
    """A trial in a menu: `1. 3fa92c01`."""
    return f"{rank}. {short(row['trial_id'])}"


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def file_name(*parts: object) -> str:
    """Parts joined to what may be the name of a file on any system."""
    joined = "-".join(str(part) for part in parts)
    return "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in joined)


def safe(text: object) -> str:
    """Text for a figure, which takes some HTML tags for what they are."""
    return html.escape(str(text), quote=False)


def cell(value: str | int | float | None, column: str) -> str:
    """A cell of the table behind a figure: shares in per cent as the command line shows them."""
    if value is None:
        return NONE
    if isinstance(value, float):
        return f"{100 * value:.2f} %" if is_share(column) else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
