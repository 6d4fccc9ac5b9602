"""What the stored rows of a sweep's trials say about what is still to be run."""

from __future__ import annotations

from collections.abc import Iterable

from ticketsweep.progress import UNDER_WAY
from ticketsweep.results.rows import Row, figure_of, state_of
from ticketsweep.sweep_settings import SweepSettings


def failures_of(row: Row) -> int:
    """How often a trial has failed so far."""
    return int(figure_of(row, "failures") or (row["status"] == "failed"))


def was_cut_off(row: Row) -> bool:
    """Whether a trial that came to a rung was neither stopped there nor came to its end."""
    return state_of(row) == UNDER_WAY


def to_be_tried_again(rows: Iterable[Row], settings: SweepSettings) -> list[Row]:
    """The trials that were cut off after a rung, and the failed that may be run once more."""
    return [
        row
        for row in rows
        if was_cut_off(row)
        or (row["status"] == "failed" and failures_of(row) <= settings.max_failures)
    ]


def is_done(rows: Iterable[Row], settings: SweepSettings) -> bool:
    """Whether nothing of the sweep is left to be run."""
    known = list(rows)
    return len(known) >= settings.samples and not to_be_tried_again(known, settings)
