from __future__ import annotations

import numpy as np
import pytest

from ticketsweep.errors import StorageError
from ticketsweep.store.checkpoints import CheckpointFile
from ticketsweep.store.database import open_database
from ticketsweep.store.schema import SCHEMAS, unpack_mask
from ticketsweep.store.writer import copy_trial, write_sweep, write_trial


def test_what_was_written_is_read(storage, database, make_trial):
    rows = make_trial(seed=3)
    write_trial(storage, "a", rows)
    trial = database.trials().to_pylist(maps_as_pydicts="strict")[0]
    assert {key: trial[key] for key in rows.trial} == dict(rows.trial)
    assert trial["sweep"] == "a"
    replicates = database.replicates().to_pylist(maps_as_pydicts="strict")
    assert [row["metrics"] for row in replicates] == [row["metrics"] for row in rows.replicates]
    for stored, row in zip(database.masks().to_pylist(), rows.masks, strict=True):
        assert {key: stored[key] for key in row.row()} == row.row()
        np.testing.assert_array_equal(unpack_mask(stored["bits"], stored["shape"]), row.to_array())
    assert len(database.curves()) == len(rows.curves)
    assert database.warnings == ()


def test_an_empty_database_answers_with_typed_empty_tables(database):
    for table, schema in SCHEMAS.items():
        answer = database.sql(f"select * from {table}")
        assert (len(answer), answer.column_names) == (0, schema.names)
        assert getattr(database, table)().schema == schema
    assert database.find_complete("t0") is None


def test_a_table_is_read_by_sweep_trial_and_layer(storage, database, make_trial):
    for seed, (sweep, trial) in enumerate([("a", "t0"), ("a", "t1"), ("b", "t1")]):
        write_trial(storage, sweep, make_trial(trial, seed=seed))
    assert database.trials("a")["trial_id"].to_pylist() == ["t0", "t1"]
    assert len(database.replicates(trial="t1")) == 4
    one = database.masks("b", "t1", "fc2")
    assert set(one["layer"].to_pylist()) == {"fc2"}
    assert set(one["sweep"].to_pylist()) == {"b"}
    assert len(database.masks("c")) == 0


def test_one_trial_is_read_as_plain_values(storage, database, make_trial):
    assert database.trial("a", "t0") is None
    write_trial(storage, "a", make_trial(seed=5))
    row = database.trial("a", "t0")
    assert (row["sweep"], row["trial_id"], row["metrics"]) == ("a", "t0", [("seed", 5.0)])
    assert database.trial("b", "t0") is None


def test_trials_come_in_the_order_of_their_start(storage, database, make_trial):
    for trial, seed in [("a", 3), ("b", 1), ("c", 2)]:
        write_trial(storage, "s", make_trial(trial, seed=seed))
    assert database.trials()["trial_id"].to_pylist() == ["b", "c", "a"]


def test_only_a_complete_and_whole_trial_is_found(storage, database, make_trial):
    write_trial(storage, "a", make_trial(status="failed"))
    write_trial(storage, "b", make_trial(status="stopped"))
    assert database.find_complete("t0") is None
    write_trial(storage, "c", make_trial())
    assert database.find_complete("t0") == "c"
    storage.local.joinpath("masks/sweep=c/t0.parquet").unlink()
    assert database.find_complete("t0") is None


def test_a_copied_trial_is_the_same_trial_under_another_sweep(storage, database, make_trial):
    write_trial(storage, "a", make_trial(seed=4))
    copy_trial(storage, "t0", "a", "b", search='{"number": 7}')
    for table in ("trials", "replicates", "masks", "curves"):
        read = getattr(database, table)
        drop = ["sweep", "search"] if table == "trials" else ["sweep"]
        assert read("b").drop_columns(drop).equals(read("a").drop_columns(drop))
        assert set(read("b")["sweep"].to_pylist()) == {"b"}
    assert database.trials("b")["search"].to_pylist() == ['{"number": 7}']
    assert database.trials("a")["search"].to_pylist() == [None]


def test_a_trial_that_is_not_there_cannot_be_copied(storage):
    with pytest.raises(StorageError, match="no whole trial t0"):
        copy_trial(storage, "t0", "a", "b", search=None)


def test_a_sweep_row_is_replaced_by_a_later_one(storage, database):
    for samples in (4, 8):
        write_sweep(storage, {"sweep": "a", "objectives": {"val": "max"}, "samples": samples})
    row = database.sweeps().to_pylist(maps_as_pydicts="strict")[0]
    assert (row["samples"], row["objectives"]) == (8, {"val": "max"})


def test_a_reader_sees_what_is_written_after_it_was_opened(storage, make_trial):
    database = open_database(storage.uri)
    assert len(database.trials()) == 0
    write_trial(storage, "a", make_trial(status="failed"))
    assert database.sql("select status from trials")["status"].to_pylist() == ["failed"]
    write_trial(storage, "a", make_trial())
    assert database.sql("select status from trials")["status"].to_pylist() == ["complete"]


def test_a_local_storage_that_is_away_is_no_empty_one(storage, database, make_trial):
    write_trial(storage, "a", make_trial("t0"))
    checkpoint = CheckpointFile(storage, "t0")
    assert checkpoint.read() is None
    storage.local.rename(storage.local.with_name("away"))
    for read in (database.trials, lambda: database.find_complete("t0"), checkpoint.read):
        with pytest.raises(StorageError, match="is away: its folders are not there"):
            read()
    storage.local.with_name("away").rename(storage.local)
    assert database.find_complete("t0") == "a"


def test_a_checkpoint_that_cannot_be_read_is_not_taken_for_none(storage):
    (storage.local / "checkpoints" / "t0.safetensors").mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot read"):
        CheckpointFile(storage, "t0").read()
