"""Folders of Parquet files in Hugging Face's image layout."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ticketsweep.errors import DataError
from ticketsweep.train.data import Split
from ticketsweep.train.decoding import decoded

IMAGE_COLUMNS = ("image", "img")
LABEL_COLUMNS = ("label", "fine_label")
TEST_PREFIXES = ("test", "validation", "valid")  # the first that has files


def read_parquet_folder(folder: Path) -> tuple[Split, Split]:
    """Read the training and the test split of a folder.

    The folder, or `data/` in it, holds `train*.parquet` and `test*.parquet` (without the latter,
    `validation*.parquet` or `valid*.parquet`). A file has a column `image` or `img` of type
    `struct<bytes: binary, path: string>` and an integer column `label` or `fine_label`. Images are
    8 bits a channel and of one size, and all of them grey or all of them in colour (then RGB).

    Returns
    -------
    (training split, test split).

    Raises
    ------
    DataError: a file or column is missing, or an image or label cannot be used; the message names
        file and row.
    """
    if not folder.is_dir():
        raise DataError(f"DIR must name a folder that exists, got {str(folder)!r}")
    train = _files(folder, ("train",))
    test = _files(folder, TEST_PREFIXES)
    images, labels = zip(*(_read(files) for files in (train, test)), strict=True)
    first, (path, row) = images[0][0], _place(train, 0)
    stacked = [
        _stack(split, files, first, f"{path}, row {row}")
        for split, files in zip(images, (train, test), strict=True)
    ]
    return Split(stacked[0], labels[0]), Split(stacked[1], labels[1])


def _files(folder: Path, prefixes: tuple[str, ...]) -> list[Path]:
    for prefix in prefixes:
        for place in (folder, folder / "data"):
            if found := sorted(place.glob(f"{prefix}*.parquet")):
                return found
    names = sorted(path.name for path in folder.iterdir())[:8]
    raise DataError(
        f"{folder} must hold {' or '.join(f'{prefix}*.parquet' for prefix in prefixes)}, "
        f"got {', '.join(names) or 'an empty folder'}"
    )


def _read(files: list[Path]) -> tuple[list[NDArray[np.uint8]], NDArray[np.int64]]:
    """Images (H, W) or (H, W, 3) in file order, and labels (N,)."""
    images: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.int64]] = []
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # Pillow decodes outside the GIL
        for path in files:
            encoded, numbers = _columns(path)
            rows = range(len(encoded))
            images.extend(threads.map(_decode, encoded, [path] * len(encoded), rows))
            labels.append(numbers)
    if not images:
        raise DataError(f"{files[0].parent} must hold images, got {len(files)} files without rows")
    return images, np.concatenate(labels)


def _columns(path: Path) -> tuple[list[bytes | None], NDArray[np.int64]]:
    try:
        schema = pq.read_schema(path)
        image = _column(path, schema, IMAGE_COLUMNS, "struct<bytes: binary, path: string>")
        label = _column(path, schema, LABEL_COLUMNS, "integer")
        table = pq.read_table(path, columns=[image, label])
    except (OSError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} must be a Parquet file, but cannot be read: {reason}") from error
    kind = table.schema.field(image).type
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise DataError(
            f"{path}: column {image!r} must be struct<bytes: binary, path: string>, got {kind}"
        )
    if not pa.types.is_integer(table.schema.field(label).type):
        raise DataError(
            f"{path}: column {label!r} must hold integers, got {table.schema.field(label).type}"
        )
    if table[label].null_count:
        row = table[label].to_pylist().index(None)
        raise DataError(f"{path}, row {row}: {label!r} must be an integer, got null")
    encoded = [None if cell is None else cell["bytes"] for cell in table[image].to_pylist()]
    return encoded, table[label].to_numpy().astype(np.int64)


def _column(path: Path, schema: pa.Schema, wanted: tuple[str, ...], kind: str) -> str:
    for name in wanted:
        if name in schema.names:
            return name
    raise DataError(
        f"{path} must have a column {' or '.join(map(repr, wanted))} ({kind}), "
        f"got {', '.join(schema.names) or 'no columns'}"
    )


def _decode(encoded: bytes | None, path: Path, row: int) -> NDArray[np.uint8]:
    if encoded is None:
        raise DataError(f"{path}, row {row}: the image must have bytes, got null")
    return np.asarray(decoded(io.BytesIO(encoded), place=f"{path}, row {row}"))


def _stack(
    images: list[NDArray[np.uint8]], files: list[Path], first: NDArray[np.uint8], place: str
) -> NDArray[np.uint8]:
    """uint8 (N, C, H, W) of images that must be like `first`, which lies at `place`."""
    channels = 1 if first.ndim == 2 else first.shape[2]
    stacked = np.empty((len(images), channels, *first.shape[:2]), dtype=np.uint8)
    for at, image in enumerate(images):
        if image.shape != first.shape:
            path, row = _place(files, at)
            rule, got, wanted = "be all grey or all in colour", _mode(image), _mode(first)
            if got == wanted:
                rule, got, wanted = "have one size", _size(image), _size(first)
            raise DataError(
                f"{path}, row {row}: all images must {rule}, got {got} where {place} is {wanted} "
                "(convert one to the other)"
            )
        stacked[at] = image if image.ndim == 2 else np.moveaxis(image, 2, 0)
    return stacked


def _mode(image: NDArray[np.uint8]) -> str:
    return "grey" if image.ndim == 2 else "in colour"


def _size(image: NDArray[np.uint8]) -> str:
    return f"{image.shape[1]}x{image.shape[0]} (width x height)"


def _place(files: list[Path], at: int) -> tuple[Path, int]:
    """File and row of the `at`-th image."""
    for path, rows in _rows(files):
        if at < rows:
            return path, at
        at -= rows
    raise IndexError(at)


def _rows(files: list[Path]) -> Iterator[tuple[Path, int]]:
    for path in files:
        yield path, pq.read_metadata(path).num_rows
