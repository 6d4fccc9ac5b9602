from __future__ import annotations

import io

import pytest
from rich.console import Console

from ticketsweep.config import TrialConfig
from ticketsweep.display.progress import LiveSweep, LoggedSweep, TrialDisplay, sweep_display
from ticketsweep.display.state import SweepState
from ticketsweep.trial import Progress

AIMS = {"val_accuracy": "max"}


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def row(trial_id, *, status="complete", accuracy=0.9, error=None):
    return {"trial_id": trial_id, "status": status, "val_accuracy": accuracy, "error": error}


def progress(step, steps=10):
    return Progress(step, steps, loss=0.25, val_accuracy=0.5, expected_density=0.125)


def console(*, terminal=False, width=80, height=24):
    return Console(
        file=io.StringIO(),
        force_terminal=terminal,
        color_system=None,
        width=width,
        height=height,
        markup=False,
        highlight=False,
    )


def state(*, possible=100, **begun):
    clock = Clock()
    made = SweepState(AIMS, possible, clock)
    usual = {"name": "s", "samples": 10, "stored": 0, "concurrency": 2, "earlier": []}
    made.begun(**{**usual, **begun})
    return made, clock


def test_time_left_is_the_pace_of_what_was_worked_on_times_what_is_missing():
    sweep, clock = state(samples=12, stored=2)
    clock.now += 30  # starting Ray is no part of the pace
    assert sweep.left is None
    sweep.started("a", steps=10)
    sweep.started("b", steps=10)
    clock.now += 60
    sweep.finished("a", row("a"))
    sweep.progressed("b", progress(5))
    assert sweep.left == pytest.approx(60 / 1.5 * (10 - 1.5))
    assert sweep.elapsed == 90
    assert sweep.done == 3


def test_a_run_with_a_limit_says_how_long_it_has():
    clock = Clock()
    sweep = SweepState(AIMS, 100, clock, seconds=7200)
    assert sweep.times().endswith("elapsed, the time is up in 2:00:00")
    clock.now += 7000
    assert sweep.times().endswith("elapsed, the time is up in 3:20")
    clock.now += 201
    assert sweep.times().endswith("elapsed, the time is up: waiting for checkpoints")
    assert "time is up" not in state()[0].times()


def test_a_trial_tried_again_is_no_longer_a_failed_one():
    sweep, _ = state()
    sweep.started("a", steps=10)
    sweep.finished("a", row("a", status="failed"))
    assert (sweep.done, sweep.failed) == (0, 1)
    sweep.started("a", steps=10)
    assert (sweep.done, sweep.failed) == (0, 0)
    sweep.finished("a", row("a"))
    assert (sweep.done, sweep.failed) == (1, 0)


def test_a_space_with_fewer_configurations_than_were_asked_for_leaves_no_time_at_its_end():
    sweep, clock = state(samples=10, possible=2)
    for name in "ab":
        sweep.started(name, steps=10)
        clock.now += 60
        sweep.finished(name, row(name))
        assert sweep.left == (pytest.approx(60) if name == "a" else None)
    assert sweep.counts() == "2 of 10 trials done"


def test_more_trials_than_were_asked_for_are_never_a_part_of_fewer():
    sweep, _ = state(samples=2, stored=4)
    assert sweep.counts() == "4 trials done (2 asked for)"
    assert "resuming: 4 trials already stored (2 asked for)" in sweep.opening()


def test_trials_of_earlier_runs_count_among_the_best():
    sweep = SweepState(AIMS, 10, Clock())
    earlier = [row("earlier", accuracy=0.95)]
    sweep.begun(name="s", samples=10, stored=1, concurrency=2, earlier=earlier)
    sweep.finished("a", row("a", accuracy=0.9))
    assert sweep.best() == ["val_accuracy 95.00 % (trial earlier)"]


def run_ten(observer, *, failing=()):
    with observer:
        observer.phase("starting Ray")
        observer.sweep_started(name="s", samples=100, stored=50, concurrency=2, earlier=[])
        for i in range(50):
            observer.trial_started(str(i), TrialConfig(), host="h")
            observer.trial_progressed(str(i), progress(5))
            if i in failing:
                observer.trial_finished(str(i), row(str(i), status="failed", error="NaN\nmore"))
            else:
                observer.trial_finished(str(i), row(str(i)))


def test_a_log_has_a_line_for_the_start_each_tenth_and_each_failure():
    out = console()
    display = sweep_display(out, AIMS, possible=100)
    assert isinstance(display, LoggedSweep)
    run_ten(display, failing=(3,))
    lines = out.file.getvalue().splitlines()
    assert lines[0] == "starting Ray"
    assert lines[1] == "s: 100 trials, 2 at a time; resuming: 50 of 100 trials already stored"
    assert lines[2] == "trial 3 failed: NaN"
    assert [line.split(" of")[0] for line in lines[3:]] == [f"s: {n}" for n in (60, 70, 80, 90)]
    assert "1 failed" in lines[-1]
    assert "running" not in out.file.getvalue()  # counted between two trials, it says too little


def test_a_log_tells_each_phase_once():
    out = console()
    display = sweep_display(out, AIMS, possible=100)
    for phase in ("loading digits", "starting Ray", "loading digits"):
        display.phase(phase)
    assert out.file.getvalue().splitlines() == ["loading digits", "starting Ray"]


def test_nothing_moves_where_the_output_is_no_terminal():
    out = console()
    run_ten(sweep_display(out, AIMS, possible=100))
    assert "\x1b" not in out.file.getvalue()


def test_a_terminal_shows_counts_bars_and_the_best_and_failures_stay():
    out = console(terminal=True)
    display = sweep_display(out, AIMS, possible=100)
    assert isinstance(display, LiveSweep)
    run_ten(display, failing=(3,))
    text = out.file.getvalue()
    assert "trial 3 failed: NaN" in text
    display.trial_started("abcdefghij", TrialConfig(), host="h")
    display.trial_progressed("abcdefghij", progress(5))
    shown = console()
    shown.print(display._draw())
    drawn = shown.file.getvalue()
    assert "99 of 100 trials done, 1 failed · 1 running" in drawn
    assert "abcdefgh " in drawn
    assert "5/10 loss 0.250, val 50.00 %, gates expected open 12.50 %" in drawn
    assert "best val_accuracy 90.00 % (trial 0)" in drawn


@pytest.mark.parametrize("width", [40, 80, 120])
def test_more_running_trials_than_lines_do_not_scroll_the_terminal(width):
    out = console(terminal=True, width=width, height=15)
    display = sweep_display(out, AIMS, possible=100)
    display.sweep_started(name="s", samples=100, stored=0, concurrency=50, earlier=[])
    for i in range(50):
        display.trial_started(f"{i:016}", TrialConfig(), host="h")
    shown = console(width=width, height=15)
    shown.print(display._draw())
    lines = shown.file.getvalue().splitlines()
    assert len(lines) <= 15
    assert max(map(len, lines)) <= width
    assert "… and 44 more" in shown.file.getvalue()


def test_a_trial_is_followed_to_its_outcome():
    def trial():
        for step in range(1, 101):
            yield progress(step, 100)
        return "outcome"

    for terminal in (True, False):
        out = console(terminal=terminal)
        with TrialDisplay(out) as display:
            assert display.follow(trial()) == "outcome"
    lines = out.file.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0] == "step 10 of 100: loss 0.250, val 50.00 %, gates expected open 12.50 %"
