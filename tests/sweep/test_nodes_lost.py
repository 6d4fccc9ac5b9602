"""Clusters whose nodes come and go while a sweep runs: real Ray nodes, killed from outside."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sweep.raylets import TRIAL_WORKERS, Raylets
from tests.sweep.test_kills import Driver, stored

pytestmark = [pytest.mark.exhaustive, pytest.mark.slow, pytest.mark.timeout(600)]
PATIENCE = 200  # seconds, of a machine with other work
SPEC: dict[str, Any] = {
    "model": "fc-100",
    "dataset": "digits",
    "weight_scale": 1.5,
    "train": {"steps": 100, "batch_size": 64},
    "checkpoint_seconds": 0.1,
    "replicates": {"init": 2, "data": 2, "gate": 1},
}


@pytest.fixture
def root() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tw-", dir="/tmp"))  # short: Ray's sockets lie below
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def sweep(samples: int, **settings: Any) -> dict[str, Any]:
    block = {"name": "s", "sampler": "grid", "samples": samples, **settings}
    return SPEC | {"seed": {"int": [0, samples]}, "sweep": block}


def wait_for(condition: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


@contextlib.contextmanager
def swept(root: Path, cluster: Raylets, spec: dict[str, Any]) -> Iterator[Driver]:
    """A sweep under way, which ends well at the end."""
    driver = Driver(root, spec, cluster=cluster)
    try:
        assert driver.until("progress"), (root / "driver.log").read_text()
        listening = threading.Thread(target=driver.all)
        listening.start()
        yield driver
        assert driver.process.wait(PATIENCE) == 0, (root / "driver.log").read_text()
        listening.join()
    finally:
        driver.close()
    rows = stored(root).values()
    assert [row["status"] for row in rows] == ["complete"] * spec["sweep"]["samples"]


def test_trials_move_to_a_node_that_joins(root: Path) -> None:
    """Though each takes less time than a worker's start, so that one is always about to be free."""
    with Raylets(root) as cluster:
        first = cluster.join()
        driver = Driver(root, sweep(1000), cluster=cluster)
        try:
            assert driver.until("finished"), (root / "driver.log").read_text()
            second = cluster.join()
            listening = threading.Thread(target=driver.all)
            listening.start()
            wait_for(lambda: first.workers and second.workers)
            driver.kill(signal.SIGINT)
            assert driver.process.wait(60) == 0
            listening.join()
        finally:
            driver.close()


def test_nodes_that_are_lost_again_and_again_cost_no_trial(root: Path) -> None:
    with Raylets(root) as cluster:
        node = cluster.join()
        with swept(root, cluster, sweep(1, max_failures=1) | {"train": {"steps": 8000}}):
            for _ in range(2):
                cluster.lose(node)
                node = cluster.join()
                wait_for(lambda node=node: node.workers)


def test_an_autoscaler_starts_nodes_for_trials_that_wait_and_ends_them(root: Path) -> None:
    def nodes() -> int:
        return sum("raylet/raylet" in name for name in cluster.head_processes.values()) - 1

    def working() -> int:
        return sum(name.startswith(TRIAL_WORKERS) for name in cluster.head_processes.values())

    with Raylets(root, autoscaled=2) as cluster:
        wait_for(lambda: nodes() == 0)
        with swept(root, cluster, sweep(24, concurrency=2)):
            wait_for(lambda: nodes() == 2 and working() == 2)
        wait_for(lambda: nodes() == 0)
