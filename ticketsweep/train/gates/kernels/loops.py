"""The loops of the gated step, for the CPU: what Numba compiles.

Each is one pass over memory. Noise is made a chunk at a time in a buffer that stays in the first
level cache. Logarithm, exponential, sine and cosine are polynomials (those of the Cephes library),
since calls would keep the loops from using vector registers. Errors are below 2 units in the last
place, or 1e-6 of a standard deviation.

All of it stands in one file, constants included: Numba's cache on disk notices a change of the file
that a function is in, and of no other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import float32, int32, uint32, uint64

COUNTERS, ROUNDS = 256, 10  # these and the next two are those of `noise`
CHUNK = 4 * COUNTERS
_LEFT, _RIGHT = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint32(0x9E3779B9), np.uint32(0xBB67AE85)
_EIGHTH = np.uint32(2**29)
_TURN = np.float32(2 * math.pi / 2**32)

Function = Callable[..., Any]


def compiled(function: Function) -> Function:
    """A function that is compiled when it is first called, and kept on disk where that can be."""
    # NaN stays NaN: a replicate that has diverged must be seen to have. The rest lets vectors in.
    fastmath = {"nsz", "contract", "arcp"}
    try:
        kept = numba.njit(function, cache=True, fastmath=fastmath, error_model="numpy", nogil=True)
    except RuntimeError:  # nowhere to write
        return numba.njit(function, fastmath=fastmath, error_model="numpy", nogil=True)
    return kept


inlined: Callable[[Function], Function] = numba.njit(inline="always")


@inlined
def philox(c0, c1, k0, k1):  # type: ignore[no-untyped-def]
    """Four words of random bits for the counter (c0, c1, 0, 0); see `noise.philox`."""
    c2, c3 = uint32(0), uint32(0)
    for _ in range(ROUNDS):
        left, right = uint64(c0) * _LEFT, uint64(c2) * _RIGHT
        c0, c1, c2, c3 = (
            uint32(uint32(right >> uint64(32)) ^ c1 ^ k0),
            uint32(right),
            uint32(uint32(left >> uint64(32)) ^ c3 ^ k1),
            uint32(left),
        )
        k0, k1 = uint32(k0 + _WEYL_0), uint32(k1 + _WEYL_1)
    return c0, c1, c2, c3


@inlined
def log(x):  # type: ignore[no-untyped-def]
    """Of a positive normal number."""
    bits = np.float32(x).view(np.int32)
    # x = m * 2^exponent with m in [sqrt(1/2), sqrt(2)), whose bits begin at 0x3f3504f3
    exponent = int32((bits - int32(0x3F3504F3)) >> int32(23))
    m = np.int32(bits - int32(exponent << int32(23))).view(np.float32)
    y = m - float32(1)
    square = y * y
    p = float32(7.0376836292e-2)
    p = p * y + float32(-1.1514610310e-1)
    p = p * y + float32(1.1676998740e-1)
    p = p * y + float32(-1.2420140846e-1)
    p = p * y + float32(1.4249322787e-1)
    p = p * y + float32(-1.6668057665e-1)
    p = p * y + float32(2.0000714765e-1)
    p = p * y + float32(-2.4999993993e-1)
    p = p * y + float32(3.3333331174e-1)
    return y + (p * y * square - float32(0.5) * square) + float32(exponent) * float32(0.69314718056)


@inlined
def exp(x):  # type: ignore[no-untyped-def]
    """Of a number <= 88; below -87 it stays at exp(-87)."""
    x = float32(-87) if x < float32(-87) else x
    power = np.floor(x * float32(1.44269504088896341) + float32(0.5))
    x = x - power * float32(0.693359375) - power * float32(-2.12194440e-4)
    p = float32(1.9875691500e-4)
    p = p * x + float32(1.3981999507e-3)
    p = p * x + float32(8.3334519073e-3)
    p = p * x + float32(4.1665795894e-2)
    p = p * x + float32(1.6666665459e-1)
    p = p * x + float32(5.0000001201e-1)
    return (p * x * x + x + float32(1)) * np.int32((int32(power) + int32(127)) << int32(23)).view(
        np.float32
    )


@inlined
def _circle(word):  # type: ignore[no-untyped-def]
    """Cosine and sine of a share of a turn: `word / 2^32`."""
    quarter = uint32((word + _EIGHTH) >> uint32(30))  # the nearest
    x = float32(int32(word - uint32(quarter << uint32(30)))) * _TURN  # in [-pi / 4, pi / 4)
    square = x * x
    p = float32(-1.9515295891e-4) * square + float32(8.3321608736e-3)
    sine = (p * square + float32(-1.6666654611e-1)) * square * x + x
    p = float32(2.443315711809948e-5) * square + float32(-1.388731625493765e-3)
    p = p * square + float32(4.166664568298827e-2)
    cosine = p * square * square - float32(0.5) * square + float32(1)
    is_odd = (quarter & uint32(1)) != uint32(0)
    across, up = (sine, cosine) if is_odd else (cosine, sine)
    is_left = ((quarter + uint32(1)) & uint32(2)) != uint32(0)
    is_below = (quarter & uint32(2)) != uint32(0)
    return (-across if is_left else across), (-up if is_below else up)


@inlined
def normal_pair(first, second):  # type: ignore[no-untyped-def]
    """Two standard normal numbers from two words; see `noise.normals`."""
    uniform = float32(first) * float32(2.0**-32) + float32(2.0**-33)
    radius = np.sqrt(float32(-2) * log(uniform))
    across, up = _circle(second)
    return radius * across, radius * up


@inlined
def logistic(word):  # type: ignore[no-untyped-def]
    """A number of the standard logistic distribution: the logit of a uniform one."""
    uniform = (float32(uint32(word >> uint32(9))) + float32(0.5)) * float32(2.0**-23)
    return log(uniform / (float32(1) - uniform))


@inlined
def sigmoid(x):  # type: ignore[no-untyped-def]
    """Of any number; from 1e-38 up."""
    x = -x
    x = float32(87) if x > float32(87) else x
    return float32(1) / (float32(1) + exp(x))


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
