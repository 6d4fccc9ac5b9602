"""What the stored rows of a sweep's trials say about what is still to be run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ticketsweep.space import SweepSettings

TrialRow = Mapping[str, Any]


def metric_of(row: TrialRow, name: str) -> float | None:
    """A trial figure by name, from its column or from `metrics`; None if it is not a number."""
    value = row.get(name)
    if value is None:
        value = dict(row.get("metrics") or {}).get(name)
    return None if value is None or not math.isfinite(value) else float(value)


def failures_of(row: TrialRow) -> int:
    """How often a failed trial has failed so far."""
    return int(metric_of(row, "failures") or 1)


def to_be_tried_again(rows: Iterable[TrialRow], settings: SweepSettings) -> list[TrialRow]:
    """The failed trials that may be run once more."""
    return [
        row
        for row in rows
        if row["status"] == "failed" and failures_of(row) <= settings.max_failures
    ]


def is_done(rows: Iterable[TrialRow], settings: SweepSettings) -> bool:
    """Whether nothing of the sweep is left to be run."""
    known = list(rows)
    return len(known) >= settings.samples and not to_be_tried_again(known, settings)
