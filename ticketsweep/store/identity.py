"""Which storage it is: two machines may have one each under the same path, or one under two."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from ticketsweep.errors import StorageError
from ticketsweep.store.paths import Storage, one_line, temporary_path

_FILE = "identity"


def identity_of(storage: Storage) -> str:
    """What tells the storage from every other, wherever it is mounted; made when first asked for.

    An object store has its URI; a folder has a random number in a file of its own, which goes with
    the folder where that is moved.

    Raises StorageError where it can be neither read nor written.
    """
    if storage.local is None:
        return storage.uri
    file = storage.local / _FILE
    try:
        if not file.exists():
            _make(file)
        return file.read_text().strip()
    except OSError as error:
        raise StorageError(f"storage {storage.uri}: {one_line(error)}") from error


def _make(file: Path) -> None:
    """Of several processes at once one makes it, and no other sees it half-written."""
    made = Path(temporary_path(file.as_posix()))
    try:
        made.write_text(f"{secrets.token_hex(8)}\n")
        with suppress(FileExistsError):
            file.hardlink_to(made)
    finally:
        made.unlink(missing_ok=True)
