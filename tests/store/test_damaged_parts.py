"""A damaged part is named, what is lost by it is known, and what is sound of it is saved."""

from __future__ import annotations

import json
import random

import numpy as np
import pyarrow.parquet as pq
import pytest

from ticketsweep.errors import StorageError
from ticketsweep.store import encoding
from ticketsweep.store.compaction import compact
from ticketsweep.store.database import Database
from ticketsweep.store.encoding import encode_part
from ticketsweep.store.files import put
from ticketsweep.store.paths import Storage
from ticketsweep.store.quarantine import quarantine
from ticketsweep.store.schema import SCHEMAS, TRIAL_TABLES, MaskRow, TrialRows
from ticketsweep.store.verify import Verification, verify
from ticketsweep.store.writer import copy_trial, write_trial

TRIALS = [f"t{number}" for number in range(6)]


def check(storage: Storage) -> Verification:
    return verify(storage, report=lambda done, total: None)


@pytest.fixture
def compacted(storage, make_trial, monkeypatch) -> Storage:
    monkeypatch.setattr(encoding, "_MOST_OF_PART", 200)  # two masks or so a row group
    monkeypatch.setattr(encoding, "_ENOUGH_OF_PART", 100)
    monkeypatch.setattr(encoding, "_MOST_WITHOUT_BITS", 300)
    for seed, trial in enumerate(TRIALS):
        write_trial(storage, "a", make_trial(trial, seed=seed))
    compact(storage, "a", report=lambda done, total: None)
    return storage


def test_a_sound_part_is_checked_and_sound(compacted):
    found = check(compacted)
    assert (found.sound, found.trials, found.files, found.leftovers) == (True, 6, 4, ())


@pytest.mark.parametrize("table", TRIAL_TABLES)
def test_a_flip_of_any_byte_is_seen_and_all_that_is_sound_is_saved(compacted, table):
    (part,) = compacted.parts(table, "a")
    path = compacted.local / part.shown
    whole = path.read_bytes()
    rng = random.Random(table)
    lost_once = set()
    for at in [2, len(whole) - 2, *rng.sample(range(4, len(whole)), 8)]:
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        found = check(compacted)
        (bad,) = found.parts
        assert not found.losses
        assert {each.file for each in bad.damage} >= {part.shown}
        assert bad.lost | bad.sound <= set(TRIALS)
        assert not bad.lost & bad.sound
        lost_once.add(len(bad.lost))
        path.write_bytes(whole)
    assert check(compacted).sound
    assert min(lost_once) < len(TRIALS)


def test_quarantine_saves_the_sound_trials_and_the_lost_ones_can_be_trained_anew(
    compacted, make_trial
):
    (part,) = compacted.parts("masks", "a")
    group = pq.read_metadata(part.path).row_group(3)
    at = group.column(SCHEMAS["masks"].names.index("bits")).data_page_offset + 40
    path = compacted.local / part.shown
    damaged = bytearray(path.read_bytes())
    damaged[at] ^= 1
    path.write_bytes(damaged)
    (bad,) = check(compacted).parts
    assert 0 < len(bad.lost) < 4
    found = check(compacted)
    moved = quarantine(compacted, found, label="now")
    assert sorted(moved) == sorted(
        f"quarantine/now/{table}/sweep=a/compacted/{part.name}.parquet" for table in TRIAL_TABLES
    )
    assert (compacted.local / f"quarantine/now/{part.shown}").read_bytes() == bytes(damaged)
    assert check(compacted).sound
    database = Database(compacted)
    assert set(database.trials()["trial_id"].to_pylist()) == bad.sound
    for trial in bad.lost:
        assert database.find_complete(trial) is None
        write_trial(compacted, "a", make_trial(trial, seed=int(trial[1:])))
    for seed, trial in enumerate(TRIALS):
        expected = [mask.digest for mask in make_trial(trial, seed=seed).masks]
        stored = database.masks("a", trial)
        assert sorted(stored["digest"].to_pylist()) == sorted(expected)
    assert quarantine(compacted, found, label="later") == []  # it has gone since


def test_a_part_of_which_nothing_can_be_read_is_moved_aside_whole(compacted):
    (part,) = compacted.parts("trials", "a")
    (compacted.local / part.shown).write_bytes(b"damaged")
    reader = Database(compacted)
    assert len(reader.trials()) == 0
    assert len(reader.warnings) == 1
    found = check(compacted)
    assert (found.parts[0].sound, found.parts[0].lost) == (frozenset(), set(TRIALS))
    assert len(quarantine(compacted, found, label="now")) == 4
    assert check(compacted).sound
    with pytest.raises(StorageError, match="no whole trial"):
        copy_trial(compacted, "t0", "a", "b", search=None)


def _rewritten(storage: Storage, table: str, change) -> None:
    """Give the part other rows, in a file that is sound for itself."""
    (part,) = storage.parts(table, "a")
    rows = change(pq.read_table(part.path, partitioning=None))
    whole = rows.replace_schema_metadata(None).cast(SCHEMAS[table])
    put(storage, part.path, encode_part(table, whole, [], cancelled=lambda: False))


CONTRADICTIONS = {
    "masks": (lambda rows: rows.slice(1), "t0", "different layers"),
    "replicates": (lambda rows: rows.slice(0, len(rows) - 1), "t5", "replicate"),
    "curves": (
        lambda rows: rows.set_column(
            2, "replicate", [np.where(np.arange(len(rows)) == 0, 9, rows["replicate"])]
        ),
        "t0",
        "not in the table replicates",
    ),
    "trials": (
        lambda rows: rows.set_column(2, "status", [["failed", *["complete"] * 5]]),
        "t0",
        "only complete ones are compacted",
    ),
}


@pytest.mark.parametrize("table", CONTRADICTIONS)
def test_rows_of_one_trial_that_contradict_each_other_lose_that_trial_alone(compacted, table):
    change, trial, reason = CONTRADICTIONS[table]
    _rewritten(compacted, table, change)
    (bad,) = check(compacted).parts
    assert bad.lost == {trial}
    assert any(reason in each.reason for each in bad.damage), bad.damage
    assert len(bad.sound) == 5


def test_wrong_bits_of_one_mask_lose_that_trial_alone(compacted):
    def flip(rows):
        bits = rows["bits"].to_pylist()
        bits[0] = bytes([bits[0][0] ^ 1]) + bits[0][1:]
        return rows.set_column(SCHEMAS["masks"].names.index("bits"), "bits", [bits])

    _rewritten(compacted, "masks", flip)
    (bad,) = check(compacted).parts
    assert bad.lost == {"t0"}


def test_what_a_killed_compaction_left_is_no_damage(compacted, make_trial, tmp_path):
    (compacted.local / "masks/sweep=a/compacted/0123456789abcdef.parquet").write_bytes(b"half")
    other = Storage.open(str(tmp_path / "other"), create=True)
    write_trial(other, "a", make_trial("t0", seed=0))
    for table in TRIAL_TABLES:  # its own files, not deleted yet
        own = other.local / table / "sweep=a/t0.parquet"
        own.rename(compacted.local / table / "sweep=a/t0.parquet")
    found = check(compacted)
    assert (found.sound, found.trials, len(found.leftovers)) == (True, 6, 5)
    assert len(Database(compacted).masks()) == 24
    compact(compacted, "a", report=lambda done, total: None)
    assert check(compacted).leftovers == ()


def test_diverged_replicates_and_trials_without_curves_are_compacted_soundly(storage, make_trial):
    rows = make_trial("t0")
    own = [rows.replicates[0], {"replicate": 1, "metrics": {"diverged_at_step": 3.0}}]
    masks = [mask for mask in rows.masks if mask.replicate == 0]
    curves = [{"replicate": 1, "step": 0, "loss": float("nan")}]
    write_trial(storage, "a", TrialRows(rows.trial, own, masks, curves))
    empty = MaskRow.from_array(np.zeros((0,), bool), replicate=0, step=1, layer="x", layer_index=0)
    write_trial(storage, "a", TrialRows(make_trial("t1").trial, own[:1], [empty], ()))
    assert compact(storage, "a", report=lambda done, total: None).trials == 2
    assert check(storage).sound
    trials = Database(storage).trials().to_pylist(maps_as_pydicts="strict")
    assert json.dumps([row["status"] for row in trials]) == '["complete", "complete"]'
