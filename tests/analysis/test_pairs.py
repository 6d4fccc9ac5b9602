"""Counting what all pairs of masks share: two ways, one answer, bounded memory."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from ticketsweep.analysis import pairs
from ticketsweep.analysis.overlap import pack
from ticketsweep.analysis.pairs import intersections, pair_counter, thread_count

Bools = NDArray[np.bool_]
either_way = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(params=["compiled", "numpy"])
def counted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every call counts in this way, however few the masks."""
    way = str(request.param)
    monkeypatch.setattr(pairs, "COMPILED_FROM", 0 if way == "compiled" else 1 << 62)
    return way


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, env={**os.environ, **environment},
    )  # fmt: skip
    return done.stdout


@given(masks=arrays(np.bool_, array_shapes(min_dims=2, max_dims=4, max_side=9)))
@either_way
def test_packed_intersections_equal_brute_force(counted: str, masks: Bools) -> None:
    flat = masks.reshape(len(masks), -1).astype(np.int64)
    np.testing.assert_array_equal(intersections(pack(masks)), flat @ flat.T)


@pytest.mark.parametrize("masks", [1, 63, 64, 66, 130, 201])
def test_every_pair_is_counted_once_whatever_the_number_of_tiles(counted: str, masks: int) -> None:
    drawn = np.random.default_rng(masks).random((masks, 777)) < 0.4
    flat = drawn.astype(np.int64)
    np.testing.assert_array_equal(intersections(pack(drawn)), flat @ flat.T)


def test_masks_longer_than_a_block_are_counted_whole(counted: str) -> None:
    masks = np.random.default_rng(0).random((20, 1_000_003)) < 0.3
    shared = intersections(pack(masks))
    for i, j in [(0, 0), (0, 1), (3, 19), (19, 3)]:
        assert shared[i, j] == np.count_nonzero(masks[i] & masks[j])


def test_no_masks_share_nothing(counted: str) -> None:
    assert intersections(np.zeros((0, 5), np.uint8)).shape == (0, 0)
    assert intersections(np.zeros((3, 0), np.uint8)).tolist() == [[0] * 3] * 3


def test_memory_does_not_grow_with_the_masks(counted: str) -> None:
    bits = np.random.default_rng(0).integers(0, 256, (8, 2_000_000), dtype=np.uint8)
    intersections(bits[:, :8])  # loads what is to be loaded
    tracemalloc.start()
    intersections(bits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20 < bits.nbytes


@given(
    masks=st.integers(1, 70).flatmap(lambda n: arrays(np.bool_, (3, n))),
    random=st.randoms(use_true_random=False),
)
@either_way
def test_a_common_permutation_of_the_gates_changes_nothing(
    counted: str, masks: Bools, random: object
) -> None:
    order = list(range(masks.shape[1]))
    random.shuffle(order)  # type: ignore[attr-defined]
    np.testing.assert_array_equal(intersections(pack(masks)), intersections(pack(masks[:, order])))


def test_few_masks_are_counted_without_loading_numba() -> None:
    code = (
        "import sys, numpy as np; from ticketsweep import analysis;"
        "analysis.intersections(np.ones((8, 33_275), np.uint8)); print('numba' in sys.modules)"
    )
    assert run(code).strip() == "False"


BLOCKED = "import sys; sys.modules['numba'] = None\n"


@pytest.mark.parametrize(
    ("before", "environment", "why"),
    [
        ("", {"NUMBA_DISABLE_JIT": "1"}, "NUMBA_DISABLE_JIT is set"),
        (BLOCKED, {}, "import of numba halted"),
    ],
)
def test_where_numba_cannot_be_used_numpy_counts_and_says_so(
    before: str, environment: dict[str, str], why: str
) -> None:
    code = (
        f"{before}import numpy as np; from ticketsweep.analysis import pairs\n"
        "pairs.COMPILED_FROM = 0\n"
        "print(pairs.pair_counter(), pairs.intersections(np.ones((2, 9), np.uint8)).tolist())"
    )
    said = run(code, **environment)
    assert said.startswith(f"numpy, one thread ({why}")
    assert said.strip().endswith("[[9, 9], [9, 9]]")


def test_what_is_in_use_is_told_with_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert pair_counter().startswith("numba ")
    assert pair_counter().endswith(", 1 thread")


@pytest.mark.parametrize(("asked", "threads"), [("1", 1), ("1,4", 1), ("", 2), ("0", 2), ("x", 2)])
def test_threads_are_those_the_process_may_use_and_no_more_than_asked(
    monkeypatch: pytest.MonkeyPatch, asked: str, threads: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3}, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert thread_count() == threads


@pytest.fixture
def interrupted() -> Iterator[float]:
    """SIGINT a third of a second from now, if the test is still running; its time."""
    # Hypothesis watches the collector by a callback, in which an interrupt is swallowed.
    gc.disable()
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    yield time.perf_counter() + 0.3
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    gc.enable()


def test_an_interrupt_ends_the_count_at_once(counted: str, interrupted: float) -> None:
    with pytest.raises(KeyboardInterrupt):
        intersections(np.ones((6_000, 32_768), np.uint8))  # half a minute
    assert time.perf_counter() - interrupted < 2
