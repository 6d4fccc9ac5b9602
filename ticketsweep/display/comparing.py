"""How far comparisons of tickets have come: a bar on a terminal, a few lines anywhere else."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ticketsweep.display.figures import plural, short
from ticketsweep.progress import StageProgress
from ticketsweep.revisit.jobs import Ended

_STAGES = {
    "pretrain": "pre-training to the rewinding step",
    "tickets": "testing the tickets",
    "predictions": "comparing predictions",
    "transfer": "testing masks on other weights",
    "connectivity-1": "retraining the tickets",
    "connectivity-2": "retraining the tickets in another order",
    "connectivity": "walking from ticket to ticket",
    "align": "matching units",
}


class ComparingDisplay(AbstractContextManager["ComparingDisplay"]):
    """Follows the comparisons of one trial, step by step, or of many, trial by trial.

    Attributes
    ----------
    done: trials that have ended.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        shown = console.is_terminal and not console.is_dumb_terminal
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            console=console,
            transient=True,
            disable=not shown,
            redirect_stdout=False,
        )
        self._is_bar = shown
        self._task = self._bar.add_task("", total=1, visible=False)
        self._said = ""
        self._trials = self._tenths = 0
        self.done = 0

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, traceback)

    def phase(self, text: str) -> None:
        """What is going on when nothing else moves; told once."""
        self._show(text, 0, 1)

    def begun(self, trials: int) -> None:
        """So many trials are to be compared."""
        self._trials = trials
        self._show(f"comparing {plural(trials, 'trial')}", 0, trials)

    def stepped(self, trial_id: str, progress: StageProgress) -> None:
        """A trial has come further."""
        what = f"{short(trial_id)}: {_STAGES[progress.stage]}"
        # In a log, the stages of a single trial; of many, only how many are done.
        is_told = self._trials <= 1
        self._show(what, progress.step, max(1, progress.steps), is_told=is_told)

    def ended(self, trial: Ended) -> None:
        """A trial's comparisons are stored, or cannot be made."""
        self.done += 1
        for note in trial.notes:
            self.warn(note)
        if trial.error is not None:
            self.warn(f"trial {short(trial.trial_id)} cannot be compared: {trial.error}")
        tenths = 10 * self.done // max(1, self._trials)
        if not self._is_bar and tenths > self._tenths:
            self._console.print(f"{self.done} of {plural(self._trials, 'trial')}", soft_wrap=True)
        self._tenths = tenths
        self._bar.update(self._task, completed=self.done)

    def warn(self, text: str) -> None:
        """Something that the user should know."""
        self._console.print(text, soft_wrap=True)

    def _show(self, what: str, done: int, total: int, *, is_told: bool = True) -> None:
        if not self._is_bar and what != self._said and is_told:
            self._console.print(what, soft_wrap=True)
        self._said = what
        self._bar.update(self._task, description=what, completed=done, total=total, visible=True)
