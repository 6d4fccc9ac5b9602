"""All pairs of 1,000 masks of LeNet-300-100: ours, NumPy row by row, and scikit-learn.

uv run python -m tests.benchmarks.pairs      how near ours comes to the limit, and who counts
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances

from ticketsweep.analysis.overlap import jaccard
from ticketsweep.analysis.pairs import intersections, pair_counter

MASKS, GATES = 1_000, 266_200
SAMPLE = 40  # masks that scikit-learn is given: all of them would take it minutes


@dataclass(frozen=True)
class Case:
    """Seconds of ours and of the other, each called once a turn."""

    what: str
    against: str
    target: str
    ours: Callable[[], float]
    other: Callable[[], float]


@cache
def packed() -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 256, (MASKS, -(-GATES // 8)), dtype=np.uint8)
    return bits & rng.integers(0, 256, bits.shape, dtype=np.uint8)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def row_by_row() -> NDArray[np.int64]:
    """Each mask against all that follow it, as one writes it in NumPy."""
    bits = packed()
    words = np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))).view(np.uint64)
    shared = np.zeros((MASKS, MASKS), dtype=np.int64)
    for row in range(MASKS):
        shared[row, row:] = np.bitwise_count(words[row:] & words[row]).sum(axis=1, dtype=np.int64)
    return shared


def our_jaccard() -> NDArray[np.float64]:
    shared = intersections(packed())
    kept = np.diagonal(shared)
    return jaccard(shared, kept[:, None], kept)


def sklearn_jaccard(sample: NDArray[np.bool_]) -> NDArray[np.float64]:
    distances: NDArray[np.float64] = pairwise_distances(sample, metric="jaccard")
    return distances


def comparisons() -> Sequence[Case]:
    """The figures to be claimed; scikit-learn's seconds and ours are those of a pair."""
    sample = np.unpackbits(packed()[:SAMPLE], axis=1).view(np.bool_)
    masks = f"{MASKS:,} masks x {GATES:,} gates"
    return [
        Case(
            f"all pairs of {masks}", "NumPy's `bitwise_count` row by row", "<= 0.2, ours <= 1 s",
            ours=lambda: seconds(lambda: intersections(packed())),
            other=lambda: seconds(row_by_row),
        ),
        Case(
            f"Jaccard of a pair among {masks}", f"scikit-learn, {SAMPLE} of them", "<= 0.01",
            ours=lambda: seconds(our_jaccard) / (MASKS * (MASKS - 1) / 2),
            other=lambda: seconds(lambda: sklearn_jaccard(sample)) / (SAMPLE * (SAMPLE - 1) / 2),
        ),
    ]  # fmt: skip


def main() -> None:
    pairs = MASKS * (MASKS + 1) / 2
    words = pairs * -(-GATES // 64)
    intersections(packed())
    taken = sorted(seconds(lambda: intersections(packed())) for _ in range(9))
    print(f"counted by {pair_counter()}")
    print(
        f"{words:.3g} words ANDed and counted in {taken[4]:.3f} s [{taken[0]:.3f}, {taken[-1]:.3f}]"
    )
    print(f"{words / taken[4] / 1e9:.1f} words/ns of all threads together")


if __name__ == "__main__":
    main()
