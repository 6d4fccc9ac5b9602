"""What loops are made of that Numba compiles: how, random bits, and functions without branches.

Logarithm, exponential, sine and cosine are polynomials (those of the Cephes library), since calls
would keep the loops from using vector registers. Errors are below 2 units in the last place, or
1e-6 of a standard deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import float32, int32, uint32, uint64

from ticketsweep.train.gates.kernels.noise import MULTIPLIERS, ROUNDS, WEYL

_LEFT, _RIGHT = np.uint64(MULTIPLIERS[0]), np.uint64(MULTIPLIERS[1])
_WEYL_0, _WEYL_1 = np.uint32(WEYL[0]), np.uint32(WEYL[1])
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
