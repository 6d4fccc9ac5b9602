"""How far sweeps have come at a moment: what is stored, and what their drivers tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import pyarrow as pa

from ticketsweep.errors import SweepError, did_you_mean
from ticketsweep.progress import UNDER_WAY
from ticketsweep.results.ranking import TOLD_METRICS
from ticketsweep.results.rows import Row, finite_number, state_of, without_end
from ticketsweep.results.sweeps import SweepView, sweep_views
from ticketsweep.store.database import Database
from ticketsweep.store.live import RUN, LiveRun, LiveTrial
from ticketsweep.store.schema import TRIALS

STATES = (UNDER_WAY, "complete", "stopped", "failed")
_OUTLINE = ("status", "error", "steps_done", "wall_seconds", "host", *TOLD_METRICS)
_RECENT = 50  # trials whose durations tell how long the next ones take
_LEAST_SHARE = 0.05  # of a first trial's steps, from which on its pace says something


@dataclass(frozen=True)
class Standing:
    """How far a sweep has come.

    Attributes
    ----------
    view: what is stored of it.
    runs: what the processes tell that run trials of it, or did so last.
    now: the moment.
    begun: ids of trials that a driver has given out and not heard the end of.
    """

    view: SweepView
    runs: tuple[LiveRun, ...]
    now: datetime
    begun: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Of the sweep."""
        return self.view.name

    @cached_property
    def alive(self) -> tuple[LiveRun, ...]:
        """The runs that go on."""
        return tuple(run for run in self.runs if run.is_alive(self.now))

    @property
    def driver(self) -> LiveRun | None:
        """What the driver of the sweep has told last, whether it goes on or not."""
        return next((run for run in self.runs if run.who == RUN), None)

    @property
    def is_driven(self) -> bool:
        """Whether the sweep's driver goes on."""
        return any(run.who == RUN for run in self.alive)

    @cached_property
    def trials(self) -> tuple[LiveTrial, ...]:
        """Trials that are being trained, in the order in which they were taken up."""
        trials = (trial for run in self.alive for trial in run.trials)
        return tuple(sorted(trials, key=lambda trial: (trial.started, trial.trial_id)))

    @cached_property
    def counts(self) -> dict[str, int]:
        """Trials by state, each counted once: one that is tried again is under way."""
        states = {str(row["trial_id"]): state_of(row) for row in self.view.trials}
        states |= {trial.trial_id: UNDER_WAY for trial in self.trials}
        found = Counter(states.values())
        return {state: found[state] for state in STATES}

    @property
    def cut_off(self) -> frozenset[str]:
        """Trials that were cut off with their driver, which the next run goes on with."""
        return frozenset() if self.is_driven else without_end(self.begun, self.view.trials)

    @property
    def samples(self) -> int | None:
        """Trials asked for; None for single ones."""
        if self.view.row is not None and self.view.row.get("samples") is not None:
            return int(self.view.row["samples"])
        return None if self.driver is None else self.driver.samples or None

    @property
    def done(self) -> int:
        """Trials that are complete or were stopped by the scheduler."""
        return self.counts["complete"] + self.counts["stopped"]

    @property
    def is_done(self) -> bool:
        """Whether there are as many trials as were asked for, and none is under way."""
        enough = self.samples is not None and self.done >= self.samples
        return enough and not self.alive

    @property
    def share(self) -> float:
        """Share of the trials asked for that are done."""
        return min(1.0, self.done / self.samples) if self.samples else 0.0

    @property
    def throughput(self) -> float | None:
        """Replicates an hour that the driver's last run has finished; None before the first."""
        driver = self.driver
        if driver is None or driver.first is None or not driver.replicates:
            return None
        seconds = ((driver.ended or driver.heard) - driver.first).total_seconds()
        return 3600 * driver.replicates / seconds if seconds > 0 else None

    @property
    def left(self) -> float | None:
        """Seconds until all trials are done, if those to come take as long as the latest did.

        None if no driver goes on, or nothing is known of how long a trial takes.
        """
        if not self.is_driven or self.samples is None or self.driver is None:
            return None
        each = self._seconds_of_a_trial()
        if each is None:
            return None
        rests = [max(0.0, each - trial.seconds(self.now)) for trial in self.trials]
        waiting = max(0, self.samples - self.done - len(rests))
        together = (sum(rests) + waiting * each) / max(1, self.driver.concurrency)
        return max([together, *rests])

    def _seconds_of_a_trial(self) -> float | None:
        ended = [row for row in self.view.trials if row["status"] in ("complete", "stopped")]
        known = [finite_number(row.get("wall_seconds")) for row in ended[-_RECENT:]]
        seconds = [each for each in known if each is not None]
        if not seconds:  # the first are under way: at their pace so far
            seconds = [
                trial.seconds(self.now) / trial.share
                for trial in self.trials
                if not trial.stage and trial.share >= _LEAST_SHARE
            ]
        return sum(seconds) / len(seconds) if seconds else None

    @property
    def failures(self) -> list[Row]:
        """Failed trials that are not being tried again, the latest last."""
        again = {trial.trial_id for trial in self.trials}
        failed = [row for row in self.view.trials if row["status"] == "failed"]
        return [row for row in failed if row["trial_id"] not in again]

    @property
    def last_activity(self) -> datetime | None:
        """When something was heard of it last."""
        heard = [run.ended or run.heard for run in self.runs]
        stored = self.view.last_activity
        return max([*heard, *([] if stored is None else [stored])], default=None)


def standings(
    views: Sequence[SweepView],
    runs: Sequence[LiveRun],
    *,
    now: datetime,
    begun: Mapping[str, Collection[str]],
) -> list[Standing]:
    """How far these sweeps have come, and those of which nothing is stored yet, by name.

    Parameters
    ----------
    begun: sweep -> trials that a driver has given out and not heard the end of.
    """
    known = {view.name for view in views}
    new = sorted({run.sweep for run in runs} - known)
    every = [*views, *(SweepView(name, None, []) for name in new)]
    return [
        Standing(
            view,
            tuple(run for run in runs if run.sweep == view.name),
            now,
            frozenset(begun.get(view.name, ())),
        )
        for view in sorted(every, key=lambda view: view.name)
    ]


def standing_of(found: Sequence[Standing], name: str, database: Database) -> Standing:
    """The sweep of that name. Raises SweepError, with those there are, where there is none."""
    for each in found:
        if each.name == name:
            return each
    stored = [str(row["sweep"]) for row in database.sweeps().to_pylist()]
    known = sorted({*stored, *database.storage.sweeps_with_trials()})
    hint = did_you_mean(name, known) if known else "it has no sweep yet"
    raise SweepError(f"no sweep {name!r} in storage {database.storage.uri} ({hint})")


def stored_views(
    database: Database, sweep: str | None = None, *, whole: int = 0
) -> list[SweepView]:
    """The sweeps of a storage, with rows of trials that have what a view of states needs.

    Parameters
    ----------
    sweep: the only one.
    whole: so many of the latest trials of each have their metrics, and all their settings.
    """
    sweeps = [r for r in database.sweeps().to_pylist() if sweep in (None, r["sweep"])]
    objectives = {name for row in sweeps for name in dict(row["objectives"] or {})}
    columns = [name for name in (*_OUTLINE, *sorted(objectives)) if name in _PLAIN]
    rows = database.outlines(sweep, columns=[*columns, *(["config"] if whole else [])])
    aims = {str(row["sweep"]): set(dict(row["objectives"] or {})) for row in sweeps}
    left: Counter[str] = Counter()
    wanted: dict[tuple[str, str], dict[str, Any]] = {}
    for row in reversed(rows):
        name = row["sweep"]
        left[name] += 1
        is_plain = aims.get(name, set()) <= _PLAIN
        # Of a stopped one, they say whether it goes on.
        if row["status"] == "stopped" or not is_plain or left[name] <= whole:
            wanted[name, row["trial_id"]] = row
    if wanted:
        ids = {trial_id for _, trial_id in wanted}
        for more in database.trials(sweep, only=ids, columns=["metrics"]).to_pylist():
            if (row := wanted.get((more["sweep"], more["trial_id"]))) is not None:
                row["metrics"] = more["metrics"]
    return sweep_views(sweeps, rows)


_PLAIN = frozenset(field.name for field in TRIALS if not pa.types.is_map(field.type))
