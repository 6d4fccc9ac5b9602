"""Images that are decoded as they are used, by worker processes ahead of training."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ticketsweep.errors import DataError, TrialFailure
from ticketsweep.train.decoding import decoded, fitted
from ticketsweep.train.imagefolder import ImageFiles

WORKERS = 4
CHUNK = 64  # images that a worker decodes at once: 10 MB at 224 x 224


@dataclass(frozen=True)
class StreamedPixels:
    """The pixels of image files, decoded on request.

    Attributes
    ----------
    device: where decoded pixels are put.
    """

    files: ImageFiles
    device: torch.device

    def gather(self, requests: Iterable[Tensor]) -> Generator[Tensor]:
        """Pixels uint8 (*rows.shape, 3, size, size) of the rows of each request, in order.

        Requests are drawn ahead, while earlier images are used. An image that several replicates
        ask for at once is decoded once. When this is closed, its processes end.

        Raises
        ------
        DataError: an image cannot be decoded; the message names its file.
        TrialFailure: a worker process was killed.
        """
        sent: deque[_Request] = deque()
        arriving = iter(_loader(self.files, _chunks(requests, sent), self.device))
        chunks: list[Tensor] = []
        try:
            for chunk in arriving:
                if isinstance(chunk, str):
                    raise DataError(chunk)
                chunks.append(chunk.to(self.device, non_blocking=True))
                if len(chunks) == sent[0].chunks:
                    request = sent.popleft()
                    images = torch.cat(chunks)[request.places.to(self.device)]
                    chunks.clear()
                    yield images
        except (RuntimeError, ConnectionError, EOFError) as error:
            # One that is killed while it hands over its images leaves a broken connection.
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            raise TrialFailure(
                "a process that decodes images was killed (is there enough memory, and room in "
                "/dev/shm?)"
            ) from error
        finally:
            del arriving  # ends the worker processes, though a traceback may hold this frame


@dataclass(frozen=True)
class _Request:
    """A request on its way: its number of chunks, and where in them each of its rows lies."""

    chunks: int
    places: Tensor


def _chunks(requests: Iterable[Tensor], sent: deque[_Request]) -> Iterator[Tensor]:
    for rows in requests:
        distinct, places = torch.unique(rows.cpu(), return_inverse=True)
        pieces = torch.split(distinct, CHUNK)
        sent.append(_Request(len(pieces), places))
        yield from pieces


class _Decoder(Dataset[Tensor | str]):
    """Decodes chunks of images in a worker. The names are tensors, which processes share."""

    def __init__(self, files: ImageFiles) -> None:
        self._folder, self._size = files.folder, files.size
        self._names, self._ends = torch.tensor(files.names), torch.tensor(files.ends)

    def __getitem__(self, rows: Tensor) -> Tensor | str:
        """Pixels uint8 (N, 3, size, size); or what is wrong with the first that has none."""
        files = ImageFiles(self._folder, self._names.numpy(), self._ends.numpy(), self._size)
        pixels = np.empty((len(rows), self._size, self._size, 3), dtype=np.uint8)
        for into, row in zip(pixels, rows.tolist(), strict=True):
            path = files.path(row)
            try:
                image = fitted(decoded(path, place=str(path)).convert("RGB"), self._size)
            except DataError as error:
                return str(error)  # raised here, it would arrive wrapped in a traceback
            into[:] = np.asarray(image)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def _loader(
    files: ImageFiles, chunks: Iterator[Tensor], device: torch.device
) -> DataLoader[Tensor | str]:
    # A fork of a process with threads, as a Ray worker is one, may wait for ever for a lock. A
    # fork server has none, and imports torch once for all workers.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", __name__])
    # Ray sets torch's threads to the CPUs of a trial.
    workers = min(WORKERS, torch.get_num_threads(), os.cpu_count() or 1)
    return DataLoader(
        _Decoder(files),
        sampler=chunks,
        batch_size=None,  # a chunk is one item
        num_workers=workers,
        multiprocessing_context=context,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # the global one is not ours to draw from
    )
