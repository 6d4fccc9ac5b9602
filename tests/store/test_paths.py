from __future__ import annotations

import os
from pathlib import Path

import pytest

from ticketsweep.errors import StorageError
from ticketsweep.store.paths import Storage, default_storage, temporary_path, valid_name


@pytest.mark.parametrize("name", ["a", "lenet-mnist", "x_1.2", "-", "9" * 100])
def test_a_plain_name_is_valid(name, storage):
    assert valid_name(name)
    assert storage.trial_file("masks", name, "t").endswith(f"/masks/sweep={name}/t.parquet")


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "a/b", "a\\b", "a b", "ä", "a\n", "9" * 101])
def test_another_name_is_refused(name, storage):
    assert not valid_name(name)
    with pytest.raises(StorageError, match="without a leading dot"):
        storage.trial_file("masks", name, "t")
    with pytest.raises(StorageError, match="without a leading dot"):
        storage.trial_file("masks", "s", name)


def test_a_storage_that_is_not_there_says_how_to_make_one(tmp_path):
    with pytest.raises(StorageError, match=r"does not exist .*ticketsweep run.*--storage"):
        Storage.open(str(tmp_path / "none"), create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_database_is_refused(tmp_path):
    with pytest.raises(StorageError, match="is not a mask database"):
        Storage.open(str(tmp_path), create=False)


def test_a_file_in_the_way_is_one_message(tmp_path):
    (tmp_path / "file").write_text("here")
    for uri in ("file", "file/below"):
        with pytest.raises(StorageError, match=r"cannot be written to: .*--storage") as caught:
            Storage.open(str(tmp_path / uri), create=True)
        assert "\n" not in str(caught.value)
        assert "sweeps': Not a directory (name another" in str(caught.value)
        assert "rrno" not in str(caught.value)


def test_creating_leaves_empty_folders_and_no_probe(storage):
    files = [path for path in storage.local.rglob("*") if path.is_file()]
    assert files == []
    assert Storage.open(storage.uri, create=False).root == storage.root
    assert Storage.open(storage.uri, create=True).root == storage.root


def test_a_file_uri_is_the_same_storage(tmp_path):
    path = tmp_path / "with space"
    by_uri = Storage.open(f"file://{path.as_posix().replace(' ', '%20')}", create=True)
    assert by_uri.local == path
    assert Storage.open(str(path), create=False).root == by_uri.root


@pytest.mark.parametrize(
    ("uri", "remedy"),
    [
        ("ftp://host/x", "a folder or a file://, s3:// or gs:// URI"),
        ("file://relative", "it must be file:///FOLDER"),
        ("nonsense://", "a folder or a file://, s3:// or gs:// URI"),
    ],
)
def test_an_unknown_uri_is_one_message(uri, remedy):
    with pytest.raises(StorageError, match=remedy):
        Storage.open(uri, create=True)


def test_a_relative_storage_does_not_follow_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Storage.open("./here", create=True).local == tmp_path / "here"


def test_the_default_storage_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("TICKETSWEEP_STORAGE", "/data/masks")
    assert default_storage() == "/data/masks"
    monkeypatch.setenv("TICKETSWEEP_STORAGE", "")
    assert default_storage() == "./ticketsweep-storage"


def test_only_data_files_are_listed(storage):
    folder = storage.local / "masks/sweep=a"
    folder.mkdir()
    for name in ("t1.parquet", "t0.parquet", ".hidden.parquet", "notes.txt", "x.parquet.bak"):
        (folder / name).write_bytes(b"x")
    Path(temporary_path(f"{folder}/t2.parquet")).write_bytes(b"x")
    (folder / "folder.parquet").mkdir()
    (folder.parent / "stray.parquet").write_bytes(b"x")
    assert [file.name for file in storage.files("masks")] == ["t0", "t1"]
    assert storage.files("masks", "a")[0].shown == "masks/sweep=a/t0.parquet"
    assert [left.pid for left in storage.leftovers("a")] == [os.getpid()]


def test_local_folders_beside_the_tables(storage, tmp_path, monkeypatch):
    assert storage.optuna_journal("a") == storage.local / "optuna/a.journal"
    assert storage.tracking_folder() == storage.local / "tracking"
    monkeypatch.chdir(tmp_path)
    remote = Storage("s3://bucket/x", storage.filesystem, "bucket/x", None)
    assert remote.optuna_journal("a") is None
    assert remote.tracking_folder() == tmp_path / "ticketsweep-tracking"
