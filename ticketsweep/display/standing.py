"""How far a sweep has come: sentences about its driver, its trials under way, a document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.text import Text

from ticketsweep.display.figures import NONE, duration, figure, first_line, plural, setting, short
from ticketsweep.display.progress import stage_text
from ticketsweep.display.sweeps import ago, best_lines
from ticketsweep.display.terminal import Column, tables
from ticketsweep.results.ranking import best_trial, metrics_told
from ticketsweep.results.rows import Row, figure_of, finite_number, state_of
from ticketsweep.results.standing import Standing
from ticketsweep.store.claims import LEASE_SECONDS
from ticketsweep.store.live import RUN, LiveRun, LiveTrial

_BAR = 10  # characters
_LONGEST = 150  # characters of a warning


def driver_lines(standing: Standing, *, warnings: int = 5) -> list[str]:
    """Who runs the sweep, at what pace, what is waited for, and the latest warnings."""
    lines = [run_text(run, standing.now) for run in standing.runs if run.who == RUN]
    if pace := pace_text(standing):
        lines.append(pace)
    if standing.cut_off:
        cut_off = plural(len(standing.cut_off), "trial")
        lines.append(f"{cut_off} cut off under way: the next run goes on from the last checkpoint")
    driver = standing.driver
    told = () if driver is None else driver.warnings[-warnings:]
    return [*lines, *(f"{ago(each.at, standing.now)}: {_brief(each.text)}" for each in told)]


def _brief(text: str) -> str:
    """The beginning of what Ray says at length; the trial's log has all of it."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def run_text(run: LiveRun, now: datetime) -> str:
    """Who runs a sweep, where and since when; or how that has ended."""
    who = f"process {run.pid} on {run.host}"
    if run.ended is not None:
        return f"last run: {who}, ended {ago(run.ended, now)}: {run.outcome}"
    if not run.is_alive(now):
        silent = duration(run.silent(now))
        return (
            f"{who} has run it and is gone or cut off: heard of {silent} ago "
            f"(a run that goes on is heard of every {LEASE_SECONDS:g} s; run the sweep again)"
        )
    since = duration(max(0.0, (now - run.since).total_seconds()))
    at_once = f", {plural(run.concurrency, 'trial')} at a time" if run.samples else ""
    waiting = f": {run.phase}" if run.phase else ""
    return f"run by {who} for {since}{at_once}{waiting}"


def pace_text(standing: Standing) -> str:
    """`412 replicates an hour, about 1:10 left`; empty where neither is known."""
    pace = standing.throughput
    parts = [] if pace is None else [f"{pace:,.{1 if pace < 100 else 0}f} replicates an hour"]
    if standing.left is not None:
        parts.append(f"about {duration(standing.left)} left")
    return ", ".join(parts)


def trials_under_way(console: Console, standing: Standing) -> RenderableType:
    """One row a trial: where it runs, for how long, its stage, a bar, and the latest figures."""
    trials, now = standing.trials, standing.now
    return tables(
        console,
        [Column("under way", [short(each.trial_id) for each in trials], right=False)],
        [
            Column("on", [each.host for each in trials], right=False),
            Column("for", [duration(each.seconds(now)) for each in trials]),
            Column("", [bar_text(console, each.share) for each in trials], right=False),
            Column("step", [_steps(each) for each in trials]),
            Column("loss", [setting(each.loss) for each in trials]),
            Column("val %", [figure(each.val_accuracy, "val_accuracy") for each in trials]),
            Column("open %", [figure(each.expected_density, "density") for each in trials]),
        ],
        [Column("doing", [stage_text(each.stage) for each in trials], right=False)],
    )


def _steps(trial: LiveTrial) -> str:
    return f"{trial.step}/{trial.steps}" if trial.steps else NONE


def bar_text(console: Console, share: float) -> str:
    """A bar as text, which needs no colour to be read, nor more than ASCII where there is none."""
    done, rest = "#-" if console.options.ascii_only else "━─"
    full = int(share * _BAR)
    return done * full + rest * (_BAR - full)


def headline(standing: Standing) -> str:
    """`quickstart: 3 of 12 trials done, 2 under way, 1 failed`."""
    counts, samples = standing.counts, standing.samples
    asked = f" of {samples:,}" if samples is not None and samples >= standing.done else ""
    text = f"{standing.name}: {standing.done:,}{asked} trials done"
    for state in ("under_way", "failed"):
        if counts[state]:
            text += f", {counts[state]:,} {state.replace('_', ' ')}"
    return text


def best_texts(standing: Standing) -> list[str]:
    """The best value of each objective so far, and whose it is."""
    view = standing.view
    rows = [best_trial(view.trials, name, way) for name, way in view.objectives.items()]
    whose = [short(row["trial_id"]) for row in rows if row is not None]
    return [f"{line} (trial {of})" for line, of in zip(best_lines(view), whose, strict=False)]


def failure_texts(standing: Standing, limit: int) -> list[str]:
    """The latest failures, each with the first line of what it said."""
    rows = standing.failures[-limit:]
    return [
        f"trial {short(row['trial_id'])} failed: {first_line(row.get('error'))}" for row in rows
    ]


def standing_record(standing: Standing, *, trials: bool) -> dict[str, Any]:
    """All of it as plain values for a document.

    Parameters
    ----------
    trials: whether the stored trials are in it too.
    """
    view = standing.view
    record: dict[str, Any] = {
        "sweep": standing.name,
        "asked": standing.samples,
        "counts": standing.counts,
        "done": standing.is_done,
        "best": dict(_best(standing)),
        "last_activity": standing.last_activity,
        "replicates_per_hour": standing.throughput,
        "seconds_left": standing.left,
        "runs": [_run_record(run, standing) for run in standing.runs],
        "under_way": [_trial_record(each, standing) for each in standing.trials],
        "cut_off": sorted(standing.cut_off),
        "failures": [
            {"trial_id": row["trial_id"], "error": first_line(row.get("error"))}
            for row in standing.failures
        ],
    }
    if trials:
        names = metrics_told(view.objectives)
        record["trials"] = [_row_record(row, names) for row in view.trials]
    return record


def _best(standing: Standing) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, way in standing.view.objectives.items():
        row = best_trial(standing.view.trials, name, way)
        if row is not None:
            yield name, {"trial_id": row["trial_id"], "value": figure_of(row, name)}


def _run_record(run: LiveRun, standing: Standing) -> dict[str, Any]:
    names = ("who", "host", "pid", "since", "heard", "ended", "outcome", "phase", "concurrency")
    record = {name: getattr(run, name) for name in names}
    warnings = [{"at": told.at, "text": told.text} for told in run.warnings]
    return record | {"running": run.is_alive(standing.now), "warnings": warnings}


def _trial_record(trial: LiveTrial, standing: Standing) -> dict[str, Any]:
    return vars(trial) | {"seconds": round(trial.seconds(standing.now), 1)}


def _row_record(row: Row, names: Sequence[str]) -> dict[str, Any]:
    record = {"trial_id": row["trial_id"], "state": state_of(row), "error": row.get("error")}
    record |= {"started_at": row.get("started_at"), "host": row.get("host")}
    record["wall_seconds"] = finite_number(row.get("wall_seconds"))
    return record | {name: figure_of(row, name) for name in names}


def note_line(text: str) -> RenderableType:
    """A line below a table."""
    return Text(text, style="dim", overflow="fold")
