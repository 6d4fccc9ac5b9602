"""Images as a training loop sees them, and the order in which a replicate does."""

from __future__ import annotations

import contextlib
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ticketsweep.train.augment import Augmentation
from ticketsweep.train.data import Dataset
from ticketsweep.train.imagefolder import ImageFiles
from ticketsweep.train.streaming import StreamedPixels

SAMPLED = 2000  # images of a data set of files, for its mean and standard deviation


class BatchOrder:
    """Endless batches of row numbers: a fresh permutation each epoch, from a generator of its own.

    The permutations are joined and cut into batches, so a batch may straddle two epochs. None is
    short, no row is left out, and a data set smaller than a batch is repeated within it.

    Parameters
    ----------
    rows: int64 (N,), the row numbers to draw from; batches lie on its device.
    """

    def __init__(self, rows: Tensor, *, batch_size: int, seed: int) -> None:
        self._rows = rows
        self._batch_size = batch_size
        self._generator = torch.Generator().manual_seed(seed)
        self._pending = rows[:0]

    def next(self) -> Tensor:
        """The next row numbers, int64 (batch_size,)."""
        while len(self._pending) < self._batch_size:
            order = torch.randperm(len(self._rows), generator=self._generator)
            epoch = self._rows[order.to(self._rows.device)]
            self._pending = torch.cat([self._pending, epoch])
        batch, self._pending = (
            self._pending[: self._batch_size],
            self._pending[self._batch_size :],
        )
        return batch

    def skip(self, batches: int) -> None:
        """Go on as if that many batches had been drawn: a resumed trial draws them again."""
        for _ in range(batches):
            self.next()


@dataclass(frozen=True)
class Images:
    """A split of uint8 pixels, which become standardised floats as they are used.

    Attributes
    ----------
    pixels: uint8 (N, C, H, W) in the device's memory, or streamed to it from files.
    labels: int64 (N,).
    mean, std: float32 (C, 1, 1), of the pixels 0..255 that are trained on.
    """

    pixels: Tensor | StreamedPixels
    labels: Tensor
    mean: Tensor
    std: Tensor

    @property
    def nbytes(self) -> int:
        """Of pixels and labels in the device's memory."""
        pixels = 0 if isinstance(self.pixels, StreamedPixels) else self.pixels.nbytes
        return pixels + self.labels.nbytes

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images float32 (*rows.shape, C, H, W) and labels (*rows.shape) of these rows."""
        (pixels,) = self.gather([rows])
        return self.standardised(pixels), self.labels_of(rows)

    def gather(self, requests: Iterable[Tensor]) -> Generator[Tensor]:
        """Pixels uint8 (*rows.shape, C, H, W) of the rows of each request."""
        if isinstance(self.pixels, StreamedPixels):
            return self.pixels.gather(requests)
        return _gathered(self.pixels, requests)

    def standardised(self, pixels: Tensor) -> Tensor:
        """Pixels (…, C, H, W) as float32, less the mean, over the standard deviation."""
        return pixels.float().sub_(self.mean).div_(self.std)

    def labels_of(self, rows: Tensor) -> Tensor:
        """Labels of these rows, in their shape."""
        return self.labels.index_select(0, rows.reshape(-1)).view(rows.shape)


def _gathered(pixels: Tensor, requests: Iterable[Tensor]) -> Generator[Tensor]:
    for rows in requests:
        yield pixels.index_select(0, rows.reshape(-1)).view(*rows.shape, *pixels.shape[1:])


def training_batches(
    images: Images,
    orders: Sequence[BatchOrder],
    *,
    first: int,
    steps: int,
    augmentation: Augmentation | None,
) -> Generator[tuple[Tensor, Tensor]]:
    """Images float32 (R, B, C, H, W) and labels (R, B) of the steps `first` to `steps` - 1.

    Close it where not all of it is used: images that are streamed have worker processes.

    Parameters
    ----------
    orders: one a replicate, which have drawn `first` batches each (`BatchOrder.skip`).
    augmentation: of as many replicates, or None for the images as they are.
    """
    drawn: deque[Tensor] = deque()  # rows whose images are on their way

    def requests() -> Iterator[Tensor]:
        for _ in range(first, steps):
            drawn.append(torch.stack([order.next() for order in orders]))
            yield drawn[-1]

    with contextlib.closing(images.gather(requests())) as gathered:
        for step, pixels in enumerate(gathered, start=first):
            seen = pixels if augmentation is None else augmentation(pixels, step=step)
            yield images.standardised(seen), images.labels_of(drawn.popleft())


def evaluation_batches(images: Images, rows: Tensor, size: int) -> Generator[tuple[Tensor, Tensor]]:
    """Images float32 (B, C, H, W) and labels (B,) of `rows`, in their order, B <= `size`."""
    pieces = torch.split(rows, size)
    with contextlib.closing(images.gather(pieces)) as gathered:
        for piece, pixels in zip(pieces, gathered, strict=True):
            yield images.standardised(pixels), images.labels_of(piece)


def as_tensor(array: NDArray[Any], device: torch.device) -> Tensor:
    """The array as a tensor on the device; on the CPU without a copy, and only to be read.

    Arrays out of Ray's object store are read-only, which torch warns of: nothing here writes.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)


def channel_statistics(
    images: NDArray[np.uint8] | ImageFiles, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation per channel of `images[rows]`, float32 (C, 1, 1).

    Of files, `SAMPLED` of the rows are looked at, evenly spread. The sums are exact integers. A
    constant channel has standard deviation 1, so that it can be divided by.
    """
    sums = np.zeros((2, images.shape[1]), dtype=np.int64)
    count = 0
    for piece in _pieces(images, rows):
        sums[0] += piece.sum(axis=(0, 2, 3), dtype=np.int64)
        sums[1] += np.square(piece, dtype=np.uint16).sum(axis=(0, 2, 3), dtype=np.int64)
        count += piece[:, 0].size
    mean = sums[0] / count
    std = np.sqrt(np.maximum(sums[1] / count - mean**2, 0))
    std[std == 0] = 1
    return (
        mean.astype(np.float32).reshape(-1, 1, 1),
        std.astype(np.float32).reshape(-1, 1, 1),
    )


def _pieces(
    images: NDArray[np.uint8] | ImageFiles, rows: NDArray[np.int64]
) -> Iterator[NDArray[np.uint8]]:
    """The images of these rows, a part at a time: a copy of all may not fit."""
    if isinstance(images, ImageFiles):
        spread = np.linspace(0, len(rows) - 1, min(len(rows), SAMPLED)).astype(np.int64)
        parts = torch.split(torch.from_numpy(rows[spread]), 100)
        for piece in StreamedPixels(images, torch.device("cpu")).gather(parts):
            yield piece.numpy()
    else:
        for start in range(0, len(rows), 4096):
            yield images[rows[start : start + 4096]]


def open_images(
    dataset: Dataset, rows: NDArray[np.int64], device: torch.device
) -> tuple[Images, Images]:
    """The training and the test split, both standardised by the images that are trained on.

    Arrays are put into the device's memory, files are streamed to it.

    Parameters
    ----------
    rows: int64 (N,), the rows of the training split that are trained on.
    """
    mean, std = (
        as_tensor(array, device) for array in channel_statistics(dataset.train_images, rows)
    )

    def opened(images: NDArray[np.uint8] | ImageFiles, labels: NDArray[np.int64]) -> Images:
        if isinstance(images, ImageFiles):
            pixels: Tensor | StreamedPixels = StreamedPixels(images, device)
        else:
            pixels = as_tensor(images, device)
        return Images(pixels, as_tensor(labels, device), mean, std)

    return (
        opened(dataset.train_images, dataset.train_labels),
        opened(dataset.test_images, dataset.test_labels),
    )
