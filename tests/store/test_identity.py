from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ticketsweep.errors import StorageError
from ticketsweep.store.identity import identity_of
from ticketsweep.store.paths import Storage


def test_a_storage_keeps_its_identity_where_it_moves_and_another_in_its_place_has_its_own(
    tmp_path: Path,
) -> None:
    place = tmp_path / "storage"
    first = identity_of(Storage.open(str(place), create=True))
    assert first == identity_of(Storage.open(str(place), create=False))
    shutil.move(place, tmp_path / "elsewhere")
    assert identity_of(Storage.open(str(tmp_path / "elsewhere"), create=False)) == first
    assert identity_of(Storage.open(str(place), create=True)) != first
    assert [file.name for file in place.iterdir() if file.is_file()] == ["identity"]


def test_many_that_ask_at_once_hear_the_same(storage: Storage) -> None:
    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(lambda _: identity_of(storage), range(64)))) == 1


def test_a_storage_that_cannot_be_written_says_so(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with pytest.raises(StorageError, match="not permitted"):
        identity_of(storage)
    assert storage.local is not None
    assert not [file for file in storage.local.iterdir() if file.is_file()]
