"""All pairs of 1,000 masks of LeNet-300-100: ours, NumPy row by row, and scikit-learn.

uv run python -m tests.benchmarks.pairs      how near ours comes to the limit, and who counts
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances

from tests.benchmarks.cases import Case
from ticketsweep.analysis.overlap import jaccard
from ticketsweep.analysis.pairs import intersections, pair_counter
from ticketsweep.seeds import replicate_plan
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import MaskRow, TrialRows
from ticketsweep.store.writer import write_sweep, write_trial

MASKS, GATES = 1_000, 266_200
SAMPLE = 40  # masks that scikit-learn is given: all of them would take it minutes


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


def store_masks(folder: str, trials: int, shapes: Sequence[tuple[int, ...]]) -> None:
    """A sweep of `trials` trials of 8 replicates that share about half of a 10 % ticket."""
    storage = Storage.open(folder, create=True)
    began = datetime(2026, 1, 1, tzinfo=UTC)
    write_sweep(storage, {"sweep": "s", "created_at": began, "version": "0", "space": "{}",
                          "objectives": {}, "samples": trials, "seed": 0})  # fmt: skip
    rng = np.random.default_rng(0)
    plan = replicate_plan(0, init=2, data=2, gate=2)
    for trial in range(trials):
        masks = []
        for index, shape in enumerate(shapes):
            shared = rng.random(shape, dtype=np.float32)
            for replicate in range(len(plan)):
                kept = shared + rng.random(shape, dtype=np.float32) < 0.45
                masks.append(
                    MaskRow.from_array(
                        kept, replicate=replicate, step=1, layer=f"fc{index}", layer_index=index
                    )
                )
        row = {"trial_id": f"{trial:016x}", "status": "complete", "config": "{}",
               "started_at": began, "model": "m", "dataset": "d"}  # fmt: skip
        replicates = [
            {"replicate": of.index, "init_seed": of.init_seed, "data_seed": of.data_seed,
             "gate_seed": of.gate_seed}
            for of in plan
        ]  # fmt: skip
        write_trial(storage, "s", TrialRows(row, replicates, masks))


def report_command(what: str, trials: int, shapes: Sequence[tuple[int, ...]]) -> None:
    """Print what the command takes in all, three times, and its largest memory so far."""
    ticketsweep = str(Path(sys.executable).with_name("ticketsweep"))
    with tempfile.TemporaryDirectory() as folder:
        store_masks(folder, trials, shapes)
        command = [ticketsweep, "stability", "s", "--storage", folder, "--format", "json"]

        def ended() -> object:
            return subprocess.run(command, check=True, capture_output=True)

        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken = sorted(seconds(ended) for _ in range(3))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    worked = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 3
    print(
        f"{what}: {taken[1]:.1f} s [{taken[0]:.1f}, {taken[-1]:.1f}], n = 3, "
        f"{worked:.1f} s of a processor, {after.ru_maxrss / 1e6:.2f} GB"
    )


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
    report_command(
        "200 trials x 8 replicates x 266,200 gates", 200, [(300, 784), (100, 300), (10, 100)]
    )
    report_command(
        "8 replicates x 25 million gates", 1, [(5000, 2000), (1000, 1500, 3, 3), (500, 3000)]
    )


if __name__ == "__main__":
    main()
