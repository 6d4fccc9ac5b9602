"""Damaged and hostile files in a storage: an error in words or an answer without them, always."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ticketsweep.errors import TicketsweepError
from ticketsweep.store.comparisons import ComparedPair, write_comparisons
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import SCHEMAS, arrow_table
from ticketsweep.store.verify import verify
from ticketsweep.store.writer import write_sweep, write_trial

CASES = int(os.environ.get("TICKETSWEEP_FUZZ_CASES", "40"))
TABLES = ("trials", "replicates", "masks", "curves", "sweeps", "comparisons")
MOST_MIB = 1024  # by how much the whole of the fuzzing may make this process grow


class Touch:
    """Unpickling it makes a file."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def _zip() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", bytes(1 << 20))
    return held.getvalue()


FORMATS: dict[str, bytes] = {
    "empty": b"",
    "magic alone": b"PAR1",
    "magic twice": b"PAR1PAR1",
    "magic and a long footer": b"PAR1" + b"\xff\xff\xff\x7f" + b"PAR1",
    "magic and a negative footer": b"PAR1" + b"\xff\xff\xff\xff" + b"PAR1",
    "encrypted": b"PARE" + bytes(64) + struct.pack("<I", 32) + b"PARE",
    "pickle": pickle.dumps(Touch()),
    "pickle in Parquet's clothes": b"PAR1" + pickle.dumps(Touch()) + b"\x08\x00\x00\x00PAR1",
    "zip": _zip(),
    "gzip": zlib.compress(bytes(1 << 20)),
    "json": json.dumps([{"sweep": "a"}] * 100).encode(),
    "arrow": b"ARROW1\x00\x00" + bytes(100) + b"ARROW1",
    "elf": b"\x7fELF" + bytes(1000),
    "safetensors that claims much": struct.pack("<Q", 1 << 62) + b"{}",
}


def _flip(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 1, 4, 32))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _flip_footer(data: bytearray, rng: random.Random) -> None:
    length = int.from_bytes(data[-8:-4], "little")
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[len(data) - 8 - rng.randrange(1, length)] = rng.randrange(256)


def _cut(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 7, 100, len(data)))]


def _grow(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data))
    data[at:at] = rng.randbytes(rng.choice((1, 8, 4096)))


def _lengths(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) - 8)
    claimed = rng.choice((-1, -(1 << 31), (1 << 31) - 1, 1 << 30, 0, 0x7FFFFFFF))
    data[at : at + 4] = struct.pack("<i", claimed) if claimed < 1 << 31 else b"\xff" * 4


def _footer_length(data: bytearray, rng: random.Random) -> None:
    data[-8:-4] = struct.pack("<I", rng.choice((0, 1, len(data), 1 << 31, (1 << 32) - 1)))


def _varints(data: bytearray, rng: random.Random) -> None:
    # Thrift writes lengths and counts so; a run of these is a number near 2^63.
    length = int.from_bytes(data[-8:-4], "little")
    at = len(data) - 8 - rng.randrange(10, max(11, length))
    data[at : at + 9] = b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f"


DAMAGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip, _flip_footer, _flip_footer, _cut, _grow, _lengths, _footer_length, _varints,
)  # fmt: skip


def _ask_everything(storage: Storage) -> None:
    """What may come of each reader: an answer or an error of ours, in one line."""
    database = Database(storage)
    asked: tuple[Callable[[], object], ...] = (
        database.sweeps,
        database.trials,
        database.replicates,
        database.masks,
        database.curves,
        database.comparisons,
        lambda: list(database.mask_batches()),
        lambda: database.ticket("t0"),
        lambda: database.find_complete("t0"),
        lambda: database.sql("select count(*), max(mask_kept(bits)) from masks where sparsity > 0"),
        lambda: database.sql("select * from trials join replicates using (trial_id)"),
        lambda: verify(storage, report=lambda done, of: None),
    )
    for ask in asked:
        with contextlib.suppress(TicketsweepError):
            ask()
    for warning in database.warnings:
        assert "\n" not in warning


@pytest.fixture
def whole(storage, make_trial, tmp_path, monkeypatch) -> dict[Path, bytes]:
    monkeypatch.chdir(tmp_path)
    rows = make_trial(replicates=1)
    write_trial(storage, "a", dataclasses.replace(rows, curves=rows.curves[:2]))
    write_sweep(storage, {"sweep": "a", "samples": 1, "space": "{}", "objectives": {"x": "max"}})
    compared = [ComparedPair(0, 0, "", {"barrier": 0.1})]
    write_comparisons(storage, "a", "t0", "connectivity", compared, settings={"steps": 9})
    return {path: path.read_bytes() for path in storage.local.rglob("*.parquet")}


@pytest.mark.parametrize("seed", range(4))
def test_no_random_damage_ends_in_anything_but_words(storage, whole, tmp_path, seed):
    rng = random.Random(seed)
    paths = sorted(whole)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(CASES // 4):
        path = rng.choice(paths)
        data = bytearray(whole[path])
        rng.choice(DAMAGES)(data, rng)
        path.write_bytes(data)
        _ask_everything(storage)
        path.write_bytes(whole[path])
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown / 1024 < MOST_MIB
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("what", FORMATS)
def test_a_file_of_another_format_is_left_out_and_not_run(storage, whole, tmp_path, what):
    for path in whole:
        path.write_bytes(FORMATS[what])
    _ask_everything(storage)
    assert len(Database(storage).masks()) == 0
    assert not (tmp_path / "executed").exists()


def _stamped(table: str, rows: pa.Table) -> pa.Table:
    stamp = {"ticketsweep.schema_version": "1", "ticketsweep.table": table}
    return rows.replace_schema_metadata(stamp | {"ticketsweep.status": "complete"})


BOMB = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
from ticketsweep.errors import TicketsweepError
from ticketsweep.store.database import open_database
database = open_database(sys.argv[1])
query = "select layer, count(*), max(octet_length(bits)) from masks group by 1"
for ask in (lambda: database.sql(query), lambda: database.sql("select count(*) from trials")):
    try:
        ask()
    except TicketsweepError as error:
        print(str(error)[:200])
# Not `ru_maxrss`: a process begins with its parent's, here that of the tests before this one.
(peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak)
"""


def test_a_small_file_that_claims_endless_rows_does_not_fill_the_memory(storage, whole):
    """Runs of one value take a few bytes: here 5 million rows in some kilobytes."""
    one = arrow_table("masks", [{"sweep": "a", "trial_id": "t0", "layer": "x", "bits": b"\1"}])
    many = pa.concat_tables([one] * 1000).combine_chunks()
    path = Path(storage.trial_file("masks", "a", "t0"))
    with pq.ParquetWriter(path, _stamped("masks", one).schema, compression="zstd") as writer:
        rows = _stamped("masks", pa.concat_tables([many] * 1000).combine_chunks())
        for _ in range(5):
            writer.write_table(rows, row_group_size=1 << 20)
    assert path.stat().st_size < 1 << 20
    line = [sys.executable, "-c", BOMB, storage.uri]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr[-500:]
    assert "Traceback" not in ended.stderr
    assert int(ended.stdout.split()[-1]) < 1 << 20, ended.stdout  # KiB


@pytest.mark.parametrize("size", [1 << 26])
def test_a_value_that_unpacks_to_very_much_does_not_end_the_process(storage, whole, size):
    row = {"sweep": "a", "trial_id": "t0", "layer": "x", "bits": bytes(size), "size": 8 * size}
    rows = _stamped("masks", arrow_table("masks", [row]))
    path = Path(storage.trial_file("masks", "a", "t0"))
    pq.write_table(rows, path, compression="zstd", use_dictionary=False, write_statistics=False)
    assert path.stat().st_size < 1 << 16
    line = [sys.executable, "-c", BOMB, storage.uri]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr[-500:]
    assert int(ended.stdout.split()[-1]) < 2 << 20, ended.stdout  # KiB


def test_every_table_is_fuzzed(whole):
    assert {path.parts[-3] for path in whole} == set(TABLES) == set(SCHEMAS)
