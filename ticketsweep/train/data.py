"""Data sets, whole in memory as uint8 images, by name.

Only numpy is imported here: the driver of a sweep loads a data set and hands its arrays to the
workers, and torch, scikit-learn, Pillow and pyarrow are needed only while a data set is read.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import shutil
import socket
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ticketsweep.errors import DataError, did_you_mean
from ticketsweep.seeds import derive_seed

CACHE = "~/.cache/ticketsweep"
DOWNLOAD_TIMEOUT = 8.0  # seconds without an answer: a machine without a network must not hang


@dataclass(frozen=True)
class Dataset:
    """Images and labels of both splits.

    Attributes
    ----------
    name: as the configuration names it.
    train_images, test_images: uint8 (N, C, H, W), possibly read-only.
    train_labels, test_labels: int64 (N,), in 0..classes-1.
    classes: number of classes.
    digest: blake2b, hex, of the arrays' shapes and contents.
    """

    name: str
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    classes: int
    digest: str

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        _, channels, height, width = self.train_images.shape
        return channels, height, width


@dataclass(frozen=True)
class Split:
    """One split as a loader reads it: uint8 (N, C, H, W) and int64 (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


def load_dataset(name: str, *, data_root: Path | None) -> Dataset:
    """Load a data set by its configuration name.

    Parameters
    ----------
    name: a key of `LOADERS`, or `parquet:DIR` (a relative DIR is relative to the working folder).
    data_root: the folder where torchvision's data sets lie, or are downloaded to; it must exist.
        None for the user's cache, which is made where something is downloaded.

    Raises
    ------
    DataError: the name is unknown, or the data is missing or not in the layout it should have.
    """
    if name.startswith("parquet:"):
        from ticketsweep.train.parquet import read_parquet_folder

        try:
            train, test = read_parquet_folder(_expanded(name.removeprefix("parquet:")))
        except DataError as error:
            raise DataError(f"dataset {name}: {error}") from error
    elif name in LOADERS:
        train, test = LOADERS[name](data_root)
    else:
        hint = did_you_mean(name, [*LOADERS, "parquet:DIR"])
        raise DataError(f"dataset must be a known name, got {name!r} ({hint})")
    return _checked(name, train, test)


def split_validation(
    labels: NDArray[np.int64], *, share: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices (train, validation) of a stratified split that depends on the arguments alone.

    Both parts are sorted and not empty, and every class of `labels` stays in the training part.

    Parameters
    ----------
    labels: int64 (N,).
    share: of each class, to be held out, in (0, 1); rounded to whole images.

    Raises
    ------
    DataError: `share` is outside (0, 1), or no class has two images.
    """
    return _stratified(labels, share=share, seed=derive_seed(0, "validation-split"))


def check_sizes(*, trained_on: int, held_out: int, classes: int, batch_size: int, key: str) -> None:
    """Refuse sizes that would make a trial meaningless.

    Parameters
    ----------
    trained_on, held_out: images of the two parts of the training split.
    batch_size, key: images a step, and the setting that says so.

    Raises
    ------
    DataError: a batch would repeat images, or the validation split cannot hold every class.
    """
    of = f"{trained_on + held_out} training images"
    if batch_size > trained_on:
        raise DataError(
            f"{key} must be <= {trained_on}, which is what validation leaves of {of}, got "
            f"{batch_size} (lower {key}{', or validation' if held_out > trained_on else ''})"
        )
    if held_out < classes:
        raise DataError(
            f"validation must hold out an image a class or more, got {held_out} of {of} for "
            f"{classes} classes (raise validation)"
        )


def _stratified(
    labels: NDArray[np.int64], *, share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if not 0 < share < 1:
        raise DataError(f"validation must lie in (0, 1), got {share} (share of the training split)")
    # Sorting the bit generator's raw output is a permutation that no numpy release will change.
    shuffled = np.argsort(np.random.PCG64(seed).random_raw(len(labels)), kind="stable")
    members = [shuffled[labels[shuffled] == label] for label in np.unique(labels)]
    counts = [min(round(share * len(rows)), len(rows) - 1) for rows in members]
    if not any(counts):
        largest = max(range(len(members)), key=lambda at: len(members[at]), default=-1)
        if largest < 0 or len(members[largest]) < 2:
            raise DataError(
                f"the training split must have a class with two images, got {len(labels)} images "
                "in all (one is held out for validation, one trained on)"
            )
        counts[largest] = 1
    held = np.concatenate([rows[:n] for rows, n in zip(members, counts, strict=True)])
    kept = np.concatenate([rows[n:] for rows, n in zip(members, counts, strict=True)])
    return np.sort(kept).astype(np.int64), np.sort(held).astype(np.int64)


def _digits(_data_root: Path | None) -> tuple[Split, Split]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]  # 0..16 -> 0..255
    labels = bunch.target.astype(np.int64)
    train, test = _stratified(labels, share=0.2, seed=derive_seed(0, "digits-test-split"))
    return Split(images[train], labels[train]), Split(images[test], labels[test])


def _mnist(data_root: Path | None) -> tuple[Split, Split]:
    from torchvision.datasets import MNIST

    return _torchvision_idx(MNIST, data_root)


def _fashion_mnist(data_root: Path | None) -> tuple[Split, Split]:
    from torchvision.datasets import FashionMNIST

    return _torchvision_idx(FashionMNIST, data_root)


LOADERS: dict[str, Callable[[Path | None], tuple[Split, Split]]] = {
    "digits": _digits,
    "mnist": _mnist,
    "fashion-mnist": _fashion_mnist,
}


def _torchvision_idx(kind: type, given: Path | None) -> tuple[Split, Split]:
    """Read MNIST or a data set in its format: unpacked files, else .gz files, else a download."""
    data_root = _expanded(given or CACHE)
    if given is not None and not data_root.is_dir():
        raise DataError(
            f"data_root (or $TICKETSWEEP_DATA) must name a folder that exists, got {str(given)!r} "
            f"(correct it, or make the folder to have {kind.__name__} downloaded into it)"
        )
    folder = data_root / kind.__name__ / "raw"
    archives = [folder / name for name, _ in kind.resources]  # type: ignore[attr-defined]
    with contextlib.ExitStack() as stack:
        root = data_root
        if not all(archive.with_suffix("").exists() for archive in archives):
            if all(archive.exists() for archive in archives):
                # The folder may be read-only, so it is unpacked elsewhere.
                root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                _unpack(archives, root / kind.__name__ / "raw")
            else:
                _download(kind, data_root)
        try:
            splits = [kind(root, train=train, download=False) for train in (True, False)]
        except (OSError, RuntimeError, ValueError, AssertionError, TypeError, KeyError) as error:
            raise DataError(
                f"{folder} must hold {kind.__name__}'s four files, but they cannot be read: "
                f"{error or type(error).__name__} (delete them, and they are downloaded again)"
            ) from error
    train, test = (
        Split(split.data.numpy()[:, None], split.targets.numpy().astype(np.int64))
        for split in splits
    )
    return train, test


def _unpack(archives: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for archive in archives:
        try:
            with gzip.open(archive) as packed, (folder / archive.stem).open("wb") as plain:
                shutil.copyfileobj(packed, plain)
        except (OSError, EOFError) as error:
            raise DataError(
                f"{archive} must be a gzip file, but it cannot be unpacked: {error} "
                "(delete it, and it is downloaded again)"
            ) from error


def _expanded(path: str | Path) -> Path:
    # Not Path.expanduser, which raises where there is no such user, or no home.
    return Path(os.path.expanduser(path))  # noqa: PTH111


def _download(kind: type, data_root: Path) -> None:
    try:
        # torchvision prints its progress; stdout is for the command's own data.
        with (
            _without_empty_folders(data_root / kind.__name__ / "raw"),
            _socket_timeout(DOWNLOAD_TIMEOUT),
            contextlib.redirect_stdout(sys.stderr),
        ):
            kind(data_root, download=True)
    except (OSError, RuntimeError) as error:
        words = str(error).split() or [type(error).__name__]
        reason = textwrap.shorten(" ".join(words), 160, placeholder=" …")
        raise DataError(
            f"data_root must hold {kind.__name__}/raw/ with its four files, got {data_root}, and "
            f"the download failed: {reason} (set data_root or $TICKETSWEEP_DATA to a folder that "
            "has them, plain or as .gz, or run once where there is a network)"
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


def _checked(name: str, train: Split, test: Split) -> Dataset:
    for label, split in (("training", train), ("test", test)):
        if len(split.labels) == 0:
            raise DataError(f"dataset {name}: the {label} split must have images, got none")
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"dataset {name}: all images must have one shape (channels, height, width), got "
            f"{train.images.shape[1:]} for training and {test.images.shape[1:]} for test"
        )
    present = np.unique(train.labels)
    classes = len(present)
    if present[0] != 0 or present[-1] != classes - 1:
        raise DataError(
            f"dataset {name}: training labels must be 0..K-1, each of them present, got {classes} "
            f"different ones from {present[0]} to {present[-1]} (number the classes from 0)"
        )
    if test.labels.min() < 0 or test.labels.max() >= classes:
        raise DataError(
            f"dataset {name}: test labels must be among the training labels 0..{classes - 1}, got "
            f"{test.labels.min()} to {test.labels.max()} (is it a split without labels?)"
        )
    train, test = (
        Split(np.ascontiguousarray(split.images), np.ascontiguousarray(split.labels))
        for split in (train, test)
    )
    hashed = hashlib.blake2b(digest_size=16)
    for array in (train.images, train.labels, test.images, test.labels):
        hashed.update(f"{array.dtype.str}{array.shape}".encode())
        hashed.update(array.data)
    return Dataset(
        name=name,
        train_images=train.images,
        train_labels=train.labels,
        test_images=test.images,
        test_labels=test.labels,
        classes=classes,
        digest=hashed.hexdigest(),
    )
