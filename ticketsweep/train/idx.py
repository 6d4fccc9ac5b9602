"""Images in MNIST's own format, read without torchvision, which takes seconds to import."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ticketsweep.train.data import Split

_BYTES = 8  # the format's code of unsigned bytes


def read_idx_folder(folder: Path) -> tuple[Split, Split] | None:
    """Training and test split of a folder with the four files, plain or as .gz.

    None unless all of them are there and sound: torchvision's reader then says what is wrong, or
    has them downloaded.
    """
    splits = []
    for prefix in ("train", "t10k"):
        images = _array(folder / f"{prefix}-images-idx3-ubyte", axes=3)
        labels = _array(folder / f"{prefix}-labels-idx1-ubyte", axes=1)
        if images is None or labels is None or len(images) != len(labels):
            return None
        splits.append(Split(images[:, None], labels.astype(np.int64)))
    return splits[0], splits[1]


def _array(path: Path, *, axes: int) -> NDArray[np.uint8] | None:
    """What a file holds, big-endian sizes before the bytes; None if it is not there or damaged."""
    try:
        if path.exists():
            content = path.read_bytes()
        else:
            content = gzip.decompress(path.with_name(f"{path.name}.gz").read_bytes())
    except (OSError, EOFError, zlib.error):
        return None
    start = 4 * (axes + 1)
    if len(content) < start or content[:4] != bytes((0, 0, _BYTES, axes)):
        return None
    shape = np.frombuffer(content, dtype=">u4", count=axes, offset=4).tolist()
    if len(content) != start + math.prod(shape):
        return None
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)
