"""Data sets that a function of the user's returns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ticketsweep.errors import DataError
from ticketsweep.train.data import Split
from ticketsweep.train.sources import NotImportable, attribute_of, said

RETURNED = ("train_images", "train_labels", "test_images", "test_labels")


def read_factory(name: str) -> tuple[Split, Split]:
    """Import `package.module:factory`, as `python -m` would, and call `factory()`.

    It returns four numpy arrays: training images uint8 (N, C, H, W) and labels int64 (N,), and
    those of the test split. Its result has to be the same each time: it is part of a trial's id.

    Raises
    ------
    DataError: it cannot be imported or fails, or what it returns is anything else.
    """
    module, _, attribute = name.partition(":")
    factory = _imported(name)
    try:
        returned = factory()
    except (Exception, SystemExit) as error:
        raise DataError(
            f"{attribute}() raised {said(error)} (try it: python -c "
            f"'import {module}; {module}.{attribute}()')"
        ) from error
    if not isinstance(returned, tuple | list) or len(returned) != len(RETURNED):
        got = f"{len(returned)} values" if isinstance(returned, tuple | list) else _kind(returned)
        raise DataError(f"{attribute}() must return {', '.join(RETURNED)}, got {got}")
    train_images, train_labels, test_images, test_labels = returned
    splits = []
    for split, images, labels in (
        ("train", train_images, train_labels),
        ("test", test_images, test_labels),
    ):
        _check_array(f"{split}_images", images, np.uint8, "uint8 (N, C, H, W) in 0..255", axes=4)
        _check_array(f"{split}_labels", labels, np.int64, "int64 (N,)", axes=1)
        if len(images) != len(labels):
            raise DataError(
                f"{split}_labels must have a label for each of {len(images)} {split}_images, "
                f"got {len(labels)}"
            )
        splits.append(Split(images, labels))
    return splits[0], splits[1]


def _imported(name: str) -> Callable[[], object]:
    module, _, attribute = name.partition(":")
    try:
        found = attribute_of(name)
    except NotImportable as error:
        raise DataError(
            f"{module} cannot be imported: {error} (it is looked for in {Path.cwd()} and among "
            "the installed packages)"
        ) from error
    if not callable(found):
        got = "none" if found is None else _kind(found)
        raise DataError(f"{module} must have a function {attribute} without arguments, got {got}")
    return found


def _check_array(name: str, value: object, dtype: type, rule: str, *, axes: int) -> None:
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.ndim != axes:
        raise DataError(f"{name} must be a numpy array {rule}, got {_kind(value)}")
    if 0 in value.shape[1:]:
        raise DataError(f"{name} must have pixels, got shape {value.shape}")


def _kind(value: object) -> str:
    if isinstance(value, np.ndarray):
        array: NDArray[np.generic] = value
        return f"{array.dtype} {array.shape}"
    return f"a value of type {type(value).__name__}"
