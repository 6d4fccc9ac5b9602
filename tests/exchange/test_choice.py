from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from ticketsweep import exchange
from ticketsweep.errors import ExchangeError, SweepError
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import TrialRows
from ticketsweep.store.writer import write_sweep, write_trial

Store = Callable[..., None]


@pytest.fixture
def store(storage: Storage) -> Store:
    def write(
        trial_id: str,
        validation: list[float | None],
        *,
        sweep: str = "s",
        status: str = "complete",
        **columns: object,
    ) -> None:
        """A trial whose replicates have these accuracies; None for one that diverged."""
        replicates = [
            {"replicate": at, "metrics": {"diverged_at_step": 7.0}}
            if value is None
            else {"replicate": at, "val_accuracy": value, "density": 0.1, "sparsity": value / 2}
            for at, value in enumerate(validation)
        ]
        row = {"trial_id": trial_id, "status": status, "error": "broke", **columns}
        write_trial(storage, sweep, TrialRows(row, replicates if status != "failed" else []))

    return write


def test_the_first_digits_of_an_id_will_do(storage: Storage, store: Store) -> None:
    store("ab12", [0.5])
    store("ab34", [0.5])
    store("cd56", [0.5])
    database = Database(storage)
    assert exchange.choose(database, "c").trial_id == "cd56"
    assert exchange.choose(database, "ab34").trial_id == "ab34"
    with pytest.raises(ExchangeError, match=r"several \(ab12, ab34\): add a digit"):
        exchange.choose(database, "ab")
    with pytest.raises(ExchangeError, match=r"did you mean 'cd56'\?"):
        exchange.choose(database, "cd65")
    for unknown in ("zz", ""):
        with pytest.raises(ExchangeError, match=r"it has ab12, ab34, cd56"):
            exchange.choose(database, unknown)


def test_it_is_the_trial_that_came_furthest_whichever_sweep_stopped_it_early(
    storage: Storage, store: Store
) -> None:
    for sweep, status, steps in [("a", "stopped", 5), ("b", "stopped", 9), ("c", "failed", 0)]:
        store("t", [0.5], sweep=sweep, status=status, steps_done=steps)
    assert exchange.choose(Database(storage), "t").sweep == "b"
    store("t", [0.5], sweep="d", steps_done=20)
    assert exchange.choose(Database(storage), "t").sweep == "d"


def test_without_a_number_it_is_the_replicate_that_is_best_on_validation(storage, store) -> None:
    store("a", [0.5, None, 0.9, 0.9, 0.0])
    database = Database(storage)
    assert exchange.choose(database, "a").index == 2
    assert exchange.choose(database, "a", replicate=4).index == 4


@pytest.mark.parametrize(
    ("replicate", "complaint"),
    [
        (2, r"must be one of 0, 1 of trial a, got 2"),
        (-1, r"must be one of 0, 1 of trial a, got -1"),
        (1, r"diverged at step 7 and has no masks \(there are masks of 0\)"),
    ],
)
def test_a_replicate_without_masks_is_refused(storage, store, replicate, complaint) -> None:
    store("a", [0.5, None])
    with pytest.raises(ExchangeError, match=complaint):
        exchange.choose(Database(storage), "a", replicate=replicate)


def test_a_trial_without_masks_is_refused(storage: Storage, store: Store) -> None:
    store("failed", [], status="failed")
    store("lost", [None, None])
    database = Database(storage)
    with pytest.raises(ExchangeError, match="trial failed failed and has no masks: broke"):
        exchange.choose(database, "f")
    with pytest.raises(ExchangeError, match="has no replicate with masks"):
        exchange.choose(database, "l")


def test_a_trial_that_failed_in_one_sweep_is_taken_from_another(storage, store) -> None:
    store("a", [], sweep="one", status="failed")
    store("a", [0.5], sweep="two")
    assert exchange.choose(Database(storage), "a").trial["sweep"] == "two"


def test_the_best_is_that_of_the_sweeps_first_objective(storage: Storage, store: Store) -> None:
    store("accurate", [0.8, 0.9], val_accuracy=0.85, sparsity=0.5, metrics={"loss": 0.9})
    store("sparse", [0.6, 0.5], val_accuracy=0.55, sparsity=0.9, metrics={"loss": 0.1})
    store("unknown", [0.9], sparsity=0.99)
    database = Database(storage)
    best = exchange.choose_best(database, "s")
    assert (best.trial_id, best.index) == ("accurate", 1)
    sparse = exchange.choose_best(database, "s", min_sparsity=0.7, replicate=1)
    assert (sparse.trial_id, sparse.index) == ("sparse", 1)
    with pytest.raises(ExchangeError, match=r"a sparsity >= 0.999; the sparsest is 0.99"):
        exchange.choose_best(database, "s", min_sparsity=0.999)
    with pytest.raises(SweepError, match=r"no sweep 'ss' .*did you mean 's'"):
        exchange.choose_best(database, "ss")
    row = {"sweep": "s", "created_at": datetime(2026, 1, 1, tzinfo=UTC), "samples": 3, "seed": 0}
    write_sweep(storage, {**row, "objectives": {"loss": "min"}})
    best = exchange.choose_best(Database(storage), "s")
    assert (best.trial_id, best.index) == ("sparse", 0)  # whose replicates have no loss
