"""Compaction changes where trials lie, and nothing that anybody reads."""

from __future__ import annotations

import dataclasses
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from ticketsweep.errors import StorageError
from ticketsweep.store import compaction
from ticketsweep.store.claims import claimed
from ticketsweep.store.compaction import Compaction, compact
from ticketsweep.store.database import Database
from ticketsweep.store.encoding import encode, encode_part
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import MASKS, SCHEMAS, TRIAL_TABLES, MaskRow, Table, TrialRows
from ticketsweep.store.verify import verify
from ticketsweep.store.writer import copy_trial, write_trial

TABLES = ("trials", "replicates", "masks", "curves")


def merge(storage: Storage, sweep: str = "a") -> Compaction:
    return compact(storage, sweep, report=lambda done, total: None)


def rows_of(database: Database, table: str) -> list[str]:
    return sorted(map(str, getattr(database, table)().to_pylist()))


def everything(storage: Storage) -> dict[str, list[str]]:
    database = Database(storage)
    found = {table: rows_of(database, table) for table in TABLES}
    assert database.warnings == ()
    return found


def is_sound(storage: Storage) -> bool:
    return verify(storage, report=lambda done, total: None).sound


def files(storage: Storage, sweep: str = "a") -> list[str]:
    return [file.shown for table in TRIAL_TABLES for file in storage.files(table, sweep)]


@pytest.fixture
def filled(storage, make_trial) -> Storage:
    for seed in range(5):
        write_trial(storage, "a", make_trial(f"t{seed}", seed=seed))
    write_trial(storage, "a", make_trial("s0", status="stopped", seed=6))
    write_trial(storage, "a", make_trial("f0", status="failed", seed=7))
    write_trial(storage, "b", make_trial("t0", seed=0))
    return storage


def test_every_answer_is_the_same_before_and_after(filled):
    before, reader = everything(filled), Database(filled)
    assert {table: rows_of(reader, table) for table in TABLES} == before
    asked = (
        "select sweep, trial_id, layer, sum(mask_kept(bits)) k from masks group by all order by all"
    )
    answer = reader.sql(asked)
    done = merge(filled)
    assert (done.trials, done.files_before, done.files_after, done.left) == (5, 25, 9, ())
    assert sum("compacted" in path for path in files(filled)) == 4
    assert everything(filled) == before
    assert {table: rows_of(reader, table) for table in TABLES} == before  # one that had listed
    assert reader.sql(asked).equals(answer)
    assert Database(filled).sql(asked).equals(answer)
    batches = [row for batch in Database(filled).mask_batches() for row in batch.to_pylist()]
    assert sorted(map(str, batches)) == before["masks"]
    assert is_sound(filled)


def test_a_compacted_trial_is_found_read_and_copied_like_any_other(filled, make_trial):
    rows = make_trial("t3", seed=3)
    alone = Database(filled).ticket("t3", 1)
    merge(filled)
    database = Database(filled)
    assert database.find_complete("t3") == "a"
    assert database.find_complete("s0") is None
    assert database.find_complete("t9") is None
    assert database.trial("a", "t3")["val_accuracy"] == rows.trial["val_accuracy"]
    assert database.trial("a", "t9") is None
    ticket = database.ticket("t3", 1)
    assert {name: mask.tolist() for name, mask in ticket.items()} == {
        name: mask.tolist() for name, mask in alone.items()
    }
    for table in ("masks", "replicates", "curves"):
        own = getattr(database, table)("a", "t3")
        assert set(own["trial_id"].to_pylist()) == {"t3"}
        assert len(own) == len(getattr(rows, table))
    (batch,) = database.mask_batches(trial="t3")
    assert batch.num_rows == len(rows.masks)
    copy_trial(filled, "t3", "a", "c", search="{}")
    assert database.trial("c", "t3")["search"] == "{}"
    assert is_sound(filled)


def test_a_compacted_trial_is_not_written_again(filled, make_trial):
    merge(filled)
    before = files(filled)
    write_trial(filled, "a", make_trial("t3", status="failed", seed=99))
    write_trial(filled, "a", make_trial("t3", seed=99))
    assert files(filled) == before


def test_new_trials_and_small_parts_are_merged_until_nothing_is_left_to_do(filled, make_trial):
    merge(filled)
    nothing = merge(filled)
    assert (nothing.trials, nothing.files_before) == (0, nothing.files_after)
    write_trial(filled, "a", make_trial("s0", seed=6))
    write_trial(filled, "a", make_trial("t7", seed=8))
    before = everything(filled)
    again = merge(filled)
    assert (again.trials, again.files_after) == (7, 5)
    assert everything(filled) == before
    assert is_sound(filled)


def test_parts_hold_bands_of_sparsity_and_full_ones_are_left_alone(
    storage, make_trial, monkeypatch
):
    monkeypatch.setattr(compaction, "PART_BYTES", 6000)  # two of these trials
    for seed in range(8):
        rows = make_trial(f"t{seed}", seed=seed)
        trial = {**rows.trial, "sparsity": (seed * 5 % 8) / 8}
        write_trial(storage, "a", dataclasses.replace(rows, trial=trial))
    before = everything(storage)
    merge(storage)
    assert everything(storage) == before
    parts = storage.parts("trials", "a")
    assert 2 < len(parts) < 6
    bands = sorted(sorted(pq.read_table(p.path)["sparsity"].to_pylist()) for p in parts)
    assert [value for band in bands for value in band] == sorted(n / 8 for n in range(8))
    assert merge(storage).trials == 0


def test_masks_lie_by_layer_and_trial(filled):
    merge(filled)
    (part,) = filled.parts("masks", "a")
    table = pq.read_table(part.path, partitioning=None).select(["layer", "trial_id", "replicate"])
    keys = [tuple(row.values()) for row in table.to_pylist()]
    assert keys == sorted(keys)
    assert len(keys) == 20


def test_a_trial_that_cannot_be_read_stays_and_is_named(filled):
    path = filled.local / "masks/sweep=a/t1.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (filled.local / "curves/sweep=a/t2.parquet").unlink()
    done = merge(filled)
    assert done.trials == 3
    assert [line.split(":")[0] for line in done.left] == [
        "masks/sweep=a/t1.parquet", "trials/sweep=a/t2.parquet"
    ]  # fmt: skip
    assert path.exists()
    assert Database(filled).find_complete("t3") == "a"


def _stored_as(rows: pa.Table, path: Path, table: Table) -> None:
    status = "complete" if table == "trials" else None
    path.write_bytes(encode(table, rows.cast(SCHEMAS[table]), status=status))


def _without_its_row(folder: Path) -> Path:
    path = folder / "trials/sweep=a/t1.parquet"
    _stored_as(pq.read_table(path, partitioning=None).slice(0, 0), path, "trials")
    return path


def _without_row_groups(folder: Path) -> Path:
    path = folder / "trials/sweep=a/t1.parquet"
    stamp = dict(pq.read_schema(path).metadata)
    del stamp[b"ticketsweep.digest"]
    pq.ParquetWriter(path, SCHEMAS["trials"].with_metadata(stamp)).close()
    return path


def _of_another_trial(folder: Path) -> Path:
    path = folder / "masks/sweep=a/t1.parquet"
    path.write_bytes((folder / "masks/sweep=a/t2.parquet").read_bytes())
    return path


def _without_masks(folder: Path) -> Path:
    path = folder / "masks/sweep=a/t1.parquet"
    _stored_as(pq.read_table(path, partitioning=None).slice(0, 0), path, "masks")
    return path


def _of_an_unknown_replicate(folder: Path) -> Path:
    path = folder / "curves/sweep=a/t1.parquet"
    rows = pq.read_table(path, partitioning=None)
    at = rows.column_names.index("replicate")
    field = rows.schema.field(at)
    other = pa.array([7] * len(rows), field.type)
    _stored_as(rows.set_column(at, field, other), path, "curves")
    return path


@pytest.mark.parametrize(
    "spoil",
    [
        _without_its_row,
        _without_row_groups,
        _of_another_trial,
        _without_masks,
        _of_an_unknown_replicate,
    ],
)
def test_what_verify_finds_before_compaction_it_finds_after(filled, spoil):
    path = spoil(filled.local)
    content = path.read_bytes()

    def losses() -> list[tuple[str | None, tuple[str, ...]]]:
        found = verify(filled, report=lambda done, total: None)
        assert found.parts == ()
        return [(loss.trial_id, tuple(d.reason for d in loss.damage)) for loss in found.losses]

    before = losses()
    assert [trial for trial, _ in before] == ["t1"]
    done = merge(filled)
    assert losses() == before
    (line,) = done.left
    assert line.startswith(path.relative_to(filled.local).as_posix())
    assert (done.trials, path.read_bytes()) == (4, content)


@pytest.mark.parametrize("table", TRIAL_TABLES)
def test_originals_outlive_a_compaction_whose_part_is_damaged(filled, table):
    originals = {
        file.path: Path(file.path).read_bytes()
        for each in TRIAL_TABLES
        for file in filled.files(each, "a")
    }
    merge(filled)
    for path, content in originals.items():  # as if it had been killed before it deleted them
        Path(path).write_bytes(content)
    (part,) = filled.parts(table, "a")
    whole = Path(part.path).read_bytes()
    group = pq.read_metadata(part.path).row_group(0)
    last = group.column(group.num_columns - 1)  # what it commits is told in another column
    spoilt = bytearray(whole)
    spoilt[
        (last.dictionary_page_offset or last.data_page_offset) + last.total_compressed_size - 1
    ] ^= 1
    Path(part.path).write_bytes(spoilt)
    done = merge(filled)
    assert {path: Path(path).read_bytes() for path in originals} == originals
    (line,) = done.left
    assert line.startswith(f"{part.shown}: ")
    assert not is_sound(filled)
    Path(part.path).write_bytes(whole)
    assert merge(filled).left == ()
    kept = ("s0.parquet", "f0.parquet")
    assert {path for path in originals if not path.endswith(kept)}.isdisjoint(
        file.path for each in TRIAL_TABLES for file in filled.files(each, "a")
    )
    assert is_sound(filled)


def test_two_compactions_of_a_sweep_do_not_meet(filled):
    with claimed(filled, "a", "compaction", waiting=print):
        before = files(filled)
        with pytest.raises(StorageError, match="is being compacted by process"):
            merge(filled)
        assert files(filled) == before
    with claimed(filled, "a", "run", waiting=print):
        assert merge(filled).trials == 5
        assert len(filled.claims("a")) == 1
    assert filled.claims("a") == []


def test_a_sweep_that_is_not_there_is_an_error(filled):
    with pytest.raises(StorageError, match=r"no trials of a sweep 'c' \(it has a, b\)"):
        merge(filled, "c")


def test_a_part_of_a_newer_version_is_refused_with_the_remedy(filled):
    merge(filled)
    (part,) = filled.parts("masks", "a")
    table = pq.read_table(part.path, partitioning=None)
    stamp = {**table.schema.metadata, b"ticketsweep.schema_version": b"999"}
    pq.write_table(table.replace_schema_metadata(stamp), part.path)
    database = Database(filled)
    assert len(database.masks("a")) == 4  # of the stopped trial
    assert "upgrade with `pip install --upgrade ticketsweep`" in database.warnings[0]
    assert database.find_complete("t1") is None


def test_an_older_part_without_digest_is_read(filled):
    before = everything(filled)
    merge(filled)
    for table in TRIAL_TABLES:
        (part,) = filled.parts(table, "a")
        rows = pq.read_table(part.path, partitioning=None)
        stamp = dict(rows.schema.metadata)
        del stamp[b"ticketsweep.digest"]
        pq.write_table(rows.replace_schema_metadata(stamp), part.path, write_page_checksum=True)
    assert everything(filled) == before
    found = verify(filled, report=lambda done, total: None)
    assert (found.sound, found.unsealed) == (True, 4)


def test_packing_stops_when_it_is_cancelled():
    with pytest.raises(CancelledError):
        encode_part("masks", MASKS.empty_table(), [], cancelled=lambda: True)


@pytest.fixture(scope="module")
def sparse(tmp_path_factory, make_trial) -> tuple[Storage, int]:
    """Larger masks, from dense to sparse, compacted into several parts; and the bits' bytes."""
    storage = Storage.open(str(tmp_path_factory.mktemp("sparse")), create=True)
    layers = (("fc1", (1000, 1600)), ("fc2", (400, 1000)), ("fc3", (10, 100)))
    rng = np.random.default_rng(0)
    for number in range(12):
        density = 0.5 - 0.04 * number
        masks = [
            MaskRow.from_array(
                rng.random(shape) < density, replicate=0, step=1, layer=layer, layer_index=index
            )
            for index, (layer, shape) in enumerate(layers)
        ]
        rows = make_trial(f"t{number * 5 % 12}", replicates=1)
        trial = {**rows.trial, "trial_id": f"t{number * 5 % 12}", "sparsity": 1 - density}
        write_trial(storage, "a", TrialRows(trial, rows.replicates, masks, rows.curves))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "PART_BYTES", 1 << 20)
        patch.setattr("ticketsweep.store.encoding._MOST_OF_PART", 1 << 19)
        compact(storage, "a", report=lambda done, total: None)
    assert len(storage.parts("masks", "a")) > 2
    return storage, sum(mask.size // 8 for mask in masks) * 12


QUERIES = {
    "no bits": ("select trial_id, kept from masks where layer = 'fc1' and sparsity > 0.8", False),
    "bits": ("select bits from masks where layer = 'fc1' and sparsity > 0.8", True),
    "bound": ("select bits from masks where sparsity >= $s and layer = $l", True),
}


@pytest.mark.parametrize("how", QUERIES)
def test_a_query_reads_the_row_groups_that_match_and_footers(sparse, counting, how):
    storage, _ = sparse
    wrapped = dataclasses.replace(storage, filesystem=pafs.PyFileSystem(counting))
    query, wants_bits = QUERIES[how]
    bound = {"s": "0.8", "l": "fc1"} if how == "bound" else None
    Database(wrapped).sql(query, bound)
    at = MASKS.names.index("bits")
    matching = footers = of_bits = 0
    places = []
    for file in storage.parts("masks", "a"):
        metadata = pq.read_metadata(file.path)
        footers += max(1 << 16, metadata.serialized_size)
        for index in range(metadata.num_row_groups):
            group = metadata.row_group(index)
            column = group.column(at)
            start = column.data_page_offset
            places.append((file.path, start, start + column.total_compressed_size))
            layer, sparsity = (
                group.column(MASKS.names.index(n)).statistics for n in ("layer", "sparsity")
            )
            if layer.min <= "fc1" <= layer.max and sparsity.max > 0.8:
                matching += sum(group.column(i).total_compressed_size
                                for i in range(group.num_columns))  # fmt: skip
                of_bits += column.total_compressed_size
    sizes = {file.path: file.size for file in storage.parts("masks", "a")}
    reads = [read for read in counting.reads if read.path in sizes]
    total = sum(read.stop - read.start for read in reads)
    assert total <= 1.1 * (matching if wants_bits else matching - of_bits) + footers
    beside = sum(
        max(0, min(read.stop, stop) - max(read.start, start))
        for read in reads
        if not (read.stop == sizes[read.path] and read.stop - read.start <= 1 << 16)
        for path, start, stop in places
        if path == read.path
    )
    assert beside == 0 if not wants_bits else beside >= 0.9 * of_bits


def test_sparse_masks_are_packed_near_their_entropy(sparse):
    storage, bits = sparse
    packed = sum(file.size for file in storage.parts("masks", "a"))
    densities = [0.5 - 0.04 * number for number in range(12)]
    entropy = sum(-d * pc.log2(d).as_py() - (1 - d) * pc.log2(1 - d).as_py() for d in densities)
    assert packed <= 1.05 * bits * entropy / 12


def test_any_file_system_will_do(filled):
    before = everything(filled)
    for table in TRIAL_TABLES:
        (filled.local / table / "sweep=a/compacted").mkdir()  # object stores have no folders
    (filled.local / "claims/sweep=a").mkdir(parents=True)
    inner = pafs.SubTreeFileSystem(filled.local.as_posix(), pafs.LocalFileSystem())
    remote = dataclasses.replace(filled, filesystem=inner, root="", local=None)
    assert merge(remote).trials == 5
    assert everything(filled) == before


def test_batches_go_on_over_parts_that_are_merged_meanwhile(filled, make_trial):
    merge(filled)
    write_trial(filled, "a", make_trial("t7", seed=8))
    before = everything(filled)["masks"]
    reader = Database(filled)
    batches = reader.mask_batches()
    got = next(batches).to_pylist()  # files of single trials come first
    merge(filled)
    for batch in batches:
        got += batch.to_pylist()
    assert sorted(map(str, got)) == before
    assert reader.warnings == ()


def test_schemas_of_parts_are_those_of_single_files(filled):
    merge(filled)
    for table in TRIAL_TABLES:
        (part,) = filled.parts(table, "a")
        assert pq.read_schema(part.path).remove_metadata().equals(pa.schema(SCHEMAS[table]))
