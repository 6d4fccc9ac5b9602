"""What the stored rows of a sweep's trials say about what is still to be run."""

from __future__ import annotations

from collections.abc import Iterable

from ticketsweep.results.rows import Row, figure_of
from ticketsweep.space import SweepSettings


def failures_of(row: Row) -> int:
    """How often a failed trial has failed so far."""
    return int(figure_of(row, "failures") or 1)


def to_be_tried_again(rows: Iterable[Row], settings: SweepSettings) -> list[Row]:
    """The failed trials that may be run once more."""
    return [
        row
        for row in rows
        if row["status"] == "failed" and failures_of(row) <= settings.max_failures
    ]


def is_done(rows: Iterable[Row], settings: SweepSettings) -> bool:
    """Whether nothing of the sweep is left to be run."""
    known = list(rows)
    return len(known) >= settings.samples and not to_be_tried_again(known, settings)
