"""The gated step for CUDA: one Triton kernel each way.

Noise is made in registers from the counters that `noise` describes, and never stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
def _places(count, size, start, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Of a layer's gates in its gradient and in the flat row, and which of them there are."""
    row = tl.program_id(1).to(tl.int64)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return row, row * count + at, row * size + start + at, at < count


@triton.jit
def _through(gradient, weights, gated, own, place, mask):  # type: ignore[no-untyped-def]
    """The gradient by relaxed gates that are not clipped, 0 for those that are."""
    w, g = tl.load(weights + place, mask), tl.load(gated + place, mask)
    through = tl.load(gradient + own, mask).to(tl.float32) * w
    return tl.where((g == 0) | (g == w), 0.0, through)


@triton.jit
def _gaussian_gradient(  # type: ignore[no-untyped-def]
    gradient, mu, weights, gated, c, scale, count, size, start, BLOCK: tl.constexpr
):
    row, own, place, mask = _places(count, size, start, BLOCK)
    through = _through(gradient, weights, gated, own, place, mask)
    value = tl.load(mu + place, mask)
    tl.store(gated + place, through + tl.load(scale + row) * tl.exp(c * value * value), mask)


@triton.jit
def _concrete_gradient(  # type: ignore[no-untyped-def]
    gradient, log_alpha, weights, s, gated, slope, shift, least, scale, count, size, start,
    BLOCK: tl.constexpr,
):  # fmt: skip
    row, own, place, mask = _places(count, size, start, BLOCK)
    through = _through(gradient, weights, gated, own, place, mask)
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
    gradient, weights, z, out, cold, scale, count, size, start, BLOCK: tl.constexpr
):
    row, own, place, mask = _places(count, size, start, BLOCK)
    value = tl.load(z + place, mask)
    by_z = tl.load(gradient + own, mask).to(tl.float32) * tl.load(weights + place, mask)
    slope = value * (1 - value) * cold
    tl.store(out + place, (by_z + tl.load(scale + row)) * slope, mask)


class FusedKernels:
    """See `Kernels`."""

    def __init__(self, layout: Layout, seeds: Sequence[int], device: torch.device) -> None:
        self._size = layout.size
        self._starts = [sum(layout.sizes[:at]) for at in range(len(layout.sizes))]
        self._seeds = torch.tensor(seeds, dtype=torch.int64, device=device)
        self._grid = (triton.cdiv(layout.size, noise.CHUNK), len(seeds))

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
        for rows, grid, place in self._layers(gradients):
            _gaussian_gradient[grid](rows, mu.detach(), weights, gated, c, scale, *place)

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
        numbers = (slope, shift, least, scale)
        for rows, grid, place in self._layers(gradients):
            _concrete_gradient[grid](rows, log_alpha.detach(), weights, s, gated, *numbers, *place)

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
        for rows, grid, place in self._layers(gradients):
            _sigmoid_gradient[grid](rows, weights, z, out, 1 / temperature, scale, *place)

    def _layers(
        self, gradients: Layers
    ) -> list[tuple[Tensor, tuple[int, int], tuple[int, int, int, int]]]:
        """Rows (R, n) of each layer's gradient, its grid, and where it lies in the flat rows."""
        layers = [gradient.flatten(1).contiguous() for gradient in gradients]
        return [
            (
                rows,
                (triton.cdiv(rows.shape[1], _BLOCK), len(rows)),
                (rows.shape[1], self._size, start, _BLOCK),
            )
            for rows, start in zip(layers, self._starts, strict=True)
        ]
