"""The popcount of all pairs of masks as machine code. Importing this imports numba and compiles.

The code is kept on disk beside this file, or in the user's cache where that cannot be written, and
is made anew for another processor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numba
import numpy as np
from numba.extending import intrinsic
from numpy.typing import NDArray

AddTile: TypeAlias = Callable[[NDArray[np.uint64], NDArray[np.int64], int, int, int, int], None]

ROWS, COLUMNS = 2, 4
"""Masks that one pass holds in registers: six loads feed eight counts."""

if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]  # numba sets it as it is imported
    raise ImportError("NUMBA_DISABLE_JIT is set")


def _type_popcount(_typing: Any, word: Any) -> Any:
    """Bits set in a word, as LLVM's `ctpop`, which becomes one vector instruction where it can."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return word(word), generate


_popcount: Any = intrinsic(_type_popcount)


def _add_tile(
    words: NDArray[np.uint64],
    shared: NDArray[np.int64],
    top: int,
    bottom: int,
    left: int,
    right: int,
) -> None:
    """Add the bits that masks `top:bottom` share with masks `left:right` to `shared`.

    All four are multiples of `COLUMNS`. What lies below the diagonal by a whole pass is left out.

    Parameters
    ----------
    words: uint64 (M, w), one mask a row, C order; M a multiple of `COLUMNS`.
    shared: int64 (M, M), C order, added to in place.
    """
    for i in range(top, bottom, ROWS):
        for j in range(max(left, i // COLUMNS * COLUMNS), right, COLUMNS):
            s00 = s01 = s02 = s03 = s10 = s11 = s12 = s13 = np.uint64(0)
            for k in range(words.shape[1]):
                a, b = words[i, k], words[i + 1, k]
                p, q, r, s = words[j, k], words[j + 1, k], words[j + 2, k], words[j + 3, k]
                s00 += _popcount(a & p)
                s01 += _popcount(a & q)
                s02 += _popcount(a & r)
                s03 += _popcount(a & s)
                s10 += _popcount(b & p)
                s11 += _popcount(b & q)
                s12 += _popcount(b & r)
                s13 += _popcount(b & s)
            shared[i, j] += s00
            shared[i, j + 1] += s01
            shared[i, j + 2] += s02
            shared[i, j + 3] += s03
            shared[i + 1, j] += s10
            shared[i + 1, j + 1] += s11
            shared[i + 1, j + 2] += s12
            shared[i + 1, j + 3] += s13


def _compile() -> AddTile:
    signature = "void(uint64[:,::1], int64[:,::1], int64, int64, int64, int64)"
    try:
        compiled: AddTile = numba.njit(signature, nogil=True, cache=True)(_add_tile)
    except RuntimeError:  # no place for the cache can be written
        compiled = numba.njit(signature, nogil=True)(_add_tile)
    return compiled


add_tile = _compile()
