"""Drawing a sweep while it runs: a live display on a terminal, a few lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import RLock
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ticketsweep.display.figures import NONE, figure, first_line, short
from ticketsweep.display.state import Running, SweepState, further
from ticketsweep.progress import Alive, Progress, Rung, StageProgress
from ticketsweep.results.ranking import Objectives
from ticketsweep.results.rows import Row, finite_number

if TYPE_CHECKING:
    from ticketsweep.config import TrialConfig

_LINES_BESIDE_TRIALS = 9  # of the terminal's height, for the head, the best values and messages
_REFRESHES = 4  # a second
T = TypeVar("T")
_STAGES = {
    "": "learning gates",
    "pretrain": "pre-training to the rewinding step",
    "pretrain-reinitialized": "pre-training weights drawn afresh",
    "retrained": "retraining the tickets",
    "dense": "training the dense network",
}


def sweep_display(
    console: Console,
    objectives: Objectives,
    *,
    possible: int,
    seconds: float | None = None,
) -> LiveSweep | LoggedSweep:
    """What follows a sweep on this console; a context manager, and an observer of the runner.

    Parameters
    ----------
    objectives: metric -> "max" or "min".
    possible: distinct configurations that the space has, counted up to those asked for.
    seconds: that the run may take; None: as long as it takes.
    """
    state = SweepState(objectives, possible, time.monotonic, seconds)
    animated = console.is_terminal and not console.is_dumb_terminal
    return LiveSweep(console, state) if animated else LoggedSweep(console, state)


class LoggedSweep(AbstractContextManager["LoggedSweep"]):
    """For logs: a line for what is waited for, each tenth of the trials, and each failure."""

    def __init__(self, console: Console, state: SweepState) -> None:
        self._console = console
        self._state = state
        self._tenths = 0
        self._phases: set[str] = set()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def sweep_started(
        self, *, name: str, samples: int, stored: int, concurrency: int, earlier: Collection[Row]
    ) -> None:
        """The search begins."""
        self._state.begun(
            name=name, samples=samples, stored=stored, concurrency=concurrency, earlier=earlier
        )
        self._tenths = self._tenths_done()
        self._say(self._state.opening())

    def trial_started(self, trial_id: str, config: TrialConfig, *, host: str) -> None:  # noqa: ARG002
        """A trial has begun."""
        self._state.started(trial_id, steps=config.train.steps)

    def trial_progressed(self, trial_id: str, progress: Progress | StageProgress | Alive) -> None:
        """A trial has come further."""
        self._state.progressed(trial_id, progress)

    def trial_died(self, trial_id: str, reason: str) -> None:
        """A trial has lost its worker, and waits for another."""
        self._state.died(trial_id)
        self.warn(f"the worker of trial {short(trial_id)} has died: {reason}")

    def trial_finished(self, trial_id: str, row: Mapping[str, object]) -> None:
        """A trial has ended, well or not."""
        self._state.finished(trial_id, row)
        if row["status"] == "failed":
            self.warn(failure_line(trial_id, row))
        if self._tenths_done() > self._tenths:
            self._tenths = self._tenths_done()
            parts = [self._state.counts(), self._state.times()]
            parts += [f"best {line}" for line in self._state.best()]
            self._say(f"{self._state.name}: {'; '.join(parts)}")

    def phase(self, text: str) -> None:
        """What is going on between trials, each told once."""
        if text not in self._phases:
            self._phases.add(text)
            self._say(text)

    def warn(self, text: str) -> None:
        """Something that the user should know."""
        self._say(text)

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def _tenths_done(self) -> int:
        return 10 * self._state.done // max(1, self._state.samples)


class LiveSweep(AbstractContextManager["LiveSweep"]):
    """For terminals: counts, a bar a running trial, the best so far; messages scroll by above."""

    def __init__(self, console: Console, state: SweepState) -> None:
        self._console = console
        self._state = state
        self._phase = "starting"
        self._spinner = Spinner("dots")
        self._lock = RLock()  # the display is drawn by a thread of its own
        self._live = Live(
            console=console,
            get_renderable=self._draw,
            refresh_per_second=_REFRESHES,
            transient=True,
            # Rich would print to stderr what goes to stdout; nothing but results may go there.
            redirect_stdout=False,
        )

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.__exit__(kind, error, traceback)

    def sweep_started(
        self, *, name: str, samples: int, stored: int, concurrency: int, earlier: Collection[Row]
    ) -> None:
        """The search begins."""
        with self._lock:
            self._state.begun(
                name=name, samples=samples, stored=stored, concurrency=concurrency, earlier=earlier
            )
            self._phase = "waiting for a trial to begin"
        self._say(self._state.opening())

    def trial_started(self, trial_id: str, config: TrialConfig, *, host: str) -> None:  # noqa: ARG002
        """A trial has begun."""
        with self._lock:
            self._state.started(trial_id, steps=config.train.steps)
            self._phase = ""

    def trial_progressed(self, trial_id: str, progress: Progress | StageProgress | Alive) -> None:
        """A trial has come further."""
        with self._lock:
            self._state.progressed(trial_id, progress)

    def trial_died(self, trial_id: str, reason: str) -> None:
        """A trial has lost its worker, and waits for another."""
        with self._lock:
            self._state.died(trial_id)
        self.warn(f"the worker of trial {short(trial_id)} has died: {reason}")

    def trial_finished(self, trial_id: str, row: Mapping[str, object]) -> None:
        """A trial has ended, well or not."""
        with self._lock:
            self._state.finished(trial_id, row)
        if row["status"] == "failed":
            self.warn(failure_line(trial_id, row))

    def phase(self, text: str) -> None:
        """What is going on when nothing else moves."""
        with self._lock:
            self._phase = text

    def warn(self, text: str) -> None:
        """Something that the user should know; it stays above the display."""
        self._say(text)

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def _draw(self) -> RenderableType:
        with self._lock:
            state = self._state
            parts: list[RenderableType] = []
            if state.samples:
                running = f" · {len(state.running)} running" if state.running else ""
                parts.append(Text(f"{state.counts()}{running} · {state.times()}", style="bold"))
                parts.append(bar_line(state.done / state.samples))
            if self._phase:
                self._spinner.update(text=self._phase)
                parts.append(self._spinner)
            room = max(1, self._console.height - _LINES_BESIDE_TRIALS)
            bars = dict(list(state.running.items())[:room])
            if bars:
                parts.append(trial_bars(bars))
            if len(state.running) > room:
                parts.append(Text(f"… and {len(state.running) - room} more"))
            parts += [Text(f"best {line}", style="green") for line in state.best()]
            return Group(*parts)


class TrialDisplay(AbstractContextManager["TrialDisplay"]):
    """Follows one trial: a bar on a terminal, a line for each tenth of its steps anywhere else."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._latest: Progress | StageProgress | None = None
        self._tenths = 0
        self._live = (
            Live(
                console=console,
                get_renderable=self._draw,
                refresh_per_second=_REFRESHES,
                transient=True,
                redirect_stdout=False,
            )
            if console.is_terminal and not console.is_dumb_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, traceback)

    def follow(self, trial: Generator[Progress | StageProgress | Alive | Rung, None, T]) -> T:
        """Run the trial to its end and return what it came to."""
        while True:
            try:
                progress = next(trial)
            except StopIteration as end:
                outcome: T = end.value
                return outcome
            if isinstance(progress, Alive) and progress.steps:
                self._latest = further(self._latest, progress)
            if isinstance(progress, Alive | Rung):
                continue
            if _stage(progress) != _stage(self._latest):
                self._tenths = 0
            self._latest = progress
            tenths = 10 * progress.step // max(1, progress.steps)
            if self._live is None and tenths > self._tenths:
                self._tenths = tenths
                step = f"step {progress.step} of {progress.steps}"
                self._console.print(f"{step}: {progress_text(progress)}", soft_wrap=True)

    def _draw(self) -> RenderableType:
        if self._latest is None:
            return Text("starting")
        return trial_bars({"trial": Running(self._latest.steps, self._latest)})


def bar_line(share: float) -> RenderableType:
    """A bar as wide as the console; a grid, since a bar alone does not end its line."""
    line = Table.grid(expand=True)
    line.add_row(ProgressBar(total=1.0, completed=share))
    return line


def trial_bars(running: Mapping[str, Running]) -> RenderableType:
    """One line a trial: its name, a bar, its step, and the figures of its latest validation."""
    return bars(
        [
            Bar(
                trial_id,
                trial.latest.step if trial.latest else 0,
                trial.steps,
                progress_text(trial.latest) if trial.latest else "starting",
            )
            for trial_id, trial in running.items()
        ]
    )


@dataclass(frozen=True)
class Bar:
    """A trial under way: the steps of its stage, and what there is to be told of it."""

    trial_id: str
    step: int
    steps: int
    text: str


def bars(trials: Sequence[Bar]) -> RenderableType:
    """One line a trial: its name, a bar, its step, and its text."""
    lines = Table.grid(padding=(0, 1), expand=True)
    lines.add_column(no_wrap=True)
    lines.add_column(ratio=1, min_width=6)
    lines.add_column(justify="right", no_wrap=True)
    lines.add_column(no_wrap=True)
    for trial in trials:
        bar = ProgressBar(total=max(1, trial.steps), completed=trial.step)
        lines.add_row(short(trial.trial_id), bar, f"{trial.step}/{trial.steps}", trial.text)
    return lines


def progress_text(progress: Progress | StageProgress) -> str:
    """`loss 0.213, val 94.20 %, gates expected open 12.31 %`.

    The last is of the relaxed gates: the hardened ticket's density is only known at the end. Of a
    stage that trains weights alone, what it does: `retraining the dense network`.
    """
    if isinstance(progress, StageProgress):
        return _stage(progress)
    return figures_text(
        finite_number(progress.loss),
        finite_number(progress.val_accuracy),
        finite_number(progress.expected_density),
    )


def figures_text(
    loss: float | None, val_accuracy: float | None, expected_density: float | None
) -> str:
    """`loss 0.213, val 94.20 %, gates expected open 12.31 %`."""
    shown = NONE if loss is None else f"{loss:.3f}"
    accuracy = figure(val_accuracy, "val_accuracy")
    opened = figure(expected_density, "density")
    return f"loss {shown}, val {accuracy} %, gates expected open {opened} %"


def _stage(progress: Progress | StageProgress | None) -> str:
    """What a trial is doing; nothing while it learns gates."""
    if not isinstance(progress, StageProgress):
        return ""
    return stage_text(progress.stage)


def stage_text(stage: str) -> str:
    """What a trial does in a stage; before the first logged step of its gates it has no figures."""
    if stage in _STAGES:
        return _STAGES[stage]
    return f"retraining the control {stage.removesuffix('_retrained')}"


def failure_line(trial_id: str, row: Row) -> str:
    """`trial 3fa91c02 failed: …`, with the first line of what it said."""
    return f"trial {short(trial_id)} failed: {first_line(row.get('error'))}"
