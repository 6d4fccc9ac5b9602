"""What checkpoints cost, and what is lost with a worker that is killed between two of them.

    python -m tests.benchmarks.checkpoints --turns 5 --kills 10

Cost: processor time, which other work on the machine hardly changes, of all threads. "Told" is what
is spent within the functions that save, of all that the trial spends; "more" is what a trial with
checkpoints spends beyond one without, the two taking turns, which wavers by some per cent.

Lost: seconds from the last checkpoint that is stored to the kill, of a sweep whose worker is killed
at random moments. Prints two tables in Markdown.
"""

from __future__ import annotations

import argparse
import random
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.faults import root_folder, spec_of, workers_of
from tests.sweep.raylets import send
from tests.sweep.test_kills import Driver
from ticketsweep.config import TrialConfig
from ticketsweep.planning import load_data
from ticketsweep.store.paths import Storage
from ticketsweep.train import checkpoint
from ticketsweep.train.checkpoint import Checkpoints
from ticketsweep.train.data import Dataset
from ticketsweep.train.learning import GateLearning
from ticketsweep.trial import run_trial

NEVER = 1e6  # seconds
INTERVALS: dict[str, float | None] = {"10 s at least (default)": None, "1 s": 1.0}
TRIAL: dict[str, Any] = {
    "model": "lenet-300-100",
    "dataset": "digits",
    "train": {"batch_size": 64},
    "replicates": {"init": 2, "data": 2, "gate": 1},
}


@dataclass(frozen=True)
class Spent:
    """Processor time of a trial, in seconds, of it what saving takes, and how often that was."""

    seconds: float
    saving: float
    checkpoints: int


def spent(dataset: Dataset, steps: int, every: float | None) -> Spent:
    """One trial's cost with a checkpoint every so many seconds, None: the default."""
    train = {**TRIAL["train"], "steps": steps}
    config = TrialConfig.model_validate(TRIAL | {"train": train, "checkpoint_seconds": every})
    with tempfile.TemporaryDirectory() as folder:
        storage = Storage.open(folder, create=True)
        seen, over = set[int](), threading.Event()

        def look() -> None:
            while not over.wait(0.05):
                for file in Path(folder).glob("checkpoints/*"):
                    with suppress(FileNotFoundError):
                        seen.add(file.stat().st_mtime_ns)

        looking = threading.Thread(target=look)
        looking.start()
        with told_saving() as saving:
            began = time.process_time()
            for _ in run_trial(config, dataset=dataset, storage=storage, sweep="s"):
                pass
            seconds = time.process_time() - began
        over.set()
        looking.join()
    return Spent(seconds, sum(saving), len(seen))


@contextmanager
def told_saving() -> Iterator[list[float]]:
    """The processor seconds of each call of what gathers, hands over and writes a state."""
    told: list[float] = []
    places = ((GateLearning, "state"), (Checkpoints, "save"), (checkpoint._Writer, "_write"))
    with ExitStack() as stack:
        for owner, name in places:
            function = getattr(owner, name)

            def measured(*given: Any, _function: Any = function) -> Any:
                began = time.thread_time()
                try:
                    return _function(*given)
                finally:
                    told.append(time.thread_time() - began)

            setattr(owner, name, measured)
            stack.callback(setattr, owner, name, function)
        yield told


def lost(kills: int, every: float | None, *, steps: int) -> list[float]:
    """Seconds of work lost at each of so many kills of a sweep's only worker."""
    chance = random.Random(kills)
    found: list[float] = []
    with root_folder() as root:
        train = {"steps": steps, "batch_size": 64}
        spec = spec_of(kills, concurrency=1) | {"train": train, "checkpoint_seconds": every}
        driver = Driver(root, spec)
        listening = threading.Thread(target=driver.all)
        listening.start()
        try:
            before = 0.0
            while len(found) < kills and driver.process.poll() is None:
                if written(driver.storage) <= before:  # nothing yet of the worker that runs now
                    time.sleep(0.05)
                    continue
                time.sleep(chance.uniform(0, 2 * (every or 10)))
                before = written(driver.storage)
                workers = workers_of(driver)
                if before and workers:
                    send(signal.SIGKILL, *workers)
                    found.append(time.time() - before)
        finally:
            driver.close()
            listening.join()
    return found


def written(storage: Path) -> float:
    """When the last checkpoint was written, as seconds since the epoch; 0 without one."""
    with suppress(FileNotFoundError):  # its trial has ended meanwhile
        return max((file.stat().st_mtime for file in storage.glob("checkpoints/*")), default=0.0)
    return 0.0


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} [{min(values):.3g}, {max(values):.3g}]"


def print_costs(turns: int, steps: int) -> None:
    """The first table."""
    dataset = load_data(TrialConfig.model_validate(TRIAL))
    spent(dataset, 10, NEVER)
    print("| a checkpoint every | told, of the trial's processor time | more | checkpoints | n |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    for label, every in INTERVALS.items():
        told, more, counts = list[float](), list[float](), list[int]()
        for _ in range(turns):
            without = spent(dataset, steps, NEVER)
            with_them = spent(dataset, steps, every)
            told.append(100 * with_them.saving / with_them.seconds)
            more.append(100 * (with_them.seconds / without.seconds - 1))
            counts.append(with_them.checkpoints)
        figures = f"{spread(told)} % | {spread(more)} % | {spread(counts)}"
        print(f"| {label} | {figures} | {turns} |", flush=True)


def print_losses(kills: int, steps: int) -> None:
    """The second table."""
    print("| a checkpoint every | lost at a kill, s | n |\n| --- | --- | --- |", flush=True)
    for label, every in INTERVALS.items():
        seconds = lost(kills, every, steps=steps)
        print(f"| {label} | {spread(seconds)} | {len(seconds)} |", flush=True)


def main() -> None:
    """Print both tables, or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--parts", nargs="*", choices=["cost", "lost"], default=["cost", "lost"])
    given = parser.parse_args()
    if "cost" in given.parts:
        print_costs(given.turns, given.steps)
    if "lost" in given.parts:
        print_losses(given.kills, given.steps)


if __name__ == "__main__":
    main()
