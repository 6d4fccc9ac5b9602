"""The time of a run: what it lets begin, and when it is over."""

from __future__ import annotations

from typing import Any

import pytest

from ticketsweep.sweep.budget import GRACE_SECONDS, Budget, Closing


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def complete(*seconds: float) -> list[dict[str, Any]]:
    return [{"status": "complete", "wall_seconds": each} for each in seconds]


def test_nothing_is_begun_that_would_end_too_late() -> None:
    clock = Clock()
    budget = Budget(100, clock)
    assert budget.allows([])
    rows = [*complete(20, 30, 500), {"status": "failed", "wall_seconds": 1.0}]
    clock.now = 69
    assert budget.allows(rows)  # of 30 s, the median
    clock.now = 71
    assert not budget.allows(rows)
    assert budget.allows([])
    clock.now = 100
    assert not budget.allows([])


def test_trials_longer_than_any_run_are_begun_all_the_same() -> None:
    assert Budget(100, Clock()).allows(complete(101))


def test_without_a_limit_everything_is_allowed_and_nothing_is_over() -> None:
    clock = Clock()
    budget = Budget(None, clock)
    closing = Closing(budget, lambda: pytest.fail("nobody need look"))
    clock.now = 1e9
    assert budget.allows(complete(1e9))
    assert not closing.is_over(["a"])


def test_a_run_is_over_once_each_running_trial_has_written_another_checkpoint() -> None:
    clock, written = Clock(), {"a": 1, "b": 1, "other": 1}
    closing = Closing(Budget(100, clock), lambda: dict(written))
    clock.now = 99
    assert not closing.is_over([])
    clock.now = 100
    assert not closing.is_over(["a", "b", "new"])
    written |= {"a": 2, "other": 2}
    clock.now += 2
    assert not closing.is_over(["a", "b", "new"])
    written |= {"new": 7}  # its first
    clock.now += 2
    assert not closing.is_over(["a", "b", "new"])
    assert closing.is_over(["a", "new"])  # b has ended


def test_a_run_ends_though_checkpoints_do_not_come_or_cannot_be_seen() -> None:
    clock = Clock()
    closing = Closing(Budget(100, clock), lambda: None)
    clock.now = 100 + GRACE_SECONDS - 1
    assert not closing.is_over(["a"])
    clock.now = 100 + GRACE_SECONDS + 1
    assert closing.is_over(["a"])


def test_a_storage_that_was_away_at_the_limit_saves_no_trial() -> None:
    clock, answers = Clock(), iter([None, {"a": 1}, {"a": 1}, {"a": 2}])
    closing = Closing(Budget(10, clock), lambda: next(answers))
    seen = []
    for moment in (10, 12, 14, 16):
        clock.now = moment
        seen.append(closing.is_over(["a"]))
    assert seen == [False, False, False, True]
