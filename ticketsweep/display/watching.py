"""A sweep that is watched from anywhere: a picture on a terminal, a line a change elsewhere."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.text import Text

from ticketsweep.display.progress import Bar, bar_line, bars, figures_text, stage_text
from ticketsweep.display.standing import (
    best_texts,
    driver_lines,
    failure_texts,
    headline,
    pace_text,
    run_text,
)
from ticketsweep.results.standing import Standing
from ticketsweep.store.live import LiveTrial

COUNTS_SECONDS = 60.0
"""Least time between two lines of a log that say no more than how many trials are done."""

_FAILURES, _WARNINGS = 3, 2  # that a picture shows
_LINES_LEFT = 2  # of the terminal: a count of trials not shown, and the cursor's own


def picture(console: Console, standing: Standing, *, trouble: str = "") -> RenderableType:
    """All there is to be seen of a sweep, in no more lines than the terminal has.

    Parameters
    ----------
    trouble: why this is no longer up to date.
    """
    below = [_line(f"best {text}", "green") for text in best_texts(standing)]
    below += [_line(text, "red") for text in failure_texts(standing, _FAILURES)]
    above: list[RenderableType] = [_line(headline(standing), "bold"), bar_line(standing.share)]
    above += [_line(text, "dim") for text in driver_lines(standing, warnings=_WARNINGS)]
    above += [_line(trouble, "yellow")] if trouble else []
    room = max(1, console.height - _LINES_LEFT - len(above) - len(below))
    shown, more = standing.trials[:room], len(standing.trials) - room
    drawn = [bars([_bar(trial) for trial in shown])] if shown else []
    return Group(*above, *drawn, *([f"… and {more} more"] if more > 0 else []), *below)


def _line(text: str, style: str) -> Text:
    """A line that is cut where the terminal ends."""
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _bar(trial: LiveTrial) -> Bar:
    has_figures = not trial.stage and (trial.loss, trial.val_accuracy) != (None, None)
    figures = (trial.loss, trial.val_accuracy, trial.expected_density)
    text = figures_text(*figures) if has_figures else stage_text(trial.stage)
    return Bar(trial.trial_id, trial.step, trial.steps, text)


class ChangeLines:
    """What has changed since the last look, in lines for a log."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._counted: float | None = None
        self._head = ""

    def of(self, standing: Standing, *, seconds: float) -> list[str]:
        """Lines to be written; none where nothing that matters has changed.

        Parameters
        ----------
        seconds: since any fixed moment. How many trials are done is told once a minute at most.
        """
        lines = [*self._new(_states(standing)), *self._new(_mishaps(standing))]
        head = headline(standing)
        is_due = self._counted is None or seconds - self._counted >= COUNTS_SECONDS
        if head != self._head and (is_due or standing.is_done):
            self._head, self._counted = head, seconds
            best = [f"best {line}" for line in best_texts(standing)]
            lines.append("; ".join(filter(None, [head, pace_text(standing), *best])))
        return lines

    def _new(self, keyed: dict[str, str]) -> list[str]:
        fresh = [line for key, line in keyed.items() if key not in self._told]
        self._told.update(keyed)
        return fresh


def _states(standing: Standing) -> dict[str, str]:
    """What each run is at, under a key that stays the same while nothing happens to it."""
    found = {}
    for run in standing.runs:
        is_alive = run.is_alive(standing.now)
        phase = run.phase if is_alive and not run.trials else ""
        key = f"{run.who} {run.since} {is_alive} {run.outcome} {phase}"
        found[key] = run_text(run, standing.now)
    return found


def _mishaps(standing: Standing) -> dict[str, str]:
    told = () if standing.driver is None else standing.driver.warnings
    failures = failure_texts(standing, len(standing.failures))
    return {line: line for line in failures} | {
        f"{each.at} {each.text}": each.text for each in told
    }
