"""Which job is next: of earlier runs, of failed trials, of the search, and in the time there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ticketsweep.config import TrialConfig, trial_id
from ticketsweep.space import SweepSpec
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.under_way import note_begun, trials_under_way
from ticketsweep.sweep.budget import Budget
from ticketsweep.sweep.jobs import JobQueue
from ticketsweep.sweep.search import Search, Suggestion
from ticketsweep.sweep.stored import failures_of, has_failed_for_good, is_done

MakeSpec = Callable[..., SweepSpec]


def identify(config: TrialConfig) -> str:
    return trial_id(config, data_digest="")


def queue_of(
    spec: SweepSpec, storage: Storage, *, places: int = 2, seconds: float | None = None, **how: Any
) -> JobQueue:
    """The queue of a driver that begins with what is stored."""
    search = Search(spec, identify=identify, journal=None)
    search.restore(Database(storage).trials(spec.settings.name).to_pylist())
    queue = JobQueue(spec, search, storage, budget=Budget(seconds), **how)
    queue.open(
        places=lambda: places,
        on_stored=lambda *_: None,
        on_copied=lambda _: None,
        on_wait=lambda _: None,
    )
    return queue


def given(queue: JobQueue, *keys: str) -> list[Suggestion]:
    jobs = [queue.next(key) for key in keys]
    return [job for job in jobs if job is not None]


def ids(jobs: list[Suggestion]) -> set[str]:
    return {job.trial_id for job in jobs}


def test_what_an_earlier_run_has_begun_is_gone_on_with_before_anything_new(
    make_spec: MakeSpec, storage: Storage
) -> None:
    first = given(queue_of(make_spec(), storage), "a", "b")  # and then its driver is killed
    queue = queue_of(make_spec(), storage, places=4)
    again = given(queue, "a", "b", "c", "d")
    assert ids(again[:2]) == ids(first)
    assert {job.trial_id: job.config for job in again[:2]} == {j.trial_id: j.config for j in first}
    assert len(ids(again)) == 4
    assert trials_under_way(storage)["mini"] == ids(again)
    queue.lost("a", "its worker died")
    assert trials_under_way(storage)["mini"] == ids(again[1:])


def test_no_more_trials_are_gone_on_with_than_are_asked_for(
    make_spec: MakeSpec, storage: Storage
) -> None:
    first = given(queue_of(make_spec(), storage, places=4), "a", "b", "c", "d")
    fewer = queue_of(make_spec(sweep={"samples": 2}), storage, places=4)
    again = given(fewer, "a", "b", "c", "d")
    assert len(again) == 2
    assert ids(again) < ids(first)
    assert trials_under_way(storage)["mini"] == ids(first)


@pytest.mark.parametrize(
    "record", ["", "[]", "{}", '{"params": {}}', '{"params": {"weight_scale": 9, "x": 1}}']
)
def test_a_note_that_says_nothing_of_this_space_is_left_alone(
    make_spec: MakeSpec, storage: Storage, record: str
) -> None:
    note_begun(storage, "mini", "0123456789abcdef", record)
    jobs = given(queue_of(make_spec(), storage, places=4), *"abcdef")
    assert len(jobs) == 4
    assert "0123456789abcdef" not in ids(jobs)


def test_a_trial_begun_in_another_space_is_not_gone_on_with(
    make_spec: MakeSpec, storage: Storage
) -> None:
    wide = make_spec(weight_scale={"uniform": [3.0, 4.0]})
    first = given(queue_of(wide, storage), "a", "b")
    assert not ids(first) & ids(given(queue_of(make_spec(), storage, places=4), *"abcd"))


def fail(queue: JobQueue, key: str) -> str:
    (job,) = given(queue, key)
    queue.lost(key, "it fails")
    return job.trial_id


def test_a_trial_that_failed_for_good_is_tried_once_more_in_each_run_that_asks_for_it(
    make_spec: MakeSpec, storage: Storage
) -> None:
    spec = make_spec(sweep={"samples": 1, "max_failures": 1})
    identity = fail(queue_of(spec, storage), "a")
    assert fail(queue_of(spec, storage), "a") == identity  # the one time that is tolerated
    rows = Database(storage).trials().to_pylist()
    assert [has_failed_for_good(row, spec.settings) for row in rows] == [True]
    assert is_done(rows, spec.settings, retry_failed=False)
    assert not is_done(rows, spec.settings, retry_failed=True)
    assert not queue_of(spec, storage).has_work()
    queue = queue_of(spec, storage, retry_failed=True)
    assert fail(queue, "a") == identity
    assert not queue.has_work()
    (row,) = Database(storage).trials().to_pylist()
    assert failures_of(row) == 1  # its count has begun anew


def test_nothing_is_given_out_once_the_time_is_up(make_spec: MakeSpec, storage: Storage) -> None:
    queue = queue_of(make_spec(), storage, seconds=1e-9)
    assert not queue.look_ahead()
    assert queue.next("a") is None
    assert not queue.has_work()
    assert queue.is_short


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_settings_to_start_with_come_first_and_once(
    make_spec: MakeSpec, storage: Storage, sampler: str
) -> None:
    points = [{"weight_scale": 1.25, "gate.l0_strength": 2}, {"weight_scale": 1.5}]
    spec = make_spec(sweep={"start_with": points, "sampler": sampler, "samples": 5})

    def scales(jobs: list[Suggestion]) -> list[float]:
        return [job.config.weight_scale for job in jobs]

    first = queue_of(spec, storage, places=3)
    jobs = given(first, "a", "b", "c")
    assert scales(jobs)[:2] == [1.25, 1.5]
    assert jobs[0].config.gate.l0_strength == 2.0
    assert scales(jobs)[2] not in (1.25, 1.5)
    first.lost("b", "it fails")  # and so do the driver's others
    again = given(queue_of(spec, storage, places=9), *"abcdefg")
    assert len(again) == 5
    assert sorted(scales(again)).count(1.25) == scales(again).count(1.5) == 1
    assert ids(jobs) < ids(again)


def test_a_choice_to_start_with_brings_its_own_settings(
    make_spec: MakeSpec, storage: Storage
) -> None:
    gates = [
        {"family": "gaussian", "l0_strength": {"loguniform": [0.3, 6]}},
        {"family": "edge_popup", "density": {"choice": [0.1, 0.2, 0.3]}},
    ]
    spec = make_spec(
        gate={"choice": gates},
        sweep={"start_with": [{"gate.density": 0.2}, {"gate": {"family": "gaussian"}}]},
    )
    first, second = given(queue_of(spec, storage), "a", "b")
    assert (first.config.gate.family, first.config.gate.density) == ("edge_popup", 0.2)
    assert second.config.gate.family == "gaussian"


def test_a_grid_begins_with_what_is_named(make_spec: MakeSpec, storage: Storage) -> None:
    spec = make_spec(
        weight_scale={"choice": [1.0, 2.0, 3.0]},
        gate={"family": "gaussian", "l0_strength": 1.0},
        sweep={"sampler": "grid", "start_with": [{"weight_scale": 3}], "samples": 3},
    )
    jobs = given(queue_of(spec, storage, places=3), "a", "b", "c")
    assert [job.config.weight_scale for job in jobs] == [3.0, 1.0, 2.0]
