"""The gated step for the CPU, compiled by Numba for the processor at hand.

Functions are compiled when they are first used (some seconds) and kept on disk for other processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ticketsweep.train.gates.kernels import loops
from ticketsweep.train.gates.kernels.loops import Function
from ticketsweep.train.gates.kernels.noise import CHUNK
from ticketsweep.train.pack import Layers, Layout

# A step of fewer gates a thread is over before another thread has begun.
_GATES_A_THREAD = 2**17
_BIG = 2**16  # gates of a layer whose copy takes longer than a call

Array = np.ndarray[Any, np.dtype[Any]]


class CompiledKernels:
    """See `Kernels`. Big rows are shared out among as many threads as torch has."""

    def __init__(self, layout: Layout, seeds: Sequence[int]) -> None:
        self._size = layout.size
        self._starts = [sum(layout.sizes[:at]) for at in range(len(layout.sizes))]
        self._rows = len(seeds)
        self._keys = np.array(
            [(seed & 0xFFFFFFFF, seed >> 32) for seed in seeds], dtype=np.uint32
        ).reshape(-1, 2)

    def gaussian(
        self, mu: Tensor, weights: Tensor, gated: Tensor, *, step: int, sigma: float
    ) -> None:
        """See `Kernels`."""
        arguments = (*_arrays(mu, weights, gated), self._keys, np.uint32(step), np.float32(sigma))
        self._share(loops.gaussian, arguments, self._size)

    def gaussian_gradient(
        self,
        gradients: Layers,
        mu: Tensor,
        weights: Tensor,
        gated: Tensor,
        *,
        sigma: float,
        scale: Tensor,
    ) -> None:
        """See `Kernels`."""
        arrays = _arrays(mu, weights, gated)
        numbers = (np.float32(-0.5 / sigma**2),)
        self._by_layer(loops.gaussian_gradient, gradients, arrays, numbers, scale)

    def hard_concrete(
        self,
        log_alpha: Tensor,
        weights: Tensor,
        s: Tensor,
        gated: Tensor,
        *,
        step: int,
        beta: float,
        limits: tuple[float, float],
    ) -> None:
        """See `Kernels`."""
        arrays = _arrays(log_alpha, weights, s, gated)
        numbers = (np.float32(1 / beta), np.float32(limits[0]), np.float32(limits[1]))
        arguments = (*arrays, self._keys, np.uint32(step), *numbers)
        self._share(loops.concrete, arguments, self._size)

    def hard_concrete_gradient(
        self,
        gradients: Layers,
        log_alpha: Tensor,
        weights: Tensor,
        s: Tensor,
        gated: Tensor,
        *,
        slope: float,
        shift: float,
        least: float,
        scale: Tensor,
    ) -> None:
        """See `Kernels`."""
        arrays = _arrays(log_alpha, weights, s, gated)
        numbers = (np.float32(slope), np.float32(shift), np.float32(least))
        self._by_layer(loops.concrete_gradient, gradients, arrays, numbers, scale)

    def sigmoid(
        self,
        scores: Tensor,
        weights: Tensor,
        z: Tensor,
        gated: Tensor,
        *,
        temperature: float,
        least: float,
    ) -> None:
        """See `Kernels`."""
        arrays = _arrays(scores, weights, z, gated)
        numbers = (np.float32(1 / temperature), np.float32(least))
        self._share(loops.sigmoids, (*arrays, *numbers), self._size)

    def sigmoid_gradient(
        self,
        gradients: Layers,
        weights: Tensor,
        z: Tensor,
        out: Tensor,
        *,
        temperature: float,
        scale: Tensor,
    ) -> None:
        """See `Kernels`."""
        arrays = _arrays(weights, z, out)
        self._by_layer(
            loops.sigmoid_gradient, gradients, arrays, (np.float32(1 / temperature),), scale
        )

    def _by_layer(
        self,
        function: Function,
        gradients: Layers,
        arrays: Sequence[Array],
        numbers: Sequence[object],
        scale: Tensor,
    ) -> None:
        """Call `function` for the gradient of each layer.

        A product may have left it transposed. Of big layers one replicate after the other is then
        copied, so that the copy takes no memory to speak of.
        """
        scales = scale.numpy()
        for gradient, at in zip(gradients, self._starts, strict=True):
            layer = gradient.detach().flatten(1) if gradient.is_contiguous() else gradient.detach()
            count = layer[0].numel()
            is_big = not layer.is_contiguous() and count >= _BIG
            for first in range(0, len(layer), 1 if is_big else len(layer)):
                of = slice(first, first + 1) if is_big else slice(None)
                rows = layer[of].flatten(1).contiguous().numpy()
                parts = (array[of] for array in arrays)
                self._share(function, (rows, *parts, *numbers, scales[of], at), count)

    def _share(self, function: Function, arguments: tuple[object, ...], count: int) -> None:
        """Call `function(*arguments, first, last)` for all of `count` gates of each row.

        Parts begin at whole chunks, so that every gate is at the same place of a vector register
        however many threads there are, and rounded alike.
        """
        chunks = -(-count // CHUNK)
        threads = min(
            torch.get_num_threads(), chunks, max(1, count * self._rows // _GATES_A_THREAD)
        )
        if threads == 1:
            function(*arguments, 0, count)
            return
        bounds = [min(count, chunks * at // threads * CHUNK) for at in range(threads + 1)]
        parts = [
            _threads().submit(function, *arguments, first, last)
            for first, last in itertools.pairwise(bounds[1:])
        ]
        function(*arguments, 0, bounds[1])
        for part in parts:
            part.result()


_pool: list[ThreadPoolExecutor] = []


def _threads() -> ThreadPoolExecutor:
    """One pool for the process: threads that wait cost nothing."""
    if not _pool:
        _pool.append(ThreadPoolExecutor(thread_name_prefix="gates"))
    return _pool[0]


def _arrays(*tensors: Tensor) -> tuple[Array, ...]:
    return tuple(tensor.detach().numpy() for tensor in tensors)
