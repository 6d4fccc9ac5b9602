from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from ticketsweep.display.records import document
from ticketsweep.display.standing import driver_lines, standing_record, trials_under_way
from ticketsweep.display.sweeps import status_table
from ticketsweep.display.watching import COUNTS_SECONDS, ChangeLines, picture
from ticketsweep.results.standing import Standing
from ticketsweep.results.sweeps import SweepView
from ticketsweep.store.claims import this_process
from ticketsweep.store.live import LiveRun, LiveTrial, Told

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
AIMS = [("val_accuracy", "max"), ("sparsity", "max")]


def row(trial_id, status="complete", error=None):
    figures = {"val_accuracy": 0.9731, "sparsity": 0.91, "wall_seconds": 60.0, "error": error}
    return {"trial_id": trial_id, "status": status, **figures}


def trial(number, **state):
    known = {"step": 120, "steps": 2800, "loss": 0.25, "val_accuracy": 0.5, **state}
    return LiveTrial(f"{number:016x}", "node-1", NOW - timedelta(seconds=30), **known)


def standing(rows=(), trials=(), **state):
    run = LiveRun("quickstart", "run", this_process(), NOW - timedelta(minutes=5), NOW, 1,
                  samples=40, concurrency=8, trials=tuple(trials), **state)  # fmt: skip
    view = SweepView("quickstart", {"samples": 40, "objectives": AIMS}, list(rows))
    return Standing(view, (run,), NOW)


def console(width, height=24):
    return Console(file=io.StringIO(), width=width, height=height, markup=False, highlight=False,
                   color_system=None)  # fmt: skip


def text_of(on, *parts):
    for part in parts:
        on.print(part)
    return on.file.getvalue()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 15), (200, 50)])
def test_a_picture_never_needs_more_lines_than_the_terminal_has(width, height):
    rows = [row(f"{n:x}") for n in range(20)]
    rows += [row(f"f{n}", "failed", "every replicate diverged: " + "long " * 40) for n in range(9)]
    told = tuple(Told(NOW, f"warning {n} " + "long " * 40) for n in range(20))
    at = standing(rows, map(trial, range(60)), warnings=told, first=NOW - timedelta(minutes=4))
    shown = text_of(console(width, height), picture(console(width, height), at, trouble="away"))
    lines = shown.splitlines()
    assert len(lines) < height
    assert max(map(len, lines)) <= width
    assert "20 of 40 trials done, 60 under way, 9 failed" in shown
    assert "more" in shown


def test_a_picture_shows_bars_figures_best_and_failures():
    rows = [row("abcdefgh123"), row("f", "failed", "NaN\nmore")]
    at = standing(rows, [trial(1), trial(2, stage="dense")])
    shown = text_of(console(100), picture(console(100), at))
    assert "120/2800 loss 0.250, val 50.00 %" in shown
    assert "training the dense network" in shown
    assert "best val_accuracy 97.31 % (trial abcdefgh)" in shown
    assert "trial f failed: NaN\n" in shown


def test_a_log_gets_a_line_for_each_change_and_none_without():
    changes = ChangeLines()
    first = standing([row("a")], [trial(1)])
    lines = changes.of(first, seconds=0)
    assert lines[0].startswith("run by process")
    assert lines[1].startswith("quickstart: 1 of 40 trials done, 1 under way; about")
    later = replace(first, now=NOW + timedelta(seconds=20))
    assert changes.of(later, seconds=20) == []
    failed = standing([row("a"), row("b", "failed", "no luck")], [trial(1)])
    assert changes.of(failed, seconds=21) == ["trial b failed: no luck"]
    warned = standing([row("a")], [trial(1)], warnings=(Told(NOW, "careful"),))
    assert changes.of(warned, seconds=22) == ["careful"]
    assert changes.of(warned, seconds=23) == []


def test_a_log_of_many_trials_grows_by_a_line_a_minute():
    changes, lines = ChangeLines(), 0
    for second in range(600):
        rows = [row(str(n)) for n in range(second // 20)]
        lines += len(changes.of(standing(rows, [trial(1)]), seconds=float(second)))
    assert lines <= 2 + 600 / COUNTS_SECONDS


def test_the_end_is_told_at_once():
    changes = ChangeLines()
    changes.of(standing([row("a")], [trial(1)]), seconds=0)
    rows = [row(str(n)) for n in range(40)]
    lines = changes.of(standing(rows, ended=NOW, outcome="done"), seconds=1)
    assert lines[0].startswith("last run: process")
    assert lines[1].startswith("quickstart: 40 of 40 trials done")


def test_status_fits_into_80_columns_and_needs_no_colour():
    at = standing([row("a")], map(trial, range(3)), first=NOW - timedelta(minutes=2), replicates=8)
    on = console(80)
    shown = text_of(on, status_table(on, [at]), *driver_lines(at), trials_under_way(on, at))
    assert max(map(len, shown.splitlines())) <= 80
    assert "\x1b" not in shown
    assert "running" in shown
    assert "240 replicates an hour, about" in shown
    assert "120/2800" in shown


def test_a_run_that_was_killed_is_told_as_gone():
    at = standing([row("a")], [trial(1)])
    killed = replace(at, now=NOW, runs=(replace(at.runs[0], process={"host": "h", "pid": 7}),))
    lines = driver_lines(replace(killed, now=NOW + timedelta(minutes=5)))
    assert lines[0].startswith(
        "process 7 on h has run it and is gone or cut off: heard of 5:00 ago"
    )


def test_the_document_has_all_of_it():
    text = document(standing_record(standing([row("a")], [trial(1)]), trials=True))
    for part in ('"under_way"', '"replicates_per_hour"', '"seconds_left"', '"phase"', '"failures"'):
        assert part in text
