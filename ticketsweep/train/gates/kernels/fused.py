"""The gated step for CUDA: one Triton kernel each way.

Noise is made in registers from the counters that `noise` describes, and never stored.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ticketsweep.train.gates.kernels import noise
from ticketsweep.train.pack import Layers, Layout

_COUNTERS = tl.constexpr(noise.COUNTERS)
_ROUNDS = tl.constexpr(noise.ROUNDS)
_TURN = tl.constexpr(2 * math.pi / 2**32)
_BLOCK = 1024  # gates of a layer that one program takes backward


@triton.jit
def _words(seed, step):  # type: ignore[no-untyped-def]
    place = (tl.program_id(0) * _COUNTERS + tl.arange(0, _COUNTERS)).to(tl.uint32)
    nothing = tl.zeros_like(place)
    return tl.philox(seed, place, nothing + step.to(tl.uint32), nothing, nothing, _ROUNDS)


@triton.jit
def _normals(first, second):  # type: ignore[no-untyped-def]
    radius = tl.sqrt(-2 * tl.log(first.to(tl.float32) * 2.0**-32 + 2.0**-33))
    angle = second.to(tl.int32, bitcast=True).to(tl.float32) * _TURN
    return radius * tl.cos(angle), radius * tl.sin(angle)


@triton.jit
def _clipped(z):  # type: ignore[no-untyped-def]
    # Not by minimum and maximum, which may lose the NaN of a replicate that has diverged.
    z = tl.where(z < 0, 0.0, z)
    return tl.where(z > 1, 1.0, z)


@triton.jit
def _sigmoid(x):  # type: ignore[no-untyped-def]
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _gaussian_word(mu, weights, gated, place, mask, eps, sigma):  # type: ignore[no-untyped-def]
    z = _clipped(tl.load(mu + place, mask) + sigma * eps)
    tl.store(gated + place, z * tl.load(weights + place, mask), mask)


# A number that is 1 would be made part of the kernel, and one that 16 divides another kernel.
@triton.jit(do_not_specialize=["step"])
def _gaussian(mu, weights, gated, seeds, step, sigma, size):  # type: ignore[no-untyped-def]
    row = tl.program_id(1).to(tl.int64)
    w0, w1, w2, w3 = _words(tl.load(seeds + row), step)
    n0, n1 = _normals(w0, w1)
    n2, n3 = _normals(w2, w3)
    first = tl.program_id(0).to(tl.int64) * 4 * _COUNTERS + tl.arange(0, _COUNTERS)
    start = row * size + first
    _gaussian_word(mu, weights, gated, start, first < size, n0, sigma)
    first += _COUNTERS
    _gaussian_word(mu, weights, gated, start + _COUNTERS, first < size, n1, sigma)
    first += _COUNTERS
    _gaussian_word(mu, weights, gated, start + 2 * _COUNTERS, first < size, n2, sigma)
    first += _COUNTERS
    _gaussian_word(mu, weights, gated, start + 3 * _COUNTERS, first < size, n3, sigma)


@triton.jit
def _concrete_word(log_alpha, weights, s, gated, place, mask, word, cold, low, high):  # type: ignore[no-untyped-def]
    uniform = ((word >> 9).to(tl.float32) + 0.5) * 2.0**-23
    logit = tl.log(uniform / (1 - uniform))
    value = _sigmoid((logit + tl.load(log_alpha + place, mask)) * cold)
    tl.store(s + place, value, mask)
    z = _clipped(value * (high - low) + low)
    tl.store(gated + place, z * tl.load(weights + place, mask), mask)


@triton.jit(do_not_specialize=["step"])
def _concrete(log_alpha, weights, s, gated, seeds, step, cold, low, high, size):  # type: ignore[no-untyped-def]
    row = tl.program_id(1).to(tl.int64)
    w0, w1, w2, w3 = _words(tl.load(seeds + row), step)
    at = tl.program_id(0).to(tl.int64) * 4 * _COUNTERS + tl.arange(0, _COUNTERS)
    to = row * size + at
    _concrete_word(log_alpha, weights, s, gated, to, at < size, w0, cold, low, high)
    at, to = at + _COUNTERS, to + _COUNTERS
    _concrete_word(log_alpha, weights, s, gated, to, at < size, w1, cold, low, high)
    at, to = at + _COUNTERS, to + _COUNTERS
    _concrete_word(log_alpha, weights, s, gated, to, at < size, w2, cold, low, high)
    at, to = at + _COUNTERS, to + _COUNTERS
    _concrete_word(log_alpha, weights, s, gated, to, at < size, w3, cold, low, high)


@triton.jit
def _places(gradients, blocks, size, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Where a block's gates lie in their layer's gradient and in the flat rows, and which exist."""
    row = tl.program_id(1).to(tl.int64)
    block = blocks + 4 * tl.program_id(0)
    layer, count, start = tl.load(block), tl.load(block + 1), tl.load(block + 2)
    gradient = tl.load(gradients + layer).to(tl.pointer_type(tl.float32))
    at = tl.load(block + 3) + tl.arange(0, BLOCK)
    return row, gradient + row * count + at, row * size + start + at, at < count


@triton.jit
def _through(own, weights, gated, place, mask):  # type: ignore[no-untyped-def]
    """The gradient by relaxed gates that are not clipped, 0 for those that are."""
    w, g = tl.load(weights + place, mask), tl.load(gated + place, mask)
    return tl.where((g == 0) | (g == w), 0.0, tl.load(own, mask) * w)


@triton.jit
def _gaussian_gradient(  # type: ignore[no-untyped-def]
    gradients, blocks, mu, weights, gated, c, scale, size, BLOCK: tl.constexpr
):
    row, own, place, mask = _places(gradients, blocks, size, BLOCK)
    through = _through(own, weights, gated, place, mask)
    value = tl.load(mu + place, mask)
    tl.store(gated + place, through + tl.load(scale + row) * tl.exp(c * value * value), mask)


@triton.jit
def _concrete_gradient(  # type: ignore[no-untyped-def]
    gradients, blocks, log_alpha, weights, s, gated, slope, shift, least, scale, size,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row, own, place, mask = _places(gradients, blocks, size, BLOCK)
    through = _through(own, weights, gated, place, mask)
    value = tl.load(s + place, mask)
    x = tl.load(log_alpha + place, mask) - shift
    p = _sigmoid(tl.where(x < least, least, x))
    penalty = tl.load(scale + row) * p * (1 - p)
    tl.store(gated + place, through * slope * value * (1 - value) + penalty, mask)


@triton.jit
def _sigmoids(scores, weights, z, gated, cold, least, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = place < count
    x = tl.load(scores + place, mask) * cold
    value = _sigmoid(tl.where(x < least, least, x))
    tl.store(z + place, value, mask)
    tl.store(gated + place, value * tl.load(weights + place, mask), mask)


@triton.jit
def _sigmoid_gradient(  # type: ignore[no-untyped-def]
    gradients, blocks, weights, z, out, cold, scale, size, BLOCK: tl.constexpr
):
    row, own, place, mask = _places(gradients, blocks, size, BLOCK)
    value = tl.load(z + place, mask)
    by_z = tl.load(own, mask) * tl.load(weights + place, mask)
    slope = value * (1 - value) * cold
    tl.store(out + place, (by_z + tl.load(scale + row)) * slope, mask)


class FusedKernels:
    """See `Kernels`."""

    def __init__(self, layout: Layout, seeds: Sequence[int], device: torch.device) -> None:
        self._size = layout.size
        blocks, start = [], 0
        for layer, count in enumerate(layout.sizes):
            blocks += [(layer, count, start, first) for first in range(0, count, _BLOCK)]
            start += count
        self._blocks = torch.tensor(blocks, dtype=torch.int64, device=device)
        self._seeds = torch.tensor(seeds, dtype=torch.int64, device=device)
        self._grid = (triton.cdiv(layout.size, noise.CHUNK), len(seeds))
        self._backward = (len(blocks), len(seeds))

    def gaussian(
        self, mu: Tensor, weights: Tensor, gated: Tensor, *, step: int, sigma: float
    ) -> None:
        """See `Kernels`."""
        arguments = (self._seeds, step, sigma, self._size)
        _gaussian[self._grid](mu.detach(), weights, gated, *arguments)

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
        c = -0.5 / sigma**2
        with self._addresses(gradients) as where:
            _gaussian_gradient[self._backward](
                *where, mu.detach(), weights, gated, c, scale, self._size, _BLOCK
            )

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
        arguments = (self._seeds, step, 1 / beta, *limits, self._size)
        _concrete[self._grid](log_alpha.detach(), weights, s, gated, *arguments)

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
        numbers = (slope, shift, least, scale, self._size)
        with self._addresses(gradients) as where:
            _concrete_gradient[self._backward](
                *where, log_alpha.detach(), weights, s, gated, *numbers, _BLOCK
            )

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
        numbers = (1 / temperature, least, scores.numel())
        grid = (triton.cdiv(scores.numel(), _BLOCK),)
        _sigmoids[grid](scores.detach(), weights, z, gated, *numbers, _BLOCK)

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
        with self._addresses(gradients) as where:
            _sigmoid_gradient[self._backward](
                *where, weights, z, out, 1 / temperature, scale, self._size, _BLOCK
            )

    @contextlib.contextmanager
    def _addresses(self, gradients: Layers) -> Iterator[tuple[Tensor, Tensor]]:
        """Where each layer's gradient lies, and the blocks: one launch takes all layers.

        A launch costs as much time as two million gates do, and a transformer has fifty layers.
        The rows must live up to the launch; after it, the stream's order protects their memory.
        """
        rows = [gradient.float().contiguous() for gradient in gradients]
        at = torch.tensor([each.data_ptr() for each in rows], dtype=torch.int64)
        yield at.to(self._blocks.device, non_blocking=True), self._blocks
