"""Comparisons stand beside a trial: merged kind by kind, seen while it is there, lost alone."""

from __future__ import annotations

import json

import pytest

from ticketsweep.store.compaction import compact
from ticketsweep.store.comparisons import ComparedPair, write_comparisons
from ticketsweep.store.database import Database
from ticketsweep.store.paths import temporary_path
from ticketsweep.store.quarantine import quarantine
from ticketsweep.store.verify import verify
from ticketsweep.store.writer import copy_trial, remove_leftovers, write_sweep, write_trial

ROWS = [ComparedPair(0, 1, "data", {"agreement": 0.75}), ComparedPair(1, 0, "data", {"share": 1.0})]


def check(storage):
    return verify(storage, report=lambda done, total: None)


@pytest.fixture
def filled(storage, make_trial):
    write_trial(storage, "a", make_trial("t0"))
    write_trial(storage, "b", make_trial("t1", status="failed"))
    write_sweep(storage, {"sweep": "a", "samples": 1})
    for sweep, trial in (("a", "t0"), ("b", "t1"), ("b", "t2")):
        write_comparisons(storage, sweep, trial, "form", ROWS, settings={"draws": 3})
    return storage


def stored(storage) -> list[dict]:
    return Database(storage).comparisons().to_pylist(maps_as_pydicts="strict")


def test_comparisons_are_seen_while_their_trial_is_there(filled, make_trial):
    assert [(r["sweep"], r["trial_id"], r["first"]) for r in stored(filled)] == [
        ("a", "t0", 0),
        ("a", "t0", 1),
    ]
    write_trial(filled, "b", make_trial("t2"))
    assert len(Database(filled).comparisons("b", "t2")) == 2
    query = "select avg(measures['form.agreement']) x from comparisons where trial_id = 't0'"
    assert Database(filled).sql(query)["x"].to_pylist() == [0.75]
    copy_trial(filled, "t0", "a", "c", search=None)
    assert len(Database(filled).comparisons("c")) == 0


def test_a_kind_replaces_itself_and_leaves_the_others(filled):
    write_comparisons(filled, "a", "t0", "function", ROWS[:1], settings={})
    write_comparisons(filled, "a", "t0", "form", [ComparedPair(1, 1, "", {"x": 2})], settings={})
    assert [(r["first"], r["second"], r["measures"]) for r in stored(filled)] == [
        (0, 1, {"function.agreement": 0.75}),
        (1, 1, {"form.x": 2.0}),
    ]
    assert [json.loads(r["settings"]) for r in stored(filled)] == [{"function": {}}, {"form": {}}]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_not_stored(filled, value):
    with pytest.raises(ValueError, match="finite"):
        write_comparisons(
            filled, "a", "t0", "k", [ComparedPair(0, 0, "", {"x": value})], settings={}
        )
    with pytest.raises(ValueError, match="twice"):
        write_comparisons(filled, "a", "t0", "k", [ROWS[0]] * 2, settings={})
    assert len(stored(filled)) == 2


def test_compaction_leaves_comparisons_alone(filled):
    before = stored(filled)
    path = filled.local / "comparisons/sweep=a/t0.parquet"
    content = path.read_bytes()
    compact(filled, "a", report=lambda done, total: None)
    assert (stored(filled), path.read_bytes()) == (before, content)
    assert check(filled).sound


def test_damaged_comparisons_are_lost_alone(filled):
    found = check(filled)
    assert found.sound
    assert found.leftovers == ("comparisons/sweep=b/t2.parquet",)
    path = filled.local / "comparisons/sweep=a/t0.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    found = check(filled)
    (loss,) = found.losses
    assert (loss.is_of_trial, [each.file for each in loss.damage]) == (
        False,
        ["comparisons/sweep=a/t0.parquet"],
    )
    assert len(quarantine(filled, found, label="now")) == 1
    assert check(filled).sound
    assert len(Database(filled).masks("a")) == 4
    write_comparisons(filled, "a", "t0", "form", ROWS, settings={})
    assert len(stored(filled)) == 2


def test_damaged_comparisons_are_replaced(filled):
    path = filled.local / "comparisons/sweep=a/t0.parquet"
    path.write_bytes(path.read_bytes()[:100])
    database = Database(filled)
    assert len(database.comparisons()) == 0
    assert len(database.warnings) == 1
    write_comparisons(filled, "a", "t0", "form", ROWS, settings={})
    assert len(stored(filled)) == 2


def test_what_a_killed_writer_leaves_is_not_seen_and_removed(filled, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("os.getpid", lambda: 2**22 + 1)
        path = temporary_path(filled.trial_file("comparisons", "a", "t0"))
    filled.local.joinpath(path).write_bytes(b"half")
    assert len(stored(filled)) == 2
    assert remove_leftovers(filled, "a") == 1
