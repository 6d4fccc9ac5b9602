"""The index of a sweep's outlines: it changes what reading costs, and never what is read."""

from __future__ import annotations

import dataclasses
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ticketsweep.errors import StorageError
from ticketsweep.store import outlines, publication
from ticketsweep.store.compaction import compact
from ticketsweep.store.database import Database
from ticketsweep.store.deletion import delete_sweep, delete_trials
from ticketsweep.store.footers import Footers
from ticketsweep.store.live import live_runs
from ticketsweep.store.outlines import indexing
from ticketsweep.store.paths import Storage, StoredFile
from ticketsweep.store.schema import TRIALS, TrialRows
from ticketsweep.store.verify import verify
from ticketsweep.store.writer import write_trial

Make = Callable[..., TrialRows]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlines, "FEWEST", 2)
    monkeypatch.setattr(outlines, "_SETTLED", 0.0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The trials whose footers have been read."""
    found: list[str] = []
    of_footers = Footers.row

    def noted(self: Footers, file: StoredFile, columns: Any) -> Any:
        found.append(file.name)
        return of_footers(self, file, columns)

    monkeypatch.setattr(Footers, "row", noted)
    return found


def index(storage: Storage, sweep: str = "a") -> Path:
    """Make the sweep's index, as a run of it does at its end."""
    with indexing(storage, sweep):
        pass
    return Path(storage.live_folder(sweep)) / "outlines.parquet"


def rows_of(storage: Storage, sweep: str | None = "a") -> list[str]:
    """As text, since NaN is not NaN."""
    return [
        repr({name: row[name] for name in TRIALS.names})
        for row in Database(storage).outlines(sweep, columns=TRIALS.names)
    ]


def whole(storage: Storage, sweep: str | None = "a") -> list[str]:
    """The rows themselves."""
    return [
        repr({name: row[name] for name in TRIALS.names})
        for row in Database(storage).trials(sweep).to_pylist()
    ]


def test_rows_come_from_the_index_as_they_are_and_no_footer_is_read(
    storage: Storage, make_trial: Make, read: list[str]
) -> None:
    for seed in range(4):
        write_trial(storage, "a", make_trial(f"t{seed}", seed=seed))
    odd = make_trial("odd")
    metrics = {"nan": math.nan, "inf": -math.inf, "one": 1.0}
    row = {**odd.trial, "metrics": metrics, "config": "x" * 9000, "density": math.nan}
    write_trial(storage, "a", dataclasses.replace(odd, trial=row))
    write_trial(storage, "a", make_trial("failed", status="failed"))
    write_trial(storage, "b", make_trial("t0"))
    before = rows_of(storage, None)
    index(storage)
    read.clear()
    assert rows_of(storage, None) == before == whole(storage, None)
    assert sorted(read) == ["odd", "t0"]  # too long for a footer, and of a sweep without index
    assert [row["status"] for row in Database(storage).outlines("a", columns=["status"])] == [
        each["status"] for each in Database(storage).trials("a").to_pylist()
    ]


def test_what_was_written_anew_since_is_read_anew(
    storage: Storage, make_trial: Make, read: list[str]
) -> None:
    for seed in range(4):
        write_trial(storage, "a", make_trial(f"t{seed}", status="failed", seed=seed))
    file = index(storage)
    first = file.read_bytes()
    write_trial(storage, "a", make_trial("t1", seed=9))
    write_trial(storage, "a", make_trial("t5", seed=5))
    read.clear()
    assert rows_of(storage) == whole(storage)
    assert sorted(read) == ["t1", "t5"]
    index(storage)
    assert file.read_bytes() != first
    read.clear()
    assert rows_of(storage) == whole(storage)
    assert read == []


def test_what_is_compacted_or_deleted_is_not_told_by_the_index(
    storage: Storage, make_trial: Make, read: list[str]
) -> None:
    for seed in range(6):
        write_trial(storage, "a", make_trial(f"t{seed}", seed=seed))
    for seed in range(3):  # which no compaction takes
        write_trial(storage, "a", make_trial(f"f{seed}", status="failed", seed=seed))
    index(storage)
    delete_trials(storage, "a", ["t2"], report=lambda *_: None)
    read.clear()
    assert rows_of(storage) == whole(storage)
    assert len(whole(storage)) == 8
    compact(storage, "a", report=lambda *_: None)
    assert rows_of(storage) == whole(storage)
    assert read == []
    write_trial(storage, "a", make_trial("t2", seed=3))
    assert rows_of(storage) == whole(storage)
    assert read == ["t2"]
    index(storage)
    assert len(whole(storage)) == 9
    assert rows_of(storage) == whole(storage)
    assert live_runs(storage, "a") == []
    assert verify(storage, report=lambda *_: None).sound
    delete_sweep(storage, "a", report=lambda *_: None)
    assert not Path(storage.live_folder("a")).exists()


def test_a_damaged_index_is_none(storage: Storage, make_trial: Make) -> None:
    for seed in range(3):
        write_trial(storage, "a", make_trial(f"t{seed}", seed=seed))
    file = index(storage)
    sound, expected = file.read_bytes(), whole(storage)
    for at in range(0, len(sound), 97):
        file.write_bytes(sound[:at] + bytes([sound[at] ^ 4]) + sound[at + 1 :])
        assert rows_of(storage) == expected, at
    file.write_bytes(sound[: len(sound) // 2])
    assert rows_of(storage) == expected


def test_a_file_that_may_be_written_again_within_its_second_is_left_out(
    storage: Storage, make_trial: Make, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlines, "_SETTLED", 10.0)
    for seed in range(3):
        write_trial(storage, "a", make_trial(f"t{seed}", seed=seed))
    assert not index(storage).exists()
    assert read == []


def test_a_run_that_goes_on_keeps_it_up_to_date(
    storage: Storage, make_trial: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlines, "_EVERY", 0.05)
    monkeypatch.setattr(outlines, "_SHARE", 0)
    file = Path(storage.live_folder("a")) / "outlines.parquet"
    with indexing(storage, "a"):
        for seed in range(3):
            write_trial(storage, "a", make_trial(f"t{seed}", seed=seed))
        until = time.monotonic() + 20
        while not file.exists():
            assert time.monotonic() < until
            time.sleep(0.02)
    assert rows_of(storage) == whole(storage)


def test_the_next_run_goes_on_with_the_index_of_the_last(
    storage: Storage, make_trial: Make, read: list[str]
) -> None:
    for seed in range(3):
        write_trial(storage, "a", make_trial(f"t{seed}", seed=seed))
    file = index(storage)
    written = file.stat().st_mtime_ns
    read.clear()
    index(storage)
    assert read == []
    assert file.stat().st_mtime_ns == written
    write_trial(storage, "a", make_trial("t3", seed=3))
    index(storage)
    assert read == ["t3"]
    assert rows_of(storage) == whole(storage)


def test_an_index_that_could_not_be_written_is_written_later(
    storage: Storage, make_trial: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outlines, "_EVERY", 0.05)
    monkeypatch.setattr(outlines, "_SHARE", 0)
    for seed in range(3):
        write_trial(storage, "a", make_trial(f"t{seed}", seed=seed))
    tried = threading.Event()

    def refuse(*_: object, **__: object) -> None:
        tried.set()
        raise StorageError("the disk is full")

    file = Path(storage.live_folder("a")) / "outlines.parquet"
    with indexing(storage, "a"):
        with monkeypatch.context() as patch:
            patch.setattr(publication, "put", refuse)
            assert tried.wait(20)
        until = time.monotonic() + 20
        while not file.exists():
            assert time.monotonic() < until
            time.sleep(0.02)


SLOW = """
import sys, time
from ticketsweep.errors import StorageError
from ticketsweep.store import outlines, publication
from ticketsweep.store.footers import Footers
from ticketsweep.store.paths import Storage

outlines.FEWEST, outlines._SETTLED, outlines._CLOSING = 2, 0.0, 1.0
Footers.row = lambda *_: time.sleep(60)
with outlines.indexing(Storage.open(sys.argv[1], create=False), "a"):
    began = time.monotonic()
print(time.monotonic() - began < 30)
"""


def test_a_storage_that_hangs_does_not_hold_up_the_end(storage: Storage, make_trial: Make) -> None:
    for seed in range(3):
        write_trial(storage, "a", make_trial(f"t{seed}", seed=seed))
    done = subprocess.run(
        [sys.executable, "-c", SLOW, storage.place], capture_output=True, text=True, timeout=50
    )
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)


def test_damage_since_it_was_indexed_is_seen_by_those_who_ask_for_the_files(
    storage: Storage, make_trial: Make
) -> None:
    for seed in range(3):
        write_trial(storage, "a", make_trial(f"t{seed}", seed=seed))
    index(storage)
    file = Path(storage.trial_file("trials", "a", "t1"))
    content, times = file.read_bytes(), file.stat()
    file.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    database = Database(storage)
    assert len(database.outlines("a", columns=["status"])) == 3
    found = database.outlines("a", columns=TRIALS.names, indexed=False)
    assert [row["trial_id"] for row in found] == ["t0", "t2"]
    assert "t1" in database.warnings[0]
