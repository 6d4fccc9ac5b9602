"""Which storage it is: two machines may have one each under the same path, or one under two."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path

from ticketsweep.errors import StorageError
from ticketsweep.store.paths import Storage, one_line, temporary_path

_KEY = "identity"


def identity_of(storage: Storage) -> str:
    """What tells the storage from others, wherever it is mounted; made when first asked for.

    An object store has its URI; a folder has a random number in a file of its own, which goes with
    the folder where that is moved, and with its copies too.

    Raises StorageError where it can be neither read nor written, or is damaged.
    """
    file = storage.identity_file()
    if file is None:
        return storage.uri
    try:
        if not file.exists():
            _make(file)
        return str(json.loads(file.read_bytes())[_KEY])
    except OSError as error:
        raise StorageError(f"storage {storage.uri}: {one_line(error)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"storage {storage.uri}: {file} is damaged (delete it; studies that an Optuna database "
            "has of this storage are then taken for another's)"
        ) from error


def _make(file: Path) -> None:
    """Of several processes at once one makes it, and no other sees it half-written."""
    made = Path(temporary_path(file.as_posix()))
    try:
        with made.open("x") as stream:
            json.dump({_KEY: secrets.token_hex(8)}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            with suppress(FileExistsError):
                file.hardlink_to(made)
        except OSError:  # some file systems have no links: of two at once, the later one wins
            made.replace(file)
    finally:
        made.unlink(missing_ok=True)
