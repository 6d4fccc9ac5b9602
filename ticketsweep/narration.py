"""A trial's reports as lines of its log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from typing import Protocol, TypeVar

from ticketsweep.progress import Alive, Progress, Rung, StageProgress

_LOG = logging.getLogger(__name__)

TrialReport = Progress | StageProgress | Alive | Rung


class Outcome(Protocol):
    """What a trial comes to."""

    @property
    def row(self) -> Mapping[str, object]:
        """The trial's row of the `trials` table."""


class Log(Protocol):
    """The log of an attempt."""

    outcome: str


T = TypeVar("T", bound=Outcome)


def narrated(
    trial: Generator[TrialReport, None, T],
    log: Log,
    *,
    hear: Callable[[TrialReport], None] | None = None,
) -> Generator[TrialReport, None, T]:
    """The same trial; what it reports, and how it ends, is logged.

    Parameters
    ----------
    log: is told how the attempt has ended.
    hear: is told of every report as well.
    """
    while True:
        try:
            report = next(trial)
        except StopIteration as end:
            outcome: T = end.value
            break
        if text := told(report):
            _LOG.info("%s", text)
        if hear is not None:
            hear(report)
        if isinstance(report, Rung):
            log.outcome = "stopped by the scheduler"  # unless it is asked for more
        yield report
        log.outcome = "interrupted"
    status, error = outcome.row["status"], outcome.row.get("error")
    log.outcome = f"{status}: {error}" if error else str(status)
    return outcome


def told(report: TrialReport) -> str:
    """A report as a line of a log; empty for a sign of life that says no more."""
    match report:
        case Progress():
            return (
                f"step {report.step} of {report.steps}: loss {report.loss:.4g}, validation "
                f"accuracy {report.val_accuracy:.4f}, expected density "
                f"{report.expected_density:.4f}"
            )
        case StageProgress():
            return f"{report.stage}: step {report.step} of {report.steps}"
        case Alive():
            if report.waiting:
                return f"waiting for the storage: {report.waiting}"
            stage = f"{report.stage}: " if report.stage else ""
            return f"{stage}step {report.step} of {report.steps}" if report.steps else ""
        case Rung():
            return f"the ticket of step {report.row['steps_done']} is stored; it may end here"
