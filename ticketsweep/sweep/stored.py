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


def has_failed_for_good(row: Row, settings: SweepSettings) -> bool:
    """Whether a trial has failed so often that it is run again only where that is asked for."""
    return row["status"] == "failed" and failures_of(row) > settings.max_failures


def to_be_tried_again(
    rows: Iterable[Row], settings: SweepSettings, *, retry_failed: bool
) -> list[Row]:
    """The trials that were cut off after a rung, and the failed that may be run once more.

    Parameters
    ----------
    retry_failed: also those that have failed for good.
    """
    return [
        row
        for row in rows
        if was_cut_off(row)
        or (row["status"] == "failed" and (retry_failed or not has_failed_for_good(row, settings)))
    ]


def is_done(rows: Iterable[Row], settings: SweepSettings, *, retry_failed: bool) -> bool:
    """Whether nothing of the sweep is left to be run."""
    known = list(rows)
    again = to_be_tried_again(known, settings, retry_failed=retry_failed)
    return len(known) >= settings.samples and not again
