"""Data sets by name: uint8 images whole in memory, or the names of image files.

Only numpy is imported here: the driver of a sweep loads a data set and hands its arrays to the
workers, and torch, scikit-learn, Pillow and pyarrow are needed only while a data set is read.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ticketsweep.errors import DataError, did_you_mean
from ticketsweep.seeds import derive_seed
from ticketsweep.train.imagefolder import ImageFiles, read_image_folder

CACHE = "~/.cache/ticketsweep"  # where data sets are looked for, and downloaded to
IMAGE_SIZE = 224  # of an image folder's images: ImageNet's usual, and what ViT-B takes


@dataclass(frozen=True)
class Dataset:
    """Images and labels of both splits.

    Attributes
    ----------
    name: as the configuration names it.
    train_images, test_images: uint8 (N, C, H, W), possibly read-only; or the files of a data set
        that is streamed, with the same `shape`.
    train_labels, test_labels: int64 (N,), in 0..classes-1.
    classes: number of classes.
    digest: blake2b, hex, of the arrays' shapes and contents; of files, see `imagefolder`.
    """

    name: str
    train_images: NDArray[np.uint8] | ImageFiles
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8] | ImageFiles
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


def load_dataset(name: str, *, data_root: Path | None, image_size: int | None = None) -> Dataset:
    """Load a data set by its configuration name.

    Parameters
    ----------
    name: a key of `LOADERS`; `parquet:DIR` or `imagefolder:DIR` (a relative DIR is relative to the
        working folder); or `package.module:factory`, a function of the user's.
    data_root: the folder where torchvision's data sets lie, or are downloaded to; it must exist.
        None for the user's cache, which is made where something is downloaded.
    image_size: height and width that the images of an image folder are brought to; None for
        `IMAGE_SIZE`.

    Raises
    ------
    DataError: the name is unknown, the data is missing or not in the layout it should have, or
        `image_size` is set for a data set whose images have a size.
    """
    scheme, colon, rest = name.partition(":")
    if image_size is not None and scheme != "imagefolder":
        raise DataError(
            f"image_size must be null where dataset is {name}, got {image_size} "
            "(only the images of imagefolder:DIR are brought to a size)"
        )
    if not colon:
        if name not in LOADERS:
            hint = did_you_mean(name, [*LOADERS, "parquet:DIR", "imagefolder:DIR"])
            raise DataError(f"dataset must be a known name, got {name!r} ({hint})")
        return _checked(name, *LOADERS[name](data_root))
    try:
        if scheme == "imagefolder":
            return _of_files(name, expanded(rest), size=image_size or IMAGE_SIZE)
        train, test = _parquet(rest) if scheme == "parquet" else _factory(name)
    except DataError as error:
        raise DataError(f"dataset {name}: {error}") from error
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
    pixels, labels = _scikit_learns_digits()
    images = np.rint(pixels * (255 / 16)).astype(np.uint8)[:, None]  # 0..16 -> 0..255
    train, test = _stratified(labels, share=0.2, seed=derive_seed(0, "digits-test-split"))
    return Split(images[train], labels[train]), Split(images[test], labels[test])


def _scikit_learns_digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Images (1797, 8, 8) in 0..16 and labels, from the file in scikit-learn's package.

    Without importing it, which takes as long as all else that a short sweep's driver reads.
    """
    found = importlib.util.find_spec("sklearn")
    place = Path(found.origin).parent if found and found.origin else Path()
    file = place / "datasets" / "data" / "digits.csv.gz"
    if file.is_file():
        table = np.loadtxt(file, delimiter=",")
        return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images, bunch.target.astype(np.int64)


def _torchvision_idx(kind: str, data_root: Path | None) -> tuple[Split, Split]:
    from ticketsweep.train.idx import read_idx_folder

    found = read_idx_folder(expanded(data_root or CACHE) / kind / "raw")
    if found is not None:
        return found
    from ticketsweep.train.torchvision_data import read_idx

    return read_idx(kind, data_root)


def _torchvision_cifar(kind: str, data_root: Path | None) -> tuple[Split, Split]:
    from ticketsweep.train.torchvision_data import read_cifar

    return read_cifar(kind, data_root)


def _parquet(folder: str) -> tuple[Split, Split]:
    from ticketsweep.train.parquet import read_parquet_folder

    return read_parquet_folder(expanded(folder))


def _factory(name: str) -> tuple[Split, Split]:
    from ticketsweep.train.arrays import read_factory

    return read_factory(name)


def _of_files(name: str, folder: Path, *, size: int) -> Dataset:
    found = read_image_folder(folder, size=size)
    return Dataset(
        name=name,
        train_images=found.train,
        train_labels=found.train_labels,
        test_images=found.test,
        test_labels=found.test_labels,
        classes=int(found.train_labels[-1]) + 1,
        digest=found.digest,
    )


LOADERS: dict[str, Callable[[Path | None], tuple[Split, Split]]] = {
    "digits": _digits,
    "mnist": partial(_torchvision_idx, "MNIST"),
    "fashion-mnist": partial(_torchvision_idx, "FashionMNIST"),
    "cifar10": partial(_torchvision_cifar, "CIFAR10"),
    "cifar100": partial(_torchvision_cifar, "CIFAR100"),
}


def expanded(path: str | Path) -> Path:
    """The path with a leading `~` replaced by the user's home, where there is one."""
    # Not Path.expanduser, which raises where there is no such user, or no home.
    return Path(os.path.expanduser(path))  # noqa: PTH111


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
