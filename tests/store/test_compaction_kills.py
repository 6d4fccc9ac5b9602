"""Whoever dies compacting, and whoever reads or writes meanwhile: no trial is lost or double."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from ticketsweep.errors import StorageError
from ticketsweep.store.compaction import compact
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import TRIAL_TABLES
from ticketsweep.store.verify import verify
from ticketsweep.store.writer import write_trial

HERE = Path(__file__).parent
SCRIPT = str(HERE / "killed_compaction.py")
TABLES = ("trials", "replicates", "masks", "curves")


def everything(storage: Storage) -> dict[str, list[str]]:
    database = Database(storage)
    found = {t: sorted(map(str, getattr(database, t)().to_pylist())) for t in TABLES}
    assert database.warnings == ()
    return found


def merge(storage: Storage) -> None:
    compact(storage, "a", report=lambda done, total: None)


def finish_and_check(storage: Storage, truth: dict[str, list[str]]) -> None:
    """The next compaction leaves the same rows, in as few files as if nobody had been killed."""
    merge(storage)
    assert everything(storage) == truth
    found = verify(storage, report=lambda done, total: None)
    assert (found.sound, found.leftovers) == (True, ())
    assert {len(storage.files(table, "a")) for table in TRIAL_TABLES} == {2}  # a part, and s0


def test_a_compaction_killed_at_any_file_operation_leaves_every_trial_once(tmp_path):
    subprocess.run([sys.executable, SCRIPT, str(tmp_path)], check=True, timeout=200)
    folders = [path for path in tmp_path.iterdir() if path.name.isdigit()]
    assert len(folders) > 20
    truth = everything(Storage.open(str(tmp_path / "before"), create=False))
    assert len(truth["trials"]) == 3
    for folder in folders:
        storage = Storage.open(str(folder), create=False)
        assert everything(storage) == truth
        assert verify(storage, report=lambda done, total: None).sound
    for folder in folders[::5]:
        finish_and_check(Storage.open(str(folder), create=False), truth)


class Dying(Exception):
    """Not an error that the product knows."""


class Store(pafs.FileSystemHandler):
    """An object store on a disk, of which every operation fails from a certain one on.

    What is written appears when it is whole. `once` makes only that one operation fail, with an
    error as a disk or a network has them.
    """

    def __init__(self, *, fails_at: int | None = None, once: bool = False) -> None:
        super().__init__()
        self.inner = pafs.LocalFileSystem()
        self.operations = 0
        self._fails_at, self._once = fails_at, once

    def pass_on(self) -> None:
        at = self.operations
        self.operations += 1
        if self._fails_at is not None and at >= self._fails_at:
            if not self._once:
                raise Dying
            if at == self._fails_at:
                raise OSError(5, "Input/output error")

    def get_type_name(self):
        return "store"

    def normalize_path(self, path):
        return path

    def get_file_info(self, paths):
        self.pass_on()
        return self.inner.get_file_info(paths)

    def get_file_info_selector(self, selector):
        self.pass_on()
        return self.inner.get_file_info(selector)

    def open_input_file(self, path):
        self.pass_on()
        return self.inner.open_input_file(path)

    def open_input_stream(self, path):
        return self.open_input_file(path)

    def open_output_stream(self, path, metadata):
        self.pass_on()
        store = self

        class Upload(io.BytesIO):
            def close(self) -> None:
                if not self.closed:
                    store.pass_on()
                    Path(path).parent.mkdir(parents=True, exist_ok=True)
                    Path(path).write_bytes(self.getvalue())
                super().close()

        return pa.PythonFile(Upload(), mode="w")

    def delete_file(self, path):
        self.pass_on()
        self.inner.delete_file(path)

    def create_dir(self, path, recursive):
        pass

    def delete_dir(self, path):
        raise NotImplementedError

    delete_dir_contents = delete_root_dir_contents = delete_dir
    move = copy_file = open_append_stream = delete_dir


@pytest.fixture
def filled(storage, make_trial) -> Storage:
    for seed in range(2):
        write_trial(storage, "a", make_trial(f"t{seed}", seed=seed))
    merge(storage)
    write_trial(storage, "a", make_trial("t2", seed=2))
    write_trial(storage, "a", make_trial("s0", status="stopped", seed=4))
    return storage


def _on(storage: Storage, store: Store) -> Storage:
    return dataclasses.replace(storage, filesystem=pafs.PyFileSystem(store), local=None)


def _copy(storage: Storage, name: str) -> Storage:
    """An equal storage, whose files are links to the same content."""
    root = storage.local.with_name(name)
    for path in storage.local.rglob("*.parquet"):
        target = root / path.relative_to(storage.local)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(path)
    return Storage.open(str(root), create=False)


def _bury(storage: Storage) -> None:
    """Have the claims to compact be those of a process that is no more, not of this one."""
    for claim in map(Path, storage.claims("a")):
        claim.write_text(json.dumps(json.loads(claim.read_text()) | {"pid": 4194304}))


@pytest.mark.parametrize("once", [False, True], ids=["dies", "errs"])
def test_on_an_object_store_too_that_fails_at_any_operation(filled, once):
    truth = everything(filled)
    counting = Store()
    merge(_on(_copy(filled, "whole"), counting))
    assert counting.operations > 40
    for point in range(0, counting.operations, 3 if once else 2):
        copy = _copy(filled, f"copy{point}")
        with contextlib.suppress(Dying, StorageError):
            merge(_on(copy, Store(fails_at=point, once=once)))
        assert everything(copy) == truth, point
        if point % 8 == 0:
            _bury(copy)
            finish_and_check(copy, truth)


def test_writers_readers_and_compactions_that_are_killed_at_random_do_not_hurt_each_other(
    tmp_path, make_trial
):
    uri = str(tmp_path / "storage")
    Storage.open(uri, create=True)
    database = Database(Storage.open(uri, create=False))
    rng = random.Random(0)
    query = """select trial_id, any_value(status) status, count(m.bits) masks, count(*) n
               from trials t left join masks m using (trial_id) group by 1"""
    seen: set[str] = set()
    merged = 0
    writer = [sys.executable, str(HERE / "endless_writer.py"), uri]
    compactor = [sys.executable, SCRIPT, "endless", uri]
    with subprocess.Popen(writer, stdout=subprocess.PIPE) as writes:
        try:
            assert writes.stdout.readline() == b"writing\n"
            while not len(database.trials()):
                time.sleep(0.01)
            for _ in range(3):
                with subprocess.Popen(compactor, stdout=subprocess.PIPE) as compacts:
                    try:
                        compacts.stdout.readline()
                        end = time.monotonic() + rng.uniform(0.3, 0.8)
                        while time.monotonic() < end:
                            rows = database.sql(query).to_pylist()
                            assert all(
                                r["masks"] == (0 if r["status"] == "failed" else 4) for r in rows
                            )
                            complete = {r["trial_id"] for r in rows if r["status"] == "complete"}
                            assert seen <= complete
                            seen |= complete
                            keys = [tuple(row.values()) for batch in database.mask_batches(
                                columns=["trial_id", "replicate", "layer"])
                                for row in batch.to_pylist()]  # fmt: skip
                            assert max(Counter(keys).values()) == 1
                            assert {(t, 0, "fc1") for t in seen} <= set(keys)
                    finally:
                        compacts.kill()
                merged += len(database.storage.parts("trials", "a"))
        finally:
            writes.kill()
    assert merged > 0
    assert database.warnings == ()
    storage = database.storage
    truth = everything(storage)
    merge(storage)
    assert everything(storage) == truth
    for trial_id in sorted(seen)[::5]:
        expected = make_trial(trial_id, seed=int(trial_id[1:])).masks
        digests = sorted(Database(storage).masks("a", trial_id)["digest"].to_pylist())
        assert digests == sorted(mask.digest for mask in expected)
    found = verify(storage, report=lambda done, total: None)
    assert found.sound
