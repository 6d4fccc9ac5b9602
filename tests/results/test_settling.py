"""A trial with snapshots is what it is without, to everyone who wants its tickets."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from ticketsweep import exchange
from ticketsweep.analysis.layers import ALL_LAYERS
from ticketsweep.config import parse_config
from ticketsweep.display.comparison import comparison_answer, comparison_document
from ticketsweep.planning import identify
from ticketsweep.progress import Progress
from ticketsweep.results.comparison import compare_by, stability_by
from ticketsweep.store.compaction import compact
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import MaskRow, TrialRows, unpack_mask
from ticketsweep.store.verify import verify
from ticketsweep.store.writer import write_trial
from ticketsweep.train.data import load_dataset
from ticketsweep.trial import run_trial

STEPS = [5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60]


@pytest.fixture(scope="module")
def digits():
    torch.set_num_threads(1)
    return load_dataset("digits", data_root=Path())


def small(**changes):
    raw = {
        "model": "fc-16",
        "weight_scale": 1.5,
        "train": {"steps": 60, "batch_size": 64},
        "replicates": {"init": 2, "data": 2, "gate": 1},
    }
    return parse_config(raw | changes, source="test")


def run(config, digits, storage, sweep="s"):
    trial = run_trial(config, dataset=digits, storage=storage, sweep=sweep)
    while True:
        try:
            next(trial)
        except StopIteration as stop:
            return stop.value


def new(folder):
    return Storage.open(str(folder), create=True)


@pytest.fixture(scope="module")
def both(digits, tmp_path_factory):
    """One trial without snapshots and the same one with them, each in a storage of its own."""
    storages = [new(tmp_path_factory.mktemp(name)) for name in ("without", "with")]
    for storage, snapshots in zip(storages, (False, True), strict=True):
        run(small(snapshots=snapshots), digits, storage)
    return storages


def compare(database, keys=(), layer=None):
    said = []
    rows = database.trials().to_pylist()
    found = compare_by(
        database,
        [row for row in rows if row["status"] == "complete"],
        keys=keys,
        layer=layer,
        warn=said.append,
    )
    return found, said


def as_ticket(rows):
    """Rows of masks without those of earlier steps, in one order."""
    last = max(row["step"] for row in rows)
    kept = [row for row in rows if row["step"] == last]
    return sorted(kept, key=lambda row: (row["replicate"], row["layer_index"]))


def test_every_reader_finds_the_ticket_of_a_trial_with_snapshots(digits, both, tmp_path):
    plain, whole = (Database(storage) for storage in both)
    (row,), (other,) = (each.trials().to_pylist() for each in (plain, whole))
    trial = row["trial_id"]
    assert other["trial_id"] == trial == identify(small(snapshots=True), digits)
    # A copy and a compaction have all that the trial has.
    copied = new(tmp_path / "copied")
    run(small(snapshots=True), digits, copied, sweep="first")
    assert run(small(), digits, copied).reused
    compact(copied, "s", report=lambda *_: None)
    for database in (whole, Database(copied)):
        masks = database.masks("s").to_pylist()
        assert sorted({mask["step"] for mask in masks}) == STEPS
        assert len(masks) == len(STEPS) * 2 * 4
        assert as_ticket(masks) == as_ticket(plain.masks("s").to_pylist())
        select = "from tickets where sweep = 's' order by replicate, layer_index"
        assert database.sql(f"select * {select}").equals(
            plain.sql(f"select * {select.replace('tickets', 'masks')}")
        )
        for replicate in range(4):
            one, two = (each.ticket(trial, replicate) for each in (plain, database))
            assert one.keys() == two.keys()
            assert all(np.array_equal(one[layer], two[layer]) for layer in one)
        choices = [exchange.choose(each, trial, replicate=1) for each in (plain, database)]
        exported = [
            exchange.stored_masks(each, choice).prune_masks()
            for each, choice in zip((plain, database), choices, strict=True)
        ]
        assert all(torch.equal(exported[0][name], exported[1][name]) for name in exported[0])
        stable = [
            stability_by(each, each.trials("s").to_pylist(), keys=[], layer=None, warn=pytest.fail)
            for each in (plain, database)
        ]
        assert stable[0] == stable[1]
        assert verify(database.storage, report=lambda *_: None).sound


def test_what_settles_is_what_the_stored_masks_say(both):
    found, said = compare(Database(both[1]))
    assert said == []
    (settling,) = found.settling.groups
    assert (settling.trials, settling.replicates, found.settling.without) == (1, 4, 0)
    assert [point.step for point in settling.points] == STEPS
    masks: dict[int, dict[int, list[np.ndarray]]] = {}
    for row in sorted(Database(both[1]).masks().to_pylist(), key=lambda r: r["layer_index"]):
        flat = unpack_mask(row["bits"], row["shape"]).reshape(-1)
        masks.setdefault(row["step"], {}).setdefault(row["replicate"], []).append(flat)
    whole = {
        step: np.stack([np.concatenate(each[r]) for r in range(4)]) for step, each in masks.items()
    }
    for point, before in zip(settling.points[1:], STEPS, strict=False):
        moved = (whole[point.step] ^ whole[before]).mean(axis=1)
        assert point.change.mean == pytest.approx(moved.mean())
        assert point.change.sd == pytest.approx(moved.std(ddof=1))
    for point in settling.points:
        away = (whole[point.step] ^ whole[60]).mean(axis=1)
        assert point.hamming.mean == pytest.approx(away.mean())
        assert point.density.mean == pytest.approx(whole[point.step].mean())
    last = settling.points[-1]
    assert (last.hamming.mean, last.in_common.mean, last.overlap.mean) == pytest.approx((0, 1, 1))
    assert last.between.value == pytest.approx(found.stability[()].score)
    assert 5 <= settling.settled_at.mean <= 60
    # Of one layer, what moved in all of them is not told.
    one, _ = compare(Database(both[1]), layer="fc2.weight")
    assert {point.change for point in one.settling.groups[0].points} == {None}
    assert one.settling.groups[0].points[-1].hamming.mean == 0


def test_a_trial_that_was_cut_off_has_the_snapshots_that_it_would_have_had(digits, both, tmp_path):
    storage = new(tmp_path / "cut")
    config = small(snapshots=True, checkpoint_seconds=0)
    trial = run_trial(config, dataset=digits, storage=storage, sweep="s")
    seen = 0
    while seen < 7:
        seen += isinstance(next(trial), Progress)
    trial.close()
    run(config, digits, storage)
    first, again = (
        sorted((m["step"], m["replicate"], m["layer"], m["digest"]) for m in each)
        for each in (Database(s).masks("s").to_pylist() for s in (both[1], storage))
    )
    assert first == again
    curves = [Database(each).curves("s")["metrics"].to_pylist() for each in (both[1], storage)]
    assert curves[0] == curves[1]


def test_trials_without_snapshots_are_counted_and_their_ids_are_answered_as_they_are(
    digits, tmp_path
):
    storage = new(tmp_path / "mixed")
    run(small(), digits, storage)
    assert run(small(snapshots=True), digits, storage).reused  # complete: nothing is trained again
    run(small(snapshots=True, seed=1), digits, storage)
    run(small(snapshots=True, gate={"family": "random", "density": 0.3}), digits, storage)
    found, _ = compare(Database(storage), keys=["gate.family"])
    assert found.settling.without == 2
    (settling,) = found.settling.groups
    assert settling.group == ("gaussian",)
    assert {group: of.trials for group, of in found.groups.items()} == {
        ("gaussian",): 2,
        ("random",): 1,
    }
    text = shown(found, Database(storage))
    assert "2 trials of the sweep have no snapshots" in text
    assert "settled at step" in text


def shown(found, database, width=100):
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    console.print(comparison_answer(console, found, trials=database.trials().to_pylist()))
    text = console.file.getvalue()
    assert "nan" not in text.lower()
    document = json.dumps(comparison_document(found), allow_nan=False)
    assert {"groups", "pairs", "seeds", "layers", "settling"} == json.loads(document).keys()
    return text


def store(storage, trial_id, masks, *, seeds, steps=(3, 6), sparsity=0.5, moved=(), **columns):
    """A trial whose masks are given: (step, replicate, gates) of a layer of its own shape.

    `moved` is the change that the curves of the first replicates tell of the last step.
    """
    row = {
        "trial_id": trial_id,
        "status": "complete",
        "model": "fc-4",
        "dataset": "digits",
        "config": json.dumps({"gate": {"family": "gaussian"}}),
        "metrics": {},
        **columns,
    }
    names = ("replicate", "init_seed", "data_seed", "gate_seed")
    figures = {"val_accuracy": 0.9, "strong_accuracy": 0.8, "sparsity": sparsity, "metrics": {}}
    replicates = [
        {**dict(zip(names, (at, *each), strict=True)), **figures} for at, each in enumerate(seeds)
    ]
    rows = [
        MaskRow.from_array(mask, replicate=r, step=step, layer=f"fc{mask.shape[0]}", layer_index=0)
        for step, each in zip(steps, masks, strict=True)
        for r, mask in enumerate(each)
    ]
    curves = [
        {"replicate": r, "step": steps[-1], "metrics": {"mask_change": change}}
        for r, change in enumerate(moved)
    ]
    write_trial(storage, "s", TrialRows(row, replicates, rows, curves))


def test_a_replicate_that_diverged_moves_nothing(storage, database):
    masks = np.random.default_rng(0).random((2, 3, 4, 8)) < 0.5
    store(
        storage, "a0", masks[:, :2], seeds=[(1, 2, 3), (1, 4, 3), (1, 5, 3)], moved=[0.25, 0.75, 9]
    )
    found, _ = compare(database)
    change = found.settling.groups[0].points[-1].change
    assert (change.mean, change.n) == (0.5, 2)


def test_groups_have_the_spread_of_all_their_replicates_and_masks_without_figures_no_nan(
    storage, database
):
    rng = np.random.default_rng(0)
    pair = [(1, 2, 3), (1, 4, 3)]

    def masks(shape, density=0.5, replicates=2):
        return rng.random((2, replicates, *shape)) < density

    for at in range(10):  # a search over a range: no two values are equal
        store(
            storage, f"a{at}", masks((4, 8)), seeds=pair, sparsity=at / 10, l0_strength=1 + at / 7
        )
    store(storage, "b0", masks((5, 9)), seeds=pair, model="fc-5", l0_strength=0.5)
    store(storage, "c0", masks((4, 8), density=-1), seeds=pair, l0_strength=0.4)  # keeps nothing
    store(storage, "d0", masks((4, 8), density=2), seeds=pair, l0_strength=0.3)  # keeps all
    store(storage, "e0", masks((4, 8), replicates=1), seeds=pair[:1], l0_strength=0.2)
    store(storage, "f0", masks((4, 8)), seeds=pair, l0_strength=None)
    write_trial(storage, "s", TrialRows({"trial_id": "ff", "status": "failed", "error": "lost"}))
    found, said = compare(database, keys=["l0_strength"])
    assert any("more than one model" in each for each in said)
    assert [of.trials for of in found.groups.values()] == [4, 3, 3, 4, 1]
    assert list(found.groups)[-1] == (None,)
    third = list(found.groups.values())[2].figures["sparsity"]
    expected = np.repeat([0.3, 0.4, 0.5], 2)
    assert (third.mean, third.sd, third.n) == pytest.approx((0.4, expected.std(ddof=1), 6))
    assert len(found.settling.groups) == 5
    text = shown(found, database)
    assert "0.2 to 0.5" in text
    shown(compare(database)[0], database)
    for trial, what in (
        ("c0", "no ticket of 2 replicates keeps anything"),
        ("d0", "settled at step 3 ±0 of 6"),
        ("e0", "no two replicates with other seeds"),
    ):
        only = [row for row in database.trials().to_pylist() if row["trial_id"] == trial]
        one = compare_by(database, only, keys=["model"], layer=None, warn=pytest.fail)
        assert what in shown(one, database)
        assert "fc-4" in shown(one, database)
    assert ALL_LAYERS not in shown(compare_by(database, [], keys=["model"], layer=None,
                                              warn=pytest.fail), database)  # fmt: skip
