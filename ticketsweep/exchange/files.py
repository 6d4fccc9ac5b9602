"""Where an export goes: a file or a folder that is there whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ticketsweep.errors import ExchangeError
from ticketsweep.store.paths import one_line

ABOUT = "ticket.json"  # beside the matrices of a folder
MATRIX = ".npz"


def check_target(out: Path, *, is_folder: bool, force: bool) -> None:
    """Refuse a place that must stay as it is, or cannot be written to.

    Parameters
    ----------
    is_folder: whether a folder is to be made there, else a file.
    force: replace what is there, if it is a file, or a folder that an export has made.

    Raises ExchangeError.
    """
    if not out.parent.is_dir():
        raise ExchangeError(f"{out} cannot be written: there is no folder {out.parent}")
    if not os.access(out.parent, os.W_OK):
        raise ExchangeError(f"{out} cannot be written: no permission in folder {out.parent}")
    if not (out.exists() or out.is_symlink()):
        return
    if out.is_dir() and not is_folder:
        raise ExchangeError(f"{out} is a folder, but this format is one file (name a file)")
    if not force:
        raise ExchangeError(f"{out} is there already (--force replaces it)")
    if is_folder and not _is_export(out):
        raise ExchangeError(
            f"{out} is there, and no export made it, so that --force does not replace it (name "
            "another folder)"
        )


def _is_export(folder: Path) -> bool:
    if folder.is_symlink() or not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    return ABOUT in names and all(name == ABOUT or name.endswith(MATRIX) for name in names)


def put_file(out: Path, content: bytes) -> None:
    """Make `content` the file's. Raises ExchangeError, with nothing half-written in sight."""
    temporary = _temporary(out)
    try:
        _write(temporary, content)
        temporary.replace(out)
    except OSError as error:
        raise _unwritable(out, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def put_folder(out: Path, files: Mapping[str, bytes]) -> None:
    """Make these files the folder's, in place of those of an earlier export.

    Raises ExchangeError, and leaves what was there.
    """
    temporary, old = _temporary(out), _temporary(out)
    try:
        temporary.mkdir()
        for name, content in files.items():
            _write(temporary / name, content)
        if out.exists():
            out.rename(old)
        temporary.rename(out)
    except OSError as error:
        if old.exists() and not out.exists():
            old.rename(out)
        raise _unwritable(out, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _temporary(out: Path) -> Path:
    return out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _unwritable(out: Path, error: OSError) -> ExchangeError:
    return ExchangeError(f"{out} cannot be written: {one_line(error)}")
