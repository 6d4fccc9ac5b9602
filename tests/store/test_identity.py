from __future__ import annotations

import os
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
    assert [file.name for file in place.iterdir() if file.is_file()] == ["identity.json"]


def test_many_that_ask_at_once_hear_the_same(storage: Storage) -> None:
    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(lambda _: identity_of(storage), range(64)))) == 1


def test_a_file_system_without_links_will_do(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    first = identity_of(storage)
    assert len(first) == 16
    assert identity_of(storage) == first
    assert storage.local is not None
    assert [file.name for file in storage.local.iterdir() if file.is_file()] == ["identity.json"]


@pytest.mark.parametrize("content", ["", "{}", "[]", "x"])
def test_a_damaged_one_is_no_other_one(storage: Storage, content: str) -> None:
    file = storage.identity_file()
    assert file is not None
    file.write_text(content)
    with pytest.raises(StorageError, match="is damaged"):
        identity_of(storage)


def test_what_a_killed_process_has_left_is_known_as_its_own(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException): ...

    def die(*_: object, **__: object) -> None:
        raise Killed

    monkeypatch.setattr(Path, "hardlink_to", die)
    monkeypatch.setattr(Path, "unlink", die)
    with pytest.raises(Killed):
        identity_of(storage)
    (left,) = storage.leftovers(None)
    assert left.pid == os.getpid()
