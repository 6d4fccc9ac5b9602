"""Stored comparisons averaged: trials count alike, and kinds and seeds are kept apart."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from ticketsweep.analysis.intervals import jackknife_interval
from ticketsweep.results.function import (
    CONNECTIVITY,
    PREDICTIONS,
    TRANSFER,
    function_records,
    stored_function,
)
from ticketsweep.store.comparisons import ComparedPair, write_comparisons
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import MaskRow, TrialRows
from ticketsweep.store.writer import write_trial


@pytest.fixture
def storage(tmp_path) -> Storage:
    """Two trials of one sweep, with a mask each."""
    storage = Storage.open(str(tmp_path / "storage"), create=True)
    for trial, rewind in (("t0", 0), ("t1", 100)):
        row = {"trial_id": trial, "status": "complete", "rewind_step": rewind, "config": "{}"}
        masks = [MaskRow(0, 1, "fc1", 0, (8,), b"\xff")]
        write_trial(storage, "s", TrialRows(row, [{"replicate": 0}], masks, []))
    return storage


def store(storage: Storage, trial: str, kind: str, *pairs: tuple[Any, ...]) -> None:
    found = [ComparedPair(a, b, differs, figures) for a, b, differs, figures in pairs]
    write_comparisons(storage, "s", trial, kind, found, settings={"pairs": len(pairs)})


def summary(storage: Storage, *keys: str):
    database = Database(storage)
    return stored_function(database, database.trials("s").to_pylist(), keys=keys)


def test_a_mean_is_over_trials_and_a_range_over_pairs(storage) -> None:
    store(storage, "t0", PREDICTIONS, (0, 1, "data", {"agreement": 0.2}))
    store(
        storage,
        "t1",
        PREDICTIONS,
        (0, 1, "data", {"agreement": 0.6}),
        (0, 2, "data", {"agreement": 0.8}),
        (1, 2, "init", {}),
    )
    data, init = summary(storage)
    agreement = data.figures["agreement"]
    assert (agreement.mean, agreement.least, agreement.most) == pytest.approx((0.45, 0.2, 0.8))
    assert (data.differs, data.pairs, data.trials, data.without) == ("data", 3, 2, 0)
    assert (init.differs, init.figures, init.without) == ("init", {}, 1)
    assert [each["pairs"] for each in data.settings] == [1, 3]
    (record,) = function_records([data, init], keys=[])
    assert json.loads(json.dumps(record))["measure"] == "agreement"
    assert [row.group for row in summary(storage, "rewind_step")] == [(0,), (100,), (100,)]


def test_what_else_differs_is_of_no_concern_to_a_transferred_mask(storage) -> None:
    store(
        storage,
        "t0",
        TRANSFER,
        (0, 1, "init", {"accuracy": 0.1}),
        (1, 0, "init+data", {"accuracy": 0.3}),
    )
    (row,) = summary(storage)
    assert (row.differs, row.pairs, row.figures["accuracy"].mean) == ("init", 2, 0.2)


def test_barriers_below_two_per_cent_are_stable(storage) -> None:
    store(
        storage,
        "t0",
        CONNECTIVITY,
        (0, 0, "", {"test_barrier": 0.019}),
        (1, 1, "", {"test_barrier": 0.02}),
        (0, 1, "data", {"test_barrier": 0.0}),
    )
    own, other = summary(storage)
    assert (own.differs, own.figures["stable"].mean) == ("", 0.5)
    assert (other.differs, other.figures["stable"].mean) == ("data", 1)


@pytest.mark.parametrize("inits", [2, 3, 5])
def test_an_interval_is_over_seeds_and_from_three_of_them_on(storage, inits: int) -> None:
    row = {"trial_id": "t2", "status": "complete", "config": "{}"}
    replicates = [
        {"replicate": n, "init_seed": n, "data_seed": 0, "gate_seed": 0} for n in range(inits)
    ]
    write_trial(storage, "s", TrialRows(row, replicates, [], []))
    pairs = [(a, b) for a in range(inits) for b in range(a)]
    figures = [{"equal": 0.5, "agreement": 0.1 * a} for a, _ in pairs]
    store(
        storage,
        "t2",
        PREDICTIONS,
        *((a, b, "init", own) for (a, b), own in zip(pairs, figures, strict=True)),
    )
    (found,) = summary(storage)
    equal, agreement = found.figures["equal"], found.figures["agreement"]
    if inits < 3:
        assert (equal.low, agreement.high) == (None, None)
        return
    assert (equal.low, equal.high) == pytest.approx((0.5, 0.5))
    ends = np.array([[[a, b], [0, 0], [0, 0]] for a, b in pairs])
    wanted = jackknife_interval(
        np.array([each["agreement"] for each in figures]),
        np.full(len(pairs), 1 / len(pairs)),
        np.zeros(len(pairs), dtype=np.int64),
        ends,
    )
    assert (agreement.low, agreement.high) == pytest.approx((wanted.low, wanted.high))


def test_without_comparisons_there_is_nothing_to_say(storage) -> None:
    assert summary(storage) == []
    assert stored_function(Database(storage), [], keys=[]) == []
