"""What Python code asks of the database, and what is read from the storage for it."""

from __future__ import annotations

import dataclasses
import doctest
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

import ticketsweep.store
from ticketsweep.errors import QueryError, StorageError
from ticketsweep.store.database import Database
from ticketsweep.store.encoding import encode
from ticketsweep.store.files import UnreadableFile, put
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import MASKS, MaskRow, TrialRows
from ticketsweep.store.writer import write_trial

FOOTER = 1 << 16  # what pyarrow reads at a file's end to find its footer, in one request
LARGE = (("fc1.weight", (1500, 4000)), ("fc2.weight", (1000, 4000)), ("fc3.weight", (10, 1000)))


class Page(NamedTuple):
    path: str
    start: int
    stop: int


def test_the_examples_are_true(tmp_path, monkeypatch, make_trial):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TICKETSWEEP_STORAGE", raising=False)
    write_trial(Storage.open("ticketsweep-storage", create=True), "mine", make_trial())
    assert doctest.testmod(ticketsweep.store).failed == 0


def test_masks_are_those_that_were_asked_for(storage, database, make_trial):
    for seed, (sweep, trial) in enumerate([("a", "t0"), ("a", "t1"), ("b", "t1")]):
        write_trial(storage, sweep, make_trial(trial, seed=seed, replicates=3))
    everything = database.masks().to_pylist()
    questions = {
        "sweep": ({"sweep": "a"}, lambda row: row["sweep"] == "a"),
        "trial": ({"trial": "t1"}, lambda row: row["trial_id"] == "t1"),
        "layer": ({"layer": "fc2"}, lambda row: row["layer"] == "fc2"),
        "where": ({"where": pc.field("sparsity") > 0.7}, lambda row: row["sparsity"] > 0.7),
        "all": (
            {"sweep": "a", "trial": "t1", "layer": "fc1", "where": pc.field("replicate") != 0},
            lambda r: (
                (r["sweep"], r["trial_id"], r["layer"]) == ("a", "t1", "fc1") and r["replicate"]
            ),
        ),
        "none": ({"sweep": "c"}, lambda row: False),
    }
    for asked, belongs in questions.values():
        rows = database.masks(**asked)
        assert rows.schema == MASKS
        assert rows.to_pylist() == [row for row in everything if belongs(row)]
        batches = list(database.mask_batches(**asked))
        assert pa.Table.from_batches(batches, MASKS).equals(rows)
        some = database.masks(**asked, columns=["kept", "layer"])
        assert some.equals(rows.select(["kept", "layer"]))


def test_a_column_or_condition_that_makes_no_sense_is_refused(database):
    with pytest.raises(QueryError, match=r"no column 'keep' \(did you mean 'kept'\?\)"):
        database.masks(columns=["keep"])
    with pytest.raises(QueryError, match="where is not a condition on masks"):
        next(database.mask_batches(where=pc.field("sparse") > 0.5))


def test_a_ticket_is_the_masks_in_the_shapes_of_their_layers(storage, database, make_trial):
    rows = make_trial(replicates=3)
    write_trial(storage, "b", rows)
    for replicate in range(3):
        ticket = database.ticket("t0", replicate)
        own = {mask.layer: mask for mask in rows.masks if mask.replicate == replicate}
        assert list(ticket) == ["fc1", "fc2"]
        for layer, mask in ticket.items():
            assert mask.dtype == np.bool_
            np.testing.assert_array_equal(mask, own[layer].to_array())


def test_a_ticket_is_the_last_step_s(storage, database, make_trial):
    rows = make_trial(replicates=1)
    early = [dataclasses.replace(mask, step=5, bits=bytes(len(mask.bits))) for mask in rows.masks]
    write_trial(storage, "a", dataclasses.replace(rows, masks=[*rows.masks, *early]))
    assert sum(mask.sum() for mask in database.ticket("t0").values()) > 0


def test_a_ticket_is_of_the_sweep_that_is_meant_or_else_of_the_one_that_came_furthest(
    storage, database, make_trial
):
    rows = make_trial(replicates=1)
    early = [
        MaskRow.from_array(
            np.zeros(mask.shape, np.bool_),
            replicate=0,
            step=5,
            layer=mask.layer,
            layer_index=mask.layer_index,
        )
        for mask in rows.masks
    ]
    stopped = dataclasses.replace(make_trial(replicates=1, status="stopped"), masks=early)
    write_trial(storage, "a", stopped)
    write_trial(storage, "b", rows)

    def kept(sweep: str | None) -> int:
        return int(sum(mask.sum() for mask in database.ticket("t0", sweep=sweep).values()))

    assert kept("a") == 0
    assert kept(None) == kept("b") > 0
    with pytest.raises(StorageError, match=r"t0 \(sweep c has none of it\)"):
        database.ticket("t0", sweep="c")


def test_a_ticket_that_is_not_there_is_named_with_those_that_are(storage, database, make_trial):
    write_trial(storage, "a", make_trial())
    with pytest.raises(StorageError, match=r"replicate 7 of trial t0 .*replicates \[0, 1\]"):
        database.ticket("t0", 7)
    with pytest.raises(StorageError, match="no sweep has masks of it"):
        database.ticket("t1")


def test_a_ticket_with_a_wrong_digest_is_refused(storage, database, make_trial):
    write_trial(storage, "a", make_trial())
    path = storage.trial_file("masks", "a", "t0")
    rows = pq.read_table(path, partitioning=None)
    wrong = pa.array(["00"] * len(rows))
    at = rows.schema.get_field_index("digest")
    put(storage, path, encode("masks", rows.set_column(at, "digest", wrong).cast(MASKS)))
    with pytest.raises(UnreadableFile, match="masks verify"):
        database.ticket("t0")


def test_batches_go_on_over_what_is_replaced_or_damaged_meanwhile(storage, database, make_trial):
    for trial in ("t0", "t1", "t2"):
        write_trial(storage, "a", make_trial(trial, status="stopped"))
    batches = database.mask_batches()
    assert set(next(batches)["trial_id"].to_pylist()) == {"t0"}
    write_trial(storage, "a", make_trial("t1", seed=5))
    (storage.local / "masks/sweep=a/t2.parquet").write_bytes(b"damaged")
    (rest,) = batches
    expected = [mask.digest for mask in make_trial("t1", seed=5).masks]
    assert rest["digest"].to_pylist() == expected
    assert len(database.warnings) == 1


@pytest.fixture
def large(storage, make_trial, counting) -> tuple[Database, Any]:
    """Two sweeps of two trials, with masks far larger than what is read beside a footer."""
    rng = np.random.default_rng(0)
    for sweep in ("a", "b"):
        for index in range(2):
            masks = [
                MaskRow.from_array(
                    rng.random(shape) < 0.1 + 0.2 * index,
                    replicate=replicate, step=10, layer=layer, layer_index=i,
                )
                for i, (layer, shape) in enumerate(LARGE)
                for replicate in range(2)
            ]  # fmt: skip
            rows = make_trial(f"t{index}")
            trial = TrialRows(rows.trial, rows.replicates, masks, rows.curves)
            write_trial(storage, sweep, trial)
    wrapped = dataclasses.replace(storage, filesystem=pafs.PyFileSystem(counting))
    return Database(wrapped), counting


def _bits(storage: Storage, belongs: Callable[[dict[str, object]], bool] = bool) -> list[Page]:
    """Where in the masks' files the bits lie: of the row groups with a row that belongs."""
    found = []
    for file in storage.files("masks"):
        parquet = pq.ParquetFile(file.path)
        for index in range(parquet.num_row_groups):
            keys = ["sweep", "trial_id", "layer", "sparsity"]
            if any(map(belongs, parquet.read_row_group(index, columns=keys).to_pylist())):
                column = parquet.metadata.row_group(index).column(MASKS.names.index("bits"))
                assert column.path_in_schema == "bits"
                start = column.data_page_offset
                found.append(Page(file.path, start, start + column.total_compressed_size))
    return found


def _read_of(reads: Sequence[Any], pages: list[Page], sizes: dict[str, int]) -> int:
    """Bytes of the pages that were read other than along with a footer."""
    total = 0
    for read in reads:
        if read.stop == sizes[read.path] and read.stop - read.start <= FOOTER:
            continue
        for page in pages:
            if page.path == read.path:
                total += max(0, min(read.stop, page.stop) - max(read.start, page.start))
    return total


NO_BITS: dict[str, Callable[[Database], pa.Table]] = {
    "columns": lambda database: database.masks(columns=["layer", "sparsity"]),
    "where": lambda d: d.masks(where=pc.field("sparsity") > 0.8, columns=["layer"]),
    "count": lambda database: database.sql("select count(*) from masks"),
    "sql": lambda d: d.sql("select layer, avg(kept) from masks where sparsity > 0.8 group by 1"),
    "nothing matches": lambda database: database.masks(where=pc.field("sparsity") > 0.99),
    "nothing matches in sql": lambda d: d.sql("select * from masks where sparsity < 0.01"),
    "nothing is above": lambda d: d.sql("select * from masks where sparsity > 0.99"),
    "no such layer": lambda d: d.masks(layer="fc9.weight"),
    "no such sweep": lambda d: d.sql("select * from masks where sweep = 'c'"),
    "other tables": lambda d: d.sql("select * from trials join replicates using (trial_id)"),
}


@pytest.mark.parametrize("how", NO_BITS)
def test_no_bits_are_read_unless_they_are_selected(large, how):
    database, counting = large
    NO_BITS[how](database)
    sizes = {file.path: file.size for t in ("masks", "trials", "replicates")
             for file in database.storage.files(t)}  # fmt: skip
    assert _read_of(counting.reads, _bits(database.storage), sizes) == 0


MATCHING: dict[str, tuple[Callable[[Database], pa.Table], Callable[[dict[str, object]], bool]]] = {
    "sweep": (lambda d: d.masks("a"), lambda row: row["sweep"] == "a"),
    "trial": (lambda d: d.masks(trial="t1"), lambda row: row["trial_id"] == "t1"),
    "layer": (lambda d: d.masks(layer="fc2.weight"), lambda row: row["layer"] == "fc2.weight"),
    "sparsity": (
        lambda d: d.masks(where=pc.field("sparsity") > 0.8),
        lambda row: row["sparsity"] > 0.8,
    ),
    "sql": (
        lambda d: d.sql("select bits from masks where sweep = 'a' and layer = 'fc1.weight'"),
        lambda row: (row["sweep"], row["layer"]) == ("a", "fc1.weight"),
    ),
    "sql of a trial": (
        lambda d: d.sql("select bits from masks where trial_id = 't1' and sparsity < 0.8"),
        lambda row: row["trial_id"] == "t1",
    ),
    "sql of sparse masks": (
        lambda d: d.sql("select bits from masks where sparsity > $s and sweep = 'a'", {"s": "0.8"}),
        lambda row: row["sparsity"] > 0.8 and row["sweep"] == "a",
    ),
    "batches": (
        lambda d: list(d.mask_batches("b", layer="fc2.weight")),
        lambda row: (row["sweep"], row["layer"]) == ("b", "fc2.weight"),
    ),
    "ticket": (
        lambda d: d.ticket("t0"),
        lambda row: (row["sweep"], row["trial_id"]) == ("a", "t0"),
    ),
}


@pytest.mark.parametrize("how", MATCHING)
def test_only_row_groups_that_match_are_read(large, how):
    database, counting = large
    ask, belongs = MATCHING[how]
    ask(database)
    sizes = {file.path: file.size for file in database.storage.files("masks")}
    reads = [read for read in counting.reads if read.path in sizes]
    wanted = sum(page.stop - page.start for page in _bits(database.storage, belongs))
    assert wanted <= _read_of(reads, _bits(database.storage), sizes) <= 1.1 * wanted
