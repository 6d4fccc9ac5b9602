"""torchvision's small data sets: unpacked files, else the archives beside them, else a download."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import socket
import sys
import tarfile
import tempfile
import textwrap
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets

from ticketsweep.errors import DataError
from ticketsweep.train.data import CACHE, Split, expanded

DOWNLOAD_TIMEOUT = 8.0  # seconds without an answer: a machine without a network must not hang


@dataclass(frozen=True)
class _Files:
    """Where torchvision keeps a data set, under `data_root`.

    Attributes
    ----------
    folder: of the unpacked files.
    plain, archives: all unpacked files, and all archives that they come from.
    described: what a user has to put there.
    """

    folder: Path
    plain: tuple[Path, ...]
    archives: tuple[Path, ...]
    described: str


def read_idx(kind: str, data_root: Path | None) -> tuple[Split, Split]:
    """MNIST or a data set in its format, by torchvision's name of it."""
    kind_class = getattr(datasets, kind)
    folder = Path(kind, "raw")
    archives = tuple(folder / name for name, _ in kind_class.resources)
    plain = tuple(archive.with_suffix("") for archive in archives)
    described = f"{folder}/ with its four files, plain or as .gz"
    return _read(kind_class, _Files(folder, plain, archives, described), data_root)


def read_cifar(kind: str, data_root: Path | None) -> tuple[Split, Split]:
    """CIFAR-10 or CIFAR-100 with its fine labels, by torchvision's name of it.

    The files are pickles, so torchvision reads those whose MD5 it knows, and no others.
    """
    kind_class = getattr(datasets, kind)
    folder = Path(kind_class.base_folder)
    names = [name for name, _ in (*kind_class.train_list, *kind_class.test_list)]
    plain = tuple(folder / name for name in (*names, kind_class.meta["filename"]))
    described = f"{folder}/, or {kind_class.filename}"
    return _read(kind_class, _Files(folder, plain, (Path(kind_class.filename),), described),
                 data_root)  # fmt: skip


def _read(kind: Any, files: _Files, given: Path | None) -> tuple[Split, Split]:
    data_root = expanded(given or CACHE)
    if given is not None and not data_root.is_dir():
        raise DataError(
            f"data_root (or $TICKETSWEEP_DATA) must name a folder that exists, got {str(given)!r} "
            f"(correct it, or make the folder to have {kind.__name__} downloaded into it)"
        )
    with contextlib.ExitStack() as stack:
        root = data_root
        if not all((data_root / path).exists() for path in files.plain):
            if all((data_root / path).exists() for path in files.archives):
                # The folder may be read-only, so it is unpacked elsewhere.
                root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                for path in files.archives:
                    _unpack(data_root / path, root / path)
            else:
                _download(kind, files, data_root)
        try:
            train, test = (kind(root, train=train, download=False) for train in (True, False))
        except (OSError, RuntimeError, ValueError, AssertionError, TypeError, KeyError) as error:
            reason = str(error).partition(" You can use download=True")[0] or type(error).__name__
            raise DataError(
                f"{data_root / files.folder} must hold {kind.__name__}'s {len(files.plain)} files, "
                f"but they cannot be read: {reason} (delete them, and they are downloaded again)"
            ) from error
    return _split(train), _split(test)


def _split(read: Any) -> Split:
    images = np.asarray(read.data)  # (N, H, W), or (N, H, W, 3) in CIFAR
    channels_first = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    return Split(channels_first, np.asarray(read.targets).astype(np.int64))


def _unpack(archive: Path, target: Path) -> None:
    """Unpack into the folder of `target`: a .gz to the file of that name, a .tar.gz as it says."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as packed:
                packed.extractall(target.parent, filter="data")
        else:
            with gzip.open(archive) as packed, target.with_suffix("").open("wb") as plain:
                shutil.copyfileobj(packed, plain)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(
            f"{archive} must be a gzip file, but it cannot be unpacked: {error} "
            "(delete it, and it is downloaded again)"
        ) from error


def _download(kind: Any, files: _Files, data_root: Path) -> None:
    try:
        # torchvision prints its progress; stdout is for the command's own data.
        with (
            _without_empty_folders(data_root / files.folder),
            _socket_timeout(DOWNLOAD_TIMEOUT),
            contextlib.redirect_stdout(sys.stderr),
        ):
            kind(data_root, download=True)
    except (OSError, RuntimeError) as error:
        words = str(error).split() or [type(error).__name__]
        reason = textwrap.shorten(" ".join(words), 160, placeholder=" …")
        raise DataError(
            f"data_root must hold {files.described}, got {data_root}, and the download failed: "
            f"{reason} (set data_root or $TICKETSWEEP_DATA to a folder that has them, or run once "
            "where there is a network)"
        ) from error


@contextlib.contextmanager
def _without_empty_folders(folder: Path) -> Iterator[None]:
    """Make the folder, and remove again what of it was not there before and stays empty."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for place in made:
            with contextlib.suppress(OSError):  # it holds something
                place.rmdir()


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
