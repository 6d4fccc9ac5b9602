from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ticketsweep.errors import SweepError
from ticketsweep.progress import UNDER_WAY
from ticketsweep.results.following import Following
from ticketsweep.results.standing import Standing, standing_of, standings, stored_views
from ticketsweep.results.sweeps import SweepView
from ticketsweep.store.claims import this_process
from ticketsweep.store.database import Database
from ticketsweep.store.live import LivePage, LiveRun, LiveTrial
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import TrialRows
from ticketsweep.store.writer import write_sweep, write_trial

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def row(trial_id, status="complete", **columns):
    return {"trial_id": trial_id, "status": status, "wall_seconds": 60.0, **columns}


def trial(trial_id, *, since=MINUTE / 2, **state):
    return LiveTrial(trial_id, "node", NOW - since, **state)


def run(*trials, who="run", **state):
    told = LiveRun("s", who, this_process(), NOW - 10 * MINUTE, NOW, 1, concurrency=2)
    return replace(told, trials=trials, samples=10, **state)


def standing(rows, *runs, samples=10):
    view = SweepView("s", {"samples": samples, "objectives": []}, rows)
    return Standing(view, runs, NOW)


def test_a_trial_is_in_one_state_and_under_way_where_it_is_tried_again():
    rows = [row("a"), row("b", "failed"), row("c", "failed"), row("d", "stopped")]
    rows.append(row("e", "stopped", metrics={UNDER_WAY: 1.0}))
    found = standing(rows, run(trial("b"), trial("e"), trial("f")))
    assert found.counts == {UNDER_WAY: 3, "complete": 1, "stopped": 1, "failed": 1}
    assert [each["trial_id"] for each in found.failures] == ["c"]
    dead = standing(
        rows, run(trial("b"), trial("f"), process={"machine": "gone"}, heard=NOW - MINUTE * 5)
    )
    assert dead.counts == {UNDER_WAY: 1, "complete": 1, "stopped": 1, "failed": 2}


def test_trials_are_cut_off_where_their_driver_is_gone_and_they_have_no_end():
    rows = [row("a"), row("e", "stopped", metrics={UNDER_WAY: 1.0})]
    begun = frozenset({"a", "e", "f"})  # of "a", it could not be noted that it has ended
    assert replace(standing(rows), begun=begun).cut_off == {"e", "f"}
    assert replace(standing(rows, run(trial("f"))), begun=begun).cut_off == frozenset()
    gone = run(trial("f"), process={"machine": "gone"}, heard=NOW - MINUTE * 5)
    assert replace(standing(rows, gone), begun=begun).cut_off == {"e", "f"}


def test_time_left_is_what_the_latest_took_times_what_is_missing_over_what_runs_at_once():
    rows = [row(str(n)) for n in range(4)]
    found = standing(rows, run(trial("a"), trial("b", since=MINUTE * 2)))
    # "a" has half a minute to go, "b" is late already, four have not been begun.
    assert found.left == pytest.approx((30 + 0 + 4 * 60) / 2)
    last = standing([row(str(n)) for n in range(9)], run(trial("a")))
    assert last.left == pytest.approx(30)
    assert standing(rows).left is None  # nobody runs it


def test_before_any_trial_has_ended_the_first_tell_by_their_pace():
    first = trial("a", step=25, steps=100)
    assert standing([], run(first), samples=1).left == pytest.approx(90)
    assert standing([], run(trial("a", step=1, steps=100)), samples=1).left is None


def test_throughput_is_of_the_time_since_the_first_trial():
    going_on = run(trial("a"), replicates=12, first=NOW - 6 * MINUTE)
    assert standing([], going_on).throughput == pytest.approx(120)
    ended = replace(going_on, ended=NOW - 3 * MINUTE, outcome="done")
    assert standing([], ended).throughput == pytest.approx(240)
    assert standing([], run(trial("a"))).throughput is None


def test_a_sweep_is_done_when_enough_trials_are_and_nobody_is_at_it():
    rows = [row(str(n)) for n in range(10)]
    assert standing(rows).is_done
    assert not standing(rows, run()).is_done
    assert standing(rows, run(ended=NOW, outcome="done")).is_done
    assert not standing([*rows[1:], row("x", "failed")]).is_done


def stored(storage, trial_id, status="complete", *, sweep="s", second=0, **columns):
    moment = datetime(2026, 1, 1, 12, 0, second, tzinfo=UTC)
    full = {"trial_id": trial_id, "status": status, "started_at": moment, "steps_done": 1}
    write_trial(storage, sweep, TrialRows({"metrics": {}, **full, **columns}))


@pytest.fixture
def storage(tmp_path):
    return Storage.open(str(tmp_path / "storage"), create=True)


def test_what_is_looked_at_again_is_what_is_read_anew(storage):
    sweep = {"sweep": "s", "created_at": NOW, "samples": 4, "space": "{}", "seed": 0}
    write_sweep(storage, {**sweep, "version": "0", "objectives": {"val_accuracy": "max"}})
    following = Following(storage, "s")

    def check():
        views = stored_views(Database(storage), "s")
        (fresh,) = standings(views, [], now=NOW, begun={})
        seen = following.look(NOW)
        assert seen.counts == fresh.counts
        key = "val_accuracy"
        assert {r["trial_id"]: r.get(key) for r in seen.view.trials} == {
            r["trial_id"]: r.get(key) for r in fresh.view.trials
        }

    check()
    stored(storage, "a", val_accuracy=0.5)
    check()
    stored(storage, "b", "stopped", second=1, metrics={UNDER_WAY: 1.0})
    stored(storage, "c", "failed", second=2, error="no luck")
    check()
    stored(storage, "b", "stopped", second=1, metrics={"other": 1.0})
    stored(storage, "c", second=3, val_accuracy=0.7)
    check()


def test_a_sweep_is_known_by_its_page_before_anything_is_stored(storage):
    page = LivePage(storage, "new")
    page.close("interrupted")
    found = Following(storage, "new").look(NOW)
    assert (found.name, found.is_done, found.view.trials) == ("new", False, [])
    stored(storage, "a", sweep="old")
    with pytest.raises(SweepError, match="old"):
        standing_of([], "odl", Database(storage))
