"""A trial's reports as lines of its log, and, of one without a driver, on a page of its own."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Generator, Mapping
from typing import Protocol, TypeVar

from ticketsweep.config import TrialConfig
from ticketsweep.progress import Alive, Progress, Rung, StageProgress
from ticketsweep.store.live import LivePage
from ticketsweep.store.logs import trial_log
from ticketsweep.store.paths import Storage

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


def told_alone(
    trial: Generator[TrialReport, None, T],
    config: TrialConfig,
    storage: Storage,
    sweep: str,
    trial_id: str,
) -> Generator[TrialReport, None, T]:
    """The same trial, which no driver tells of: its log and its page are kept in the storage."""
    page = LivePage(storage, sweep, trial_id)
    of = config.replicates
    page.started(
        trial_id,
        steps=config.train.steps,
        replicates=of.init * of.data * of.gate,
        host=platform.node(),
    )

    def hear(report: TrialReport) -> None:
        if isinstance(report, Alive) and report.waiting:
            page.phase(f"waiting for the storage: {report.waiting}")
        elif not isinstance(report, Rung):
            page.progressed(trial_id, report)

    try:
        with trial_log(storage, sweep, trial_id) as log:
            return (yield from narrated(trial, log, hear=hear))
    finally:
        page.close("over")


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
