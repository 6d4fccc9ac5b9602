"""A damaged file is named and left out of every answer; the rest of the database still answers."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ticketsweep.errors import StorageError
from ticketsweep.store.database import Database
from ticketsweep.store.schema import SCHEMAS
from ticketsweep.store.writer import copy_trial, write_trial

TABLES = ("trials", "replicates", "masks", "curves")


def _stamped(path: Path, **stamp: str) -> None:
    table = pq.read_table(path, partitioning=None)
    known = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    renamed = {f"ticketsweep.{key}": value for key, value in stamp.items()}
    pq.write_table(table.replace_schema_metadata({**known, **renamed}), path)


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def _end_of_column(path: Path, index: int) -> int:
    column = pq.read_metadata(path).row_group(0).column(index)
    start = column.dictionary_page_offset or column.data_page_offset
    return start + column.total_compressed_size - 1


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "file size is 0 bytes"),
    "garbage": (lambda path: path.write_bytes(b"not parquet" * 99), "magic bytes not found"),
    "tail cut off": (lambda path: path.write_bytes(path.read_bytes()[:-60]), "magic bytes"),
    "head only": (lambda path: path.write_bytes(path.read_bytes()[:99]), "magic bytes"),
    "footer": (lambda path: _flip(path, path.stat().st_size - 20), "."),
    "page header": (lambda path: _flip(path, 4), "."),
    "page": (lambda path: _flip(path, _end_of_column(path, 6)), "CRC checksum"),
    "newer schema": (
        lambda path: _stamped(path, schema_version="2"),
        r"newer ticketsweep \(schema version 2, this one reads up to 1\): upgrade with `pip",
    ),
    "no stamp": (
        lambda path: pq.write_table(pq.read_table(path, partitioning=None).select([0, 1]), path),
        "not those of the table|not a file of the table",
    ),
    "another table": (
        lambda path: path.write_bytes(
            Path(str(path).replace(path.parts[-3], "curves" if "masks" in str(path) else "masks"))
            .read_bytes()
        ),
        "not a file of the table",
    ),
    "other columns": (
        lambda path: pq.write_table(
            (table := pq.read_table(path, partitioning=None)).append_column(
                "more", pa.nulls(len(table), pa.int64())
            ),
            path,
        ),
        "its columns are not those",
    ),
}  # fmt: skip


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_skipped_everywhere(storage, make_trial, table, damage):
    for trial in ("t0", "t1"):
        write_trial(storage, "a", make_trial(trial))
    spoil, reason = DAMAGES[damage]
    spoil(storage.local / table / "sweep=a/t0.parquet")
    seen = {}
    for how in ("table", "sql"):
        database = Database(storage)
        rows = getattr(database, table)() if how == "table" else database.sql(f"from {table}")
        assert set(rows["trial_id"].to_pylist()) == {"t1"}
        (warning,) = database.warnings
        assert warning.startswith(f"skipped {table}/sweep=a/t0.parquet: ")
        assert re.search(reason, warning), warning
        assert "\n" not in warning
        seen[how] = warning
    assert seen["table"] == seen["sql"]


def test_rows_of_a_trial_whose_commit_is_unreadable_are_not_shown(storage, database, make_trial):
    write_trial(storage, "a", make_trial())
    (storage.local / "trials/sweep=a/t0.parquet").write_bytes(b"")
    assert len(database.masks()) == 0
    assert "trials/sweep=a/t0.parquet" in database.warnings[0]


def test_a_damaged_trial_does_not_answer_for_its_id_and_is_written_anew(storage, make_trial):
    write_trial(storage, "a", make_trial())
    write_trial(storage, "b", make_trial())
    for table in TABLES:
        database = Database(storage)
        (storage.local / table / "sweep=a/t0.parquet").write_bytes(b"damaged")
        assert database.find_complete("t0") == "b"
        with pytest.raises(StorageError, match="no whole trial"):
            copy_trial(storage, "t0", "a", "c", search=None)
        assert getattr(database, table)("a").num_rows == 0
        assert len(database.warnings) == 1
        write_trial(storage, "a", make_trial())
        assert getattr(database, table)("a").num_rows > 0
        assert (database.find_complete("t0"), database.warnings) == ("a", ())


def test_a_damaged_sweep_row_is_named(storage, database):
    folder = storage.local / "sweeps/sweep=a"
    folder.mkdir()
    (folder / "sweep.parquet").write_bytes(b"?")
    assert database.sql("select count(*) c from sweeps")["c"].to_pylist() == [0]
    assert database.warnings[0].startswith("skipped sweeps/sweep=a/sweep.parquet: ")


@pytest.mark.parametrize("seed", range(3))
def test_no_random_damage_is_silent_or_fatal(storage, make_trial, seed):
    rng = random.Random(seed)
    write_trial(storage, "a", make_trial())
    truth = {table: getattr(Database(storage), table)() for table in TABLES}
    for _ in range(60):
        table = rng.choice(TABLES)
        path = storage.local / table / "sweep=a/t0.parquet"
        whole = path.read_bytes()
        data = bytearray(whole)
        at = rng.randrange(len(data))
        if rng.random() < 0.3:
            del data[at : at + rng.choice((1, 7, 10**6))]
        else:
            data[at] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        database = Database(storage)
        rows = getattr(database, table)()
        assert rows.equals(SCHEMAS[table].empty_table() if database.warnings else truth[table])
        path.write_bytes(whole)
