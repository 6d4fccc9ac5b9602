"""Whatever is wrong with the database, the check names exactly the file, and what is lost."""

from __future__ import annotations

import dataclasses
import json
import random
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from ticketsweep.errors import StorageError
from ticketsweep.seeds import replicate_plan
from ticketsweep.store.database import Database
from ticketsweep.store.encoding import encode, is_sealed
from ticketsweep.store.files import put
from ticketsweep.store.paths import Storage, temporary_path
from ticketsweep.store.quarantine import quarantine
from ticketsweep.store.schema import MASKS, SCHEMAS, TrialRows, arrow_table
from ticketsweep.store.verify import Verification, verify
from ticketsweep.store.writer import write_sweep, write_trial

TABLES = ("trials", "replicates", "masks", "curves")


def check(storage: Storage, sweep: str | None = None) -> Verification:
    return verify(storage, sweep, report=lambda done, total: None)


def reasons(found: Verification) -> dict[str, str]:
    damage = [each for loss in found.losses for each in loss.damage]
    return {
        file: " / ".join(each.reason for each in damage if each.file == file)
        for file in dict.fromkeys(each.file for each in damage)
    }


@pytest.fixture
def filled(storage, make_trial) -> Storage:
    for seed, trial in enumerate(("t0", "t1")):
        write_trial(storage, "a", make_trial(trial, seed=seed))
    write_trial(storage, "b", make_trial("t0", status="failed"))
    write_sweep(storage, {"sweep": "a", "samples": 2})
    return storage


def test_a_sound_database_is_sound(filled):
    found = check(filled)
    files = list(filled.local.rglob("*.parquet"))
    assert (found.sound, found.leftovers, found.unsealed) == (True, (), 0)
    assert (found.trials, found.files) == (3, len(files))
    assert found.bytes == sum(path.stat().st_size for path in files)
    assert check(filled, "b").files == 1


def test_a_sweep_that_is_not_there_is_an_error(filled):
    with pytest.raises(StorageError, match=r"no sweep 'c' \(it has a, b\)"):
        check(filled, "c")


@pytest.mark.parametrize("table", [*TABLES, "sweeps"])
def test_a_flip_of_any_byte_is_seen_in_exactly_that_file(filled, table):
    name = "sweep" if table == "sweeps" else "t1"
    path = filled.local / table / f"sweep=a/{name}.parquet"
    whole = path.read_bytes()
    rng = random.Random(table)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    seal = whole.index(b"ticketsweep.digest", footer)
    places = [*range(5), *range(seal - 3, seal + 25, 2), *range(len(whole) - 9, len(whole))]
    places += rng.sample(range(len(whole)), 40) + rng.sample(range(footer, len(whole)), 20)
    for at in places:
        damaged = bytearray(whole)
        damaged[at] ^= rng.choice((0xFF, 1 << rng.randrange(8)))
        path.write_bytes(damaged)
        found = check(filled, "a")
        assert list(reasons(found)) == [f"{table}/sweep=a/{name}.parquet"], at
        assert [loss.trial_id for loss in found.losses] == [None if table == "sweeps" else "t1"]
    path.write_bytes(whole)
    assert check(filled).sound


@pytest.mark.parametrize("table", TABLES)
def test_a_file_cut_off_anywhere_is_seen(filled, table):
    path = filled.local / table / "sweep=a/t1.parquet"
    whole = path.read_bytes()
    for end in (0, 1, 8, 12, len(whole) // 2, len(whole) - 8, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert list(reasons(check(filled))) == [f"{table}/sweep=a/t1.parquet"]


def _rewrite(storage: Storage, table: str, change) -> str:
    """Give t1 of sweep a other rows, in a file that is sound for itself."""
    path = storage.trial_file(table, "a", "t1")
    rows = pq.read_table(path, partitioning=None).to_pylist(maps_as_pydicts="strict")
    changed = change(rows)
    columns = {
        field.name: pa.array(
            [list(v.items()) if isinstance(v := row[field.name], dict) else v for row in changed],
            type=field.type,
        )
        for field in SCHEMAS[table]
    }
    status = changed[0].pop("footer", changed[0]["status"]) if table == "trials" else None
    put(storage, path, encode(table, pa.table(columns, schema=SCHEMAS[table]), status=status))
    return f"{table}/sweep=a/t1.parquet"


def _first(**columns):
    return lambda rows: [{**rows[0], **columns}, *rows[1:]]


def _every(**columns):
    return lambda rows: [{**row, **columns} for row in rows]


PLAN = replicate_plan(0, init=2, data=1, gate=1)
CONFIG = json.dumps({"seed": 0, "replicates": {"init": 2, "data": 1, "gate": 1}})
CONTRADICTIONS = {
    "another trial's rows": ("curves", _every(trial_id="t0"), "lies under trial_id t1"),
    "another sweep's rows": ("masks", _every(sweep="b"), "lies under sweep a"),
    "a replicate twice": ("replicates", lambda rows: [rows[0], rows[0]], "occurs twice"),
    "a mask twice": ("masks", lambda rows: [rows[0], *rows], "occurs twice"),
    "no share": ("replicates", _first(density=1.5), "must be a share"),
    "another status": ("trials", _first(footer="stopped"), "its footer says 'stopped'"),
    "an unknown status": ("trials", _first(status="done"), "must be one of"),
    "two trials' rows": ("trials", lambda rows: [*rows, *rows], "has 2 rows"),
    "flipped bits": ("masks", _first(bits=bytes(78)), "kept is"),
    "another digest": ("masks", _first(digest="00"), "digest is 00"),
    "another size": ("masks", _first(size=5), "size is 5, its bits and shape say 620"),
    "another shape": ("masks", _first(shape=[20, 99]), "78 bytes do not hold"),
    "a negative shape": ("masks", _first(shape=[-20, -31]), "negative"),
    "a null shape": ("masks", _first(shape=None), "shape is null"),
    "a set padding bit": ("masks", _first(bits=b"\xff" * 78), "padding"),
    "wrong sparsity": ("masks", _first(sparsity=0.5), "sparsity is 0.5"),
    "replicates of different steps": (
        "masks",
        lambda rows: [{**row, "step": row["step"] + row["replicate"]} for row in rows],
        "masks of different steps",
    ),
    "fewer layers": ("masks", lambda rows: rows[1:], "different layers"),
    "fewer replicates' masks": ("masks", lambda rows: rows[2:], "replicate 0 has figures, but no"),
    "masks of nobody": ("masks", _first(replicate=7), "replicate 7 has masks, but no figures"),
    "curves of nobody": ("curves", _first(replicate=7), "replicate 7 is not in"),
    "no figures": ("replicates", _first(val_accuracy=None), "neither figures nor diverged"),
    "diverged with figures": (
        "replicates",
        _first(metrics={"diverged_at_step": 3.0}),
        "has diverged, yet has figures",
    ),
    "other seeds": ("trials", _first(config=CONFIG), "has no replicate 0 with the seeds"),
    "fewer seeds": (
        "trials",
        _first(config=CONFIG.replace("2", "3")),
        "has 2 replicates, its config asks for 3",
    ),
    "no configuration": ("trials", _first(config="{"), "does not tell the seeds"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_rows_that_contradict_each_other_are_seen(filled, case):
    table, change, reason = CONTRADICTIONS[case]
    _rewrite(filled, table, change)
    found = check(filled)
    at_fault = "replicates" if "seeds" in case else table
    assert reason in reasons(found)[f"{at_fault}/sweep=a/t1.parquet"]
    assert [(loss.sweep, loss.trial_id) for loss in found.losses] == [("a", "t1")]


def test_a_diverged_replicate_has_seeds_and_no_masks(storage, make_trial):
    rows = make_trial()
    own = [
        {"replicate": r.index, "init_seed": r.init_seed, "data_seed": r.data_seed}
        | {"gate_seed": r.gate_seed, "val_accuracy": 0.5}
        for r in PLAN
    ]
    own[1] |= {"val_accuracy": None, "metrics": {"diverged_at_step": 5.0}}
    masks = [mask for mask in rows.masks if mask.replicate == 0]
    write_trial(storage, "a", TrialRows({**rows.trial, "config": CONFIG}, own, masks, rows.curves))
    assert check(storage).sound


@pytest.mark.parametrize("table", TABLES[1:])
def test_a_missing_file_is_named(filled, table):
    (filled.local / table / "sweep=a/t1.parquet").unlink()
    assert reasons(check(filled)) == {f"{table}/sweep=a/t1.parquet": "is missing"}


def test_what_no_commit_stands_for_is_a_leftover_and_no_damage(filled, make_trial):
    (filled.local / "trials/sweep=a/t1.parquet").unlink()
    write_trial(filled, "c", make_trial())
    path = filled.trial_file("trials", "c", "t0")
    row = {**make_trial(status="failed").trial, "sweep": "c"}
    put(filled, path, encode("trials", arrow_table("trials", [row]), status="failed"))
    temporary = Path(temporary_path(path))
    temporary.write_bytes(b"half")
    found = check(filled)
    assert found.sound
    assert set(found.leftovers) == {
        *(f"{table}/sweep=a/t1.parquet" for table in TABLES[1:]),
        *(f"{table}/sweep=c/t0.parquet" for table in TABLES[1:]),
        f"trials/sweep=c/{temporary.name}",
    }


def _unseal(path: Path) -> bytes:
    """Write the file anew as a version without digests did; what is then its content."""
    table = pq.read_table(path, partitioning=None)
    metadata = dict(table.schema.metadata)
    del metadata[b"ticketsweep.digest"]
    pq.write_table(table.replace_schema_metadata(metadata), path, write_page_checksum=True)
    return path.read_bytes()


@pytest.mark.parametrize("table", TABLES)
def test_files_of_a_version_without_digests_are_counted_and_still_checked(filled, table):
    path = filled.local / table / "sweep=a/t1.parquet"
    whole = _unseal(path)
    found = check(filled)
    assert (found.sound, found.unsealed) == (True, 1)
    truth = getattr(Database(filled), table)()
    for at in range(4, len(whole), 97):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        named = set(reasons(check(filled)))
        assert named <= {f"{table}/sweep=a/t1.parquet"}
        if not named:  # no reader looks at it
            assert getattr(Database(filled), table)().equals(truth)


def test_a_wrong_statistic_of_a_file_without_digest_is_seen(filled):
    path = filled.local / "masks/sweep=a/t1.parquet"
    whole = _unseal(path)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    statistic = pq.read_metadata(path).row_group(0).column(MASKS.names.index("sparsity")).statistics
    for value in (statistic.min, statistic.max):
        at = whole.rindex(struct.pack("<d", value), footer)  # after the deprecated one
        path.write_bytes(whole[: at + 6] + bytes([whole[at + 6] ^ 8]) + whole[at + 7 :])
        reason = reasons(check(filled))["masks/sweep=a/t1.parquet"]
        assert "its footer says that sparsity lies between" in reason


def test_a_name_that_nobody_gives_is_damage(filled):
    path = filled.local / "trials/sweep=a/t1.parquet"
    path.rename(path.with_name("t 1.parquet"))
    found = check(filled)
    assert list(reasons(found)) == ["trials/sweep=a/t 1.parquet"]


def test_quarantine_moves_lost_trials_aside_and_the_rest_is_sound(filled, make_trial):
    path = filled.local / "masks/sweep=a/t1.parquet"
    path.write_bytes(b"damaged")
    (filled.local / "sweeps/sweep=a/sweep.parquet").write_bytes(b"?")
    before = {path.read_bytes() for path in filled.local.rglob("*.parquet")}
    for _ in range(2):
        moved = quarantine(filled, check(filled), label="now")
    assert moved == []
    assert check(filled).sound
    assert {path.read_bytes() for path in filled.local.rglob("*.parquet")} == before
    aside = {
        p.relative_to(filled.local).as_posix() for p in filled.local.glob("quarantine/**/*.p*")
    }
    assert aside == {
        *(f"quarantine/now/{table}/sweep=a/t1.parquet" for table in TABLES),
        "quarantine/now/sweeps/sweep=a/sweep.parquet",
    }
    assert Database(filled).trials("a")["trial_id"].to_pylist() == ["t0"]
    assert Database(filled).warnings == ()
    write_trial(filled, "a", make_trial("t1", seed=1))
    assert check(filled).trials == 3
    path.write_bytes(b"damaged again")
    moved = quarantine(filled, check(filled), label="now")
    assert moved[0] == "quarantine/now-1/trials/sweep=a/t1.parquet"


def test_a_trial_written_anew_since_the_check_is_not_moved(filled, make_trial):
    (filled.local / "trials/sweep=a/t1.parquet").write_bytes(b"damaged")
    found = check(filled)
    write_trial(filled, "a", make_trial("t1", seed=1))
    assert quarantine(filled, found, label="now") == []
    assert check(filled).sound


def test_a_trial_written_anew_during_the_check_is_checked_again(filled, make_trial, monkeypatch):
    (filled.local / "masks/sweep=a/t1.parquet").write_bytes(b"damaged")
    look = Storage.trial_files

    def look_after_writing(storage: Storage, sweep: str, trial_id: str):
        write_trial(filled, "a", make_trial("t1", seed=1))
        return look(storage, sweep, trial_id)

    monkeypatch.setattr(Storage, "trial_files", look_after_writing)
    assert check(filled).sound


def test_any_file_system_will_do(filled):
    inner = pafs.SubTreeFileSystem(filled.local.as_posix(), pafs.LocalFileSystem())
    remote = dataclasses.replace(filled, filesystem=inner, root="", local=None)
    assert check(remote).files == check(filled).files


def test_every_file_that_is_written_has_its_digest(filled):
    for path in filled.local.rglob("*.parquet"):
        assert is_sealed(pa.py_buffer(path.read_bytes()))
        stamp = pq.read_metadata(path).metadata
        assert stamp[b"ticketsweep.digest"] != b"0" * 32
