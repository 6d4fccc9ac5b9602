"""Folders of image files in ImageNet's layout: what is there, without decoding it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ticketsweep.errors import DataError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
TEST_FOLDERS = ("test", "val")  # the first that holds folders: ImageNet's `test` has no labels
ENDS = 4096  # bytes of a file's beginning and end that its digest covers
THREADS = 16  # that read them: it is the disk that they wait for


@dataclass(frozen=True)
class ImageFiles:
    """The images of a split as files, which are decoded when they are used.

    Millions of names are two arrays, which worker processes share.

    Attributes
    ----------
    folder: absolute, and the same on every machine that trains.
    names: uint8, the file names relative to it, as the file system has them, joined.
    ends: int64 (N,), where each name ends in `names`.
    size: height and width of the images when decoded.
    """

    folder: str
    names: NDArray[np.uint8]
    ends: NDArray[np.int64]
    size: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the decoded images: (N, 3, size, size)."""
        return len(self.ends), 3, self.size, self.size

    @property
    def nbytes(self) -> int:
        """Memory that this takes, which is that of the names."""
        return self.names.nbytes + self.ends.nbytes

    def path(self, row: int) -> Path:
        """The file of an image."""
        start = self.ends[row - 1] if row else 0
        return Path(self.folder, os.fsdecode(self.names[start : self.ends[row]].tobytes()))


@dataclass(frozen=True)
class ImageFolder:
    """Both splits of a folder: files, and labels int64 (N,) in 0..K-1.

    Attributes
    ----------
    digest: blake2b, hex, of the image size and of each file's name, length in bytes, first and
        last `ENDS` bytes, and label: reading a large data set whole would take too long.
    """

    train: ImageFiles
    train_labels: NDArray[np.int64]
    test: ImageFiles
    test_labels: NDArray[np.int64]
    digest: str


def read_image_folder(folder: Path, *, size: int) -> ImageFolder:
    """List the images of `folder/train/CLASS/` and of `folder/test/CLASS/` or `folder/val/CLASS/`.

    Classes are numbered in the order of their names. Images may lie in folders within a class;
    hidden files (`.DS_Store`) are passed over.

    Parameters
    ----------
    size: height and width that the images will be decoded to.

    Raises
    ------
    DataError: a folder is missing, a class has no image or is in one split alone, or a file is
        empty, unreadable or not named as an image; the message names it.
    """
    if not folder.is_dir():
        raise DataError(f"DIR must name a folder that exists, got {str(folder)!r}")
    try:
        return _listed(folder.absolute(), size)
    except OSError as error:
        raise DataError(f"{error.filename or folder} cannot be read: {error.strerror}") from error


def _listed(folder: Path, size: int) -> ImageFolder:
    test_folder = _test_folder(folder)
    train_classes, test_classes = _classes(folder / "train"), _classes(test_folder)
    for name in sorted(set(train_classes) ^ set(test_classes)):
        here, there = (folder / "train", test_folder)[:: 1 if name in train_classes else -1]
        raise DataError(
            f"{here / name} is a class that {there} must have too (add its images, or remove it)"
        )
    hashed = hashlib.blake2b(f"{size}".encode(), digest_size=16)
    splits = []
    with ThreadPoolExecutor(THREADS) as threads:
        for split in (folder / "train", test_folder):
            listed = list(threads.map(_list_class, [split] * len(train_classes), train_classes))
            for names, digest in listed:
                hashed.update(f"{len(names)}:".encode() + digest)
            labels = np.repeat(np.arange(len(listed)), [len(names) for names, _ in listed])
            encoded = [name for names, _ in listed for name in names]
            splits.append((_files(split, encoded, size), labels.astype(np.int64)))
    (train, train_labels), (test, test_labels) = splits
    return ImageFolder(train, train_labels, test, test_labels, hashed.hexdigest())


def _test_folder(folder: Path) -> Path:
    for name in TEST_FOLDERS:
        if (folder / name).is_dir() and any(path.is_dir() for path in (folder / name).iterdir()):
            return folder / name
    names = sorted(path.name for path in folder.iterdir())[:8]
    raise DataError(
        f"{folder} must hold train/CLASS/ and val/CLASS/ or test/CLASS/ with images, "
        f"got {', '.join(names) or 'an empty folder'}"
    )


def _classes(split: Path) -> list[str]:
    if not split.is_dir():
        raise DataError(f"{split} must be a folder of classes, but it does not exist")
    paths = sorted(path for path in split.iterdir() if not path.name.startswith("."))
    for path in paths:
        if path.suffix.lower() in SUFFIXES and not path.is_dir():
            raise DataError(f"{path} must lie in the folder of its class (move it there)")
    classes = [path.name for path in paths if path.is_dir()]
    if not classes:
        raise DataError(f"{split} must hold a folder for each class, got none")
    return classes


def _list_class(split: Path, name: str) -> tuple[list[bytes], bytes]:
    """The images of a class, relative to the split and sorted, and the digest of them all."""
    paths = sorted(_images(split / name))
    if not paths:
        raise DataError(
            f"{split / name} must hold images ({', '.join(SUFFIXES)}), got none "
            "(add some, or remove the class from both splits)"
        )
    hashed = hashlib.blake2b(digest_size=16)
    names = []
    for path in paths:
        names.append(os.fsencode(path.relative_to(split)))
        hashed.update(_identity(path, names[-1]))
    return names, hashed.digest()


def _images(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(place, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() not in SUFFIXES:
                raise DataError(
                    f"{path} must be an image ({', '.join(SUFFIXES)}), got {path.suffix or name!r} "
                    "(move it out of the class's folder)"
                )
            yield path


def _raise(error: OSError) -> None:
    raise error


def _identity(path: Path, name: bytes) -> bytes:
    """What stands for a file in the digest: its name, length, beginning and end."""
    with path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size
        begun = file.read(ENDS)
        file.seek(max(0, length - ENDS))
        ended = file.read(ENDS)
    if not length:
        raise DataError(f"{path} must be an image, got an empty file (restore or remove it)")
    return f"{len(name)}:{length}:".encode() + name + begun + ended


def _files(split: Path, names: list[bytes], size: int) -> ImageFiles:
    joined = np.frombuffer(b"".join(names), dtype=np.uint8)
    ends = np.cumsum([len(name) for name in names], dtype=np.int64)
    return ImageFiles(str(split), joined, ends, size)
