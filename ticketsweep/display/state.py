"""What is known of a sweep while it runs, as numbers and sentences; nothing is drawn here."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from ticketsweep.display.figures import duration, named_figure, out_of, plural, short
from ticketsweep.progress import Alive, Progress, StageProgress
from ticketsweep.results.ranking import Objectives, best_trial
from ticketsweep.results.rows import Row, figure_of


@dataclass(frozen=True)
class Running:
    """A trial that is running: how many steps it has, and where it was last seen."""

    steps: int
    latest: Progress | StageProgress | None = None

    @property
    def share(self) -> float:
        """Share of its steps that are done."""
        return self.latest.step / max(1, self.steps) if self.latest else 0.0


def further(before: Progress | StageProgress | None, alive: Alive) -> Progress | StageProgress:
    """Where a trial stands some steps after a report; the figures are still those of the report."""
    if alive.stage or not isinstance(before, Progress):
        return StageProgress(alive.stage, alive.step, alive.steps)
    return replace(before, step=alive.step, steps=alive.steps)


class SweepState:
    """What is known of a running sweep.

    Parameters
    ----------
    objectives: metric -> "max" or "min".
    possible: distinct configurations that the space has, counted up to those asked for.
    clock: seconds since any fixed moment.
    seconds: that the run may take; None: as long as it takes.
    """

    def __init__(
        self,
        objectives: Objectives,
        possible: int,
        clock: Callable[[], float],
        seconds: float | None = None,
    ) -> None:
        self.objectives = objectives
        self._best: dict[str, Row | None] = dict.fromkeys(objectives)
        self.possible = possible
        self.clock = clock
        self.began = clock()
        self.seconds = seconds
        self.first_trial: float | None = None
        self.name = ""
        self.samples = 0
        self.stored = 0
        self.concurrency = 0
        self.running: dict[str, Running] = {}
        self.rows: dict[str, Row] = {}

    @property
    def done(self) -> int:
        """Trials complete or stopped, those stored before this run included."""
        return self.stored + len(self.rows) - self.failed

    @property
    def failed(self) -> int:
        """Trials that failed in this run and have not been tried again."""
        return [row["status"] for row in self.rows.values()].count("failed")

    @property
    def elapsed(self) -> float:
        """Seconds since this run began."""
        return self.clock() - self.began

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take at the pace so far; None before a trial has ended."""
        wanted = min(self.samples, self.possible)
        if not self.rows or self.first_trial is None or self.done >= wanted:
            return None
        worked = len(self.rows) + sum(trial.share for trial in self.running.values())
        remaining = max(0.0, wanted - self.stored - worked)
        return remaining * (self.clock() - self.first_trial) / worked

    def begun(
        self, *, name: str, samples: int, stored: int, concurrency: int, earlier: Collection[Row]
    ) -> None:
        """The search begins; of the trials of earlier runs, those `stored` count as done."""
        self.name, self.samples, self.stored = name, samples, stored
        self.concurrency = concurrency
        for metric, direction in self.objectives.items():
            self._best[metric] = best_trial(list(earlier), metric, direction)

    def opening(self) -> str:
        """`quickstart: 12 trials, 2 at a time; resuming: 7 of 12 trials already stored`."""
        text = f"{self.name}: {plural(self.samples, 'trial')}, {self.concurrency} at a time"
        if self.stored:
            text += f"; resuming: {out_of(self.stored, self.samples, 'already stored')}"
        return text

    def started(self, trial_id: str, *, steps: int) -> None:
        """A trial has begun, perhaps once more."""
        self.first_trial = self.clock() if self.first_trial is None else self.first_trial
        self.rows.pop(trial_id, None)
        self.running[trial_id] = Running(steps)

    def progressed(self, trial_id: str, progress: Progress | StageProgress | Alive) -> None:
        """A trial has come further; between two logged steps the figures are those of the first."""
        if isinstance(progress, Alive):
            before = self.running[trial_id].latest if trial_id in self.running else None
            progress = further(before, progress)
        self.running[trial_id] = Running(progress.steps, progress)

    def died(self, trial_id: str) -> None:
        """A trial has lost its worker, and waits for another."""
        self.running.pop(trial_id, None)

    def finished(self, trial_id: str, row: Row) -> None:
        """A trial has ended, well or not."""
        self.running.pop(trial_id, None)
        self.rows[trial_id] = row
        for name, direction in self.objectives.items():  # a display asks several times a second
            rivals = [rival for rival in (self._best[name], row) if rival is not None]
            self._best[name] = best_trial(rivals, name, direction)

    def counts(self) -> str:
        """`3 of 12 trials done, 1 failed`."""
        done = out_of(self.done, self.samples, "done")
        return f"{done}, {self.failed} failed" if self.failed else done

    def times(self) -> str:
        """`0:42 elapsed, about 1:10 left`; `, the time is up in 0:30` where it is limited."""
        left = "" if self.left is None else f", about {duration(self.left)} left"
        return f"{duration(self.elapsed)} elapsed{left}{self._limit()}"

    def _limit(self) -> str:
        if self.seconds is None:
            return ""
        rest = self.seconds - self.elapsed
        if rest <= 0:
            return ", the time is up: waiting for checkpoints"
        return f", the time is up in {duration(rest)}"

    def best(self) -> list[str]:
        """The best value of each objective so far, and whose it is."""
        lines = []
        for name, row in self._best.items():
            if row is not None:
                value = named_figure(figure_of(row, name), name)
                lines.append(f"{value} (trial {short(row['trial_id'])})")
        return lines
