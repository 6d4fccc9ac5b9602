"""The loops of the gated step, for the CPU; each is one pass over memory.

Noise is made a chunk at a time in a buffer that stays in the first level cache.
"""

from __future__ import annotations

import numpy as np
from numba import float32, uint32

from ticketsweep.train.gates.kernels.noise import CHUNK, COUNTERS
from ticketsweep.train.gates.kernels.vector import (
    compiled,
    exp,
    logistic,
    normal_pair,
    philox,
    sigmoid,
)


@compiled
def normals(out, place, step, k0, k1):  # type: ignore[no-untyped-def]
    """A chunk (4, COUNTERS) whose first counter is `place`."""
    r0, r1, r2, r3 = out[0], out[1], out[2], out[3]
    for i in range(COUNTERS):
        w0, w1, w2, w3 = philox(uint32(place + uint32(i)), step, k0, k1)
        r0[i], r1[i] = normal_pair(w0, w1)
        r2[i], r3[i] = normal_pair(w2, w3)


@compiled
def logistics(out, place, step, k0, k1):  # type: ignore[no-untyped-def]
    """As `_normals`."""
    r0, r1, r2, r3 = out[0], out[1], out[2], out[3]
    for i in range(COUNTERS):
        w0, w1, w2, w3 = philox(uint32(place + uint32(i)), step, k0, k1)
        r0[i], r1[i] = logistic(w0), logistic(w1)
        r2[i], r3[i] = logistic(w2), logistic(w3)


@compiled
def gaussian_chunk(noise, mu, weights, gated, sigma):  # type: ignore[no-untyped-def]
    """One chunk of `gaussian`, from its noise."""
    for i in range(gated.shape[0]):
        z = mu[i] + sigma * noise[i]
        z = float32(0) if z < float32(0) else z
        gated[i] = (float32(1) if z > float32(1) else z) * weights[i]


@compiled
def gaussian(mu, weights, gated, keys, step, sigma, first, last):  # type: ignore[no-untyped-def]
    """`Kernels.gaussian`: gates from `first`, which begins a chunk, to `last` of each row."""
    noise = np.empty((4, COUNTERS), np.float32)
    for r in range(gated.shape[0]):
        for chunk in range(first // CHUNK, (last + CHUNK - 1) // CHUNK):
            normals(noise, uint32(chunk * COUNTERS), step, keys[r, 0], keys[r, 1])
            a, b = chunk * CHUNK, min((chunk + 1) * CHUNK, gated.shape[1])
            gaussian_chunk(noise.reshape(-1), mu[r, a:b], weights[r, a:b], gated[r, a:b], sigma)


@compiled
def gaussian_gradient_row(g, mu, weights, gated, c, scale):  # type: ignore[no-untyped-def]
    """A part of one row of `gaussian_gradient`; `c` is `-1 / (2 sigma^2)`."""
    for i in range(gated.shape[0]):
        is_clipped = gated[i] == float32(0) or gated[i] == weights[i]
        through = float32(0) if is_clipped else g[i] * weights[i]
        gated[i] = through + scale * exp(c * mu[i] * mu[i])


@compiled
def gaussian_gradient(g, mu, weights, gated, c, scale, at, first, last):  # type: ignore[no-untyped-def]
    """`Kernels.gaussian_gradient` of the layer from `at` on: its gates from `first` to `last`."""
    for r in range(gated.shape[0]):
        a, b = at + first, at + last
        gaussian_gradient_row(
            g[r, first:last], mu[r, a:b], weights[r, a:b], gated[r, a:b], c, scale[r]
        )


@compiled
def concrete_chunk(noise, log_alpha, weights, s, gated, cold, low, high):  # type: ignore[no-untyped-def]
    """One chunk of `concrete`, from its noise."""
    for i in range(gated.shape[0]):
        s[i] = sigmoid((noise[i] + log_alpha[i]) * cold)
        z = s[i] * (high - low) + low
        z = float32(0) if z < float32(0) else z
        gated[i] = (float32(1) if z > float32(1) else z) * weights[i]


@compiled
def concrete(log_alpha, weights, s, gated, keys, step, cold, low, high, first, last):  # type: ignore[no-untyped-def]
    """`Kernels.hard_concrete`; see `gaussian`. `cold` is `1 / beta`."""
    noise = np.empty((4, COUNTERS), np.float32)
    for r in range(gated.shape[0]):
        for chunk in range(first // CHUNK, (last + CHUNK - 1) // CHUNK):
            logistics(noise, uint32(chunk * COUNTERS), step, keys[r, 0], keys[r, 1])
            a, b = chunk * CHUNK, min((chunk + 1) * CHUNK, gated.shape[1])
            concrete_chunk(
                noise.reshape(-1), log_alpha[r, a:b], weights[r, a:b], s[r, a:b], gated[r, a:b],
                cold, low, high,
            )  # fmt: skip


@compiled
def concrete_gradient_row(g, log_alpha, weights, s, gated, slope, shift, least, scale):  # type: ignore[no-untyped-def]
    """A part of one row of `concrete_gradient`."""
    for i in range(gated.shape[0]):
        is_clipped = gated[i] == float32(0) or gated[i] == weights[i]
        through = float32(0) if is_clipped else g[i] * weights[i]
        x = log_alpha[i] - shift
        p = sigmoid(least if x < least else x)
        gated[i] = through * slope * s[i] * (float32(1) - s[i]) + scale * p * (float32(1) - p)


@compiled
def concrete_gradient(  # type: ignore[no-untyped-def]
    g, log_alpha, weights, s, gated, slope, shift, least, scale, at, first, last
):
    """`Kernels.hard_concrete_gradient`; see `gaussian_gradient`."""
    for r in range(gated.shape[0]):
        a, b = at + first, at + last
        concrete_gradient_row(
            g[r, first:last], log_alpha[r, a:b], weights[r, a:b], s[r, a:b], gated[r, a:b],
            slope, shift, least, scale[r],
        )  # fmt: skip


@compiled
def sigmoid_row(scores, weights, z, gated, cold, least):  # type: ignore[no-untyped-def]
    """A part of one row of `sigmoids`; `cold` is `1 / temperature`."""
    for i in range(gated.shape[0]):
        x = scores[i] * cold
        z[i] = sigmoid(least if x < least else x)
        gated[i] = z[i] * weights[i]


@compiled
def sigmoids(scores, weights, z, gated, cold, least, first, last):  # type: ignore[no-untyped-def]
    """`Kernels.sigmoid`, from `first` to before `last` of each row."""
    for r in range(gated.shape[0]):
        sigmoid_row(
            scores[r, first:last], weights[r, first:last], z[r, first:last], gated[r, first:last],
            cold, least,
        )  # fmt: skip


@compiled
def sigmoid_gradient_row(g, weights, z, out, cold, scale):  # type: ignore[no-untyped-def]
    """A part of one row of `sigmoid_gradient`."""
    for i in range(out.shape[0]):
        out[i] = (g[i] * weights[i] + scale) * z[i] * (float32(1) - z[i]) * cold


@compiled
def sigmoid_gradient(g, weights, z, out, cold, scale, at, first, last):  # type: ignore[no-untyped-def]
    """`Kernels.sigmoid_gradient`; see `gaussian_gradient`."""
    for r in range(out.shape[0]):
        a, b = at + first, at + last
        sigmoid_gradient_row(
            g[r, first:last], weights[r, a:b], z[r, a:b], out[r, a:b], cold, scale[r]
        )
