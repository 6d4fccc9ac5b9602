from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from ticketsweep.errors import StorageError
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage, temporary_path
from ticketsweep.store.schema import TrialRows
from ticketsweep.store.writer import copy_trial, remove_leftovers, write_sweep, write_trial

STATUSES = ("failed", "stopped", "complete")


def _bytes(storage: Storage) -> dict[str, bytes]:
    files = (path for path in storage.local.rglob("*") if path.is_file())
    return {path.relative_to(storage.local).as_posix(): path.read_bytes() for path in files}


def test_a_trial_is_one_file_a_table(storage, make_trial):
    write_trial(storage, "a", make_trial())
    write_sweep(storage, {"sweep": "a"})
    assert set(_bytes(storage)) == {
        "trials/sweep=a/t0.parquet",
        "replicates/sweep=a/t0.parquet",
        "masks/sweep=a/t0.parquet",
        "curves/sweep=a/t0.parquet",
        "sweeps/sweep=a/sweep.parquet",
    }


def test_a_failed_trial_is_its_own_row_alone(storage, database, make_trial):
    write_trial(storage, "a", make_trial(status="failed"))
    assert list(_bytes(storage)) == ["trials/sweep=a/t0.parquet"]
    assert database.trials()["error"].to_pylist() == ["it diverged"]


@pytest.mark.parametrize("before", STATUSES)
@pytest.mark.parametrize("after", STATUSES)
def test_a_complete_trial_stays_and_any_other_is_replaced(
    storage, database, make_trial, before, after
):
    write_trial(storage, "a", make_trial(status=before, seed=0))
    first = _bytes(storage)
    write_trial(storage, "a", make_trial(status=after, seed=1))
    if before == "complete":
        assert _bytes(storage) == first
        return
    trial = database.trials().to_pylist(maps_as_pydicts="strict")[0]
    expected = make_trial(status=after, seed=1)
    assert (trial["status"], trial["metrics"]) == (after, {"seed": 1.0})
    digests = database.masks()["digest"].to_pylist()
    assert digests == [mask.digest for mask in expected.masks]


def test_the_same_rows_make_the_same_bytes(tmp_path, make_trial):
    stored = []
    for name in ("one", "two"):
        storage = Storage.open(str(tmp_path / name), create=True)
        write_trial(storage, "a", make_trial())
        stored.append(_bytes(storage))
    assert stored[0] == stored[1]


def test_masks_left_by_a_killed_attempt_stay_hidden_behind_a_failure(storage, database, make_trial):
    write_trial(storage, "a", make_trial(status="stopped"))
    (storage.local / "trials/sweep=a/t0.parquet").unlink()
    assert len(database.masks()) == 0
    write_trial(storage, "a", make_trial(status="failed"))
    assert (len(database.masks()), len(database.trials())) == (0, 1)


def test_a_failed_trial_can_be_copied(storage, database, make_trial):
    write_trial(storage, "a", make_trial(status="failed"))
    copy_trial(storage, "t0", "a", "b", search=None)
    assert database.trials("b")["status"].to_pylist() == ["failed"]
    with pytest.raises(ValueError, match="from one sweep to another"):
        copy_trial(storage, "t0", "a", "a", search=None)


def test_rows_that_do_not_fit_write_nothing(storage, make_trial):
    rows = make_trial()
    with pytest.raises(ValueError, match="no column lost"):
        write_trial(storage, "a", replace(rows, curves=[{"lost": 1.0}]))
    with pytest.raises(StorageError, match="without a leading dot"):
        write_trial(storage, "a/b", rows)
    with pytest.raises(StorageError, match="without a leading dot"):
        write_trial(storage, "a", TrialRows({"trial_id": "../x", "status": "failed"}))
    assert _bytes(storage) == {}


def _in_a_process(code: str, storage: Storage) -> subprocess.CompletedProcess[str]:
    head = f"""
    import importlib.util, os, resource, signal, sys
    from ticketsweep.errors import StorageError
    from ticketsweep.store.paths import Storage
    from ticketsweep.store.writer import write_trial
    spec = importlib.util.spec_from_file_location("c", {str(Path(__file__).parent / "conftest.py")!r})
    conftest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(conftest)
    storage = Storage.open({storage.uri!r}, create=False)
    """  # noqa: E501
    program = textwrap.dedent(head) + textwrap.dedent(code)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )


@pytest.mark.parametrize("before", [None, "failed"])
def test_a_full_disk_is_one_message_and_leaves_nothing_half_written(storage, make_trial, before):
    if before:
        write_trial(storage, "a", make_trial(status=before))
    first = _bytes(storage)
    done = _in_a_process(
        """
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))  # in the middle of the first file
        try:
            write_trial(storage, "a", conftest.make_trial(replicates=50))
        except StorageError as error:
            print(error)
        """,
        storage,
    )
    assert "File too large (free some space or mend the permissions" in done.stdout
    assert done.stdout.count("\n") == 1
    assert _bytes(storage) == first


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act as a user without permissions")
def test_a_folder_without_permission_is_one_message(storage, make_trial):
    for path in [storage.local, *storage.local.rglob("*")]:
        path.chmod(0o755)
    done = _in_a_process(
        """
        os.setuid(65534)
        rows = conftest.make_trial()
        for work in (lambda: write_trial(storage, "a", rows),
                     lambda: Storage.open(storage.uri, create=True)):
            try:
                work()
            except StorageError as error:
                print(error)
        """,
        storage,
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stdout
    assert all("Permission denied" in line for line in lines)
    assert "cannot be read" in lines[1]
    assert _bytes(storage) == {}


def test_leftovers_of_dead_writers_are_removed_and_those_of_living_ones_kept(storage, database):
    folder = storage.local / "masks/sweep=a"
    folder.mkdir()
    mine = Path(temporary_path(f"{folder}/t0.parquet"))
    host, pid, *_ = mine.name.removesuffix(".tmp").split(".")[-3:]
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    dead = mine.with_name(mine.name.replace(f".{pid}.", f".{gone.pid}."))
    elsewhere = mine.with_name(mine.name.replace(f".{host}.", ".another-host."))
    old = elsewhere.with_name(elsewhere.name.replace("t0", "t1"))
    for path in (mine, dead, elsewhere, old):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 7200,) * 2)
    assert (len(database.masks()), database.warnings) == (0, ())
    assert remove_leftovers(storage, "b") == 0
    assert remove_leftovers(storage, "a") == 2
    assert sorted(folder.iterdir()) == sorted([mine, elsewhere])


class ObjectStore(pafs.FileSystemHandler):
    """A folder seen as an object store: no renames, an object appears when its upload ends."""

    def __init__(self, folder: Path, *, fail_at: int | None = None) -> None:
        self.local = pafs.SubTreeFileSystem(str(folder), pafs.LocalFileSystem())
        self.folder, self.fail_at, self.uploads = folder, fail_at, 0

    def get_type_name(self):
        return "object-store"

    def normalize_path(self, path):
        return path

    def get_file_info(self, paths):
        return self.local.get_file_info(paths)

    def get_file_info_selector(self, selector):
        return self.local.get_file_info(selector)

    def open_input_file(self, path):
        return pa.BufferReader(self.folder.joinpath(path).read_bytes())

    open_input_stream = open_input_file

    def open_output_stream(self, path, metadata):
        self.uploads += 1
        if self.uploads == self.fail_at:
            raise OSError("the connection was reset")
        self.folder.joinpath(path).parent.mkdir(parents=True, exist_ok=True)
        return self.local.open_output_stream(path)

    def delete_file(self, path):
        self.folder.joinpath(path).unlink()

    def _refuse(self, *arguments):
        raise NotImplementedError("not on an object store")

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = _refuse
    move = copy_file = open_append_stream = _refuse


@pytest.mark.parametrize("fail_at", [None, 1, 2, 3, 4])
def test_an_object_store_gets_one_upload_a_file_and_an_interrupted_trial_is_not_seen(
    tmp_path, make_trial, fail_at
):
    handler = ObjectStore(tmp_path, fail_at=fail_at)
    storage = Storage("s3://bucket/x", pafs.PyFileSystem(handler), "bucket/x", None)
    database = Database(storage)
    if fail_at is None:
        write_trial(storage, "a", make_trial())
        assert handler.uploads == 4
    else:
        with pytest.raises(StorageError, match="the connection was reset"):
            write_trial(storage, "a", make_trial())
        assert (len(database.masks()), len(database.trials())) == (0, 0)
        write_trial(storage, "a", make_trial())
    assert database.sql("select count(*) c from masks")["c"].to_pylist() == [4]
    assert database.find_complete("t0") == "a"
