"""What every pair of masks shares, counted on bits as the mask database holds them.

The masks are cut into blocks of a few words each, so memory does not grow with their length, and a
block is counted tile by tile, so that its rows come from the cache. Many masks are counted by
compiled code on all threads; few are counted by NumPy before that code would have been loaded.
"""

from __future__ import annotations

import functools
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ticketsweep.analysis.compiled import AddTile

COMPILED_FROM = 300_000_000
"""Pairs times words at which loading numba begins to pay: NumPy takes 0.5 s for as many."""

_BLOCK_BYTES = 1 << 20  # NumPy: a block of all masks and its temporaries stay in the cache
_COPY_BYTES = 1 << 25  # compiled: a block of all masks, held as words
_TILE = 64  # masks; two tiles of 1,024 words fill the second-level cache of a core
_MIN_WORDS, _MAX_WORDS = 64, 1024  # of a mask in a block


def intersections(bits: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Gates that each pair of masks keeps in common.

    Parameters
    ----------
    bits: uint8 (M, bytes), one bit-packed, zero-padded mask a row.

    Returns
    -------
    int64 (M, M), symmetric; the diagonal holds the kept counts. Beside `bits` and the answer it
    needs a few MiB (up to 32 MiB, or 512 bytes a mask, where compiled code counts), however long
    the masks are.
    """
    masks, width = bits.shape
    compiled = None
    if masks * (masks + 1) // 2 * -(-width // 8) >= COMPILED_FROM:
        compiled = _compiled()
    return _by_numpy(bits) if compiled is None else _by_tiles(bits, compiled)


def pair_counter() -> str:
    """How many masks are compared on this machine, in words: compiled, or by NumPy and why."""
    if _compiled() is None:
        return f"numpy, one thread ({_why_not_compiled()})"
    import numba

    threads = thread_count()
    return f"numba {numba.__version__}, {threads} thread{'s' if threads > 1 else ''}"


def thread_count() -> int:
    """Threads to count with: the processors this process may use, at most `OMP_NUM_THREADS`."""
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    else:
        usable = os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(usable, int(asked)) if asked.isdecimal() and int(asked) else usable


@functools.cache
def _load() -> AddTile | str:
    """The compiled code, or why there is none."""
    try:
        from ticketsweep.analysis.compiled import add_tile
    except (ImportError, OSError) as error:  # OSError: LLVM's library cannot be loaded
        return str(error).strip().partition("\n")[0]
    return add_tile


def _compiled() -> AddTile | None:
    loaded = _load()
    return None if isinstance(loaded, str) else loaded


def _why_not_compiled() -> str:
    return str(_load())


def _by_tiles(bits: NDArray[np.uint8], add_tile: AddTile) -> NDArray[np.int64]:
    masks, width = bits.shape
    rows = -(-masks // 4) * 4  # what the compiled code takes at once; the rows added keep nothing
    words = min(max(_MIN_WORDS, _COPY_BYTES // (8 * max(rows, 1))), _MAX_WORDS, max(1, width // 8))
    shared = np.zeros((rows, rows), dtype=np.int64)
    starts = range(0, rows, _TILE)
    tiles = [
        (top, min(top + _TILE, rows), left, min(left + _TILE, rows))
        for top, left in product(starts, starts)
        if left >= top
    ]
    block = np.zeros((rows, words), dtype=np.uint64)
    with ThreadPoolExecutor(thread_count()) as threads:
        for start in range(0, width, 8 * words):
            part = bits[:, start : start + 8 * words]
            if part.shape[1] < 8 * words:
                block[:] = 0
            block.view(np.uint8)[:masks, : part.shape[1]] = part
            # An interrupt leaves `map`, which cancels the tiles that have not begun.
            deque(threads.map(lambda tile: add_tile(block, shared, *tile), tiles), maxlen=0)
    return _mirrored(shared[:masks, :masks])


def _by_numpy(bits: NDArray[np.uint8]) -> NDArray[np.int64]:
    masks, width = bits.shape
    shared = np.zeros((masks, masks), dtype=np.int64)
    step = max(8, _BLOCK_BYTES // max(masks, 1) // 8 * 8)
    for start in range(0, width, step):
        words = _as_words(bits[:, start : start + step])
        for row in range(masks):
            common = np.bitwise_count(words[row:] & words[row])
            shared[row, row:] += common.sum(axis=1, dtype=np.int64)
    return _mirrored(shared)


def _as_words(bits: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Bytes (M, b) as 64-bit words (M, ceil(b / 8)); the bytes filled up with are zero."""
    padded = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8)))
    return np.ascontiguousarray(padded).view(np.uint64)


def _mirrored(shared: NDArray[np.int64]) -> NDArray[np.int64]:
    """What lies above the diagonal copied below it, in place."""
    for row in range(len(shared)):
        shared[row + 1 :, row] = shared[row, row + 1 :]
    return shared
