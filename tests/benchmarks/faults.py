"""Faults from outside at random moments, and what they cost: nothing, it is hoped.

python -m tests.benchmarks.faults --repetitions 20

Each kind of fault happens so many times to one sweep, whose trials are those of a grid, so that
they can be compared bit by bit with those of a sweep that nothing has happened to. Prints a table
in Markdown.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from tests.sweep.raylets import TRIAL_WORKERS, Raylets, descendants, send
from tests.sweep.test_kills import Driver
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.verify import verify

TRIALS_PER_FAULT = 3
TRIALS_PER_NODE = 6  # a fresh one takes some seconds until it trains
Trials = dict[str, dict[tuple[int, str], str]]
"""Digests of the masks of every trial, by replicate and layer."""


@dataclass(frozen=True)
class Result:
    """What became of a sweep with faults.

    Attributes
    ----------
    lost: trials of the undisturbed sweep that are not stored complete.
    twice: trials with more than one row, or more masks than they have.
    other: trials whose masks are not those of the undisturbed sweep.
    retrained: trials that were begun again although they were stored.
    running: trials that Optuna's journal has left running.
    """

    faults: int
    trials: int
    lost: int
    twice: int
    other: int
    retrained: int
    running: int
    seconds: float


def spec_of(trials: int, **sweep: Any) -> dict[str, Any]:
    """A grid of so many trials of about a second."""
    return {
        "model": "fc-100",
        "dataset": "digits",
        "weight_scale": 1.5,
        "seed": {"int": [0, trials - 1]},
        "train": {"steps": 150, "batch_size": 64},
        "checkpoint_seconds": 0.1,
        "replicates": {"init": 2, "data": 2, "gate": 1},
        "sweep": {
            "name": "s",
            "sampler": "grid",
            "samples": trials,
            "max_failures": 1000,
            **sweep,
        },
    }


def workers_of(driver: Driver) -> list[int]:
    """The processes that hold a trial, below the driver."""
    below = descendants(driver.process.pid).items()
    return [pid for pid, name in below if name.startswith(TRIAL_WORKERS)]


def trials_of(storage: Path) -> tuple[Trials, int]:
    """The complete trials, and how many are there twice."""
    database = Database(Storage.open(str(storage), create=False))
    rows = database.trials("s").to_pylist()
    count = Counter(row["trial_id"] for row in rows)
    found: Trials = {r["trial_id"]: {} for r in rows if r["status"] == "complete"}
    twice = sum(n > 1 for n in count.values())
    columns = ["trial_id", "replicate", "layer", "digest"]
    for mask in database.masks("s", columns=columns).to_pylist():
        own = found.setdefault(mask["trial_id"], {})
        key = mask["replicate"], mask["layer"]
        twice += key in own
        own[key] = mask["digest"]
    checked = verify(database.storage, report=lambda done, total: None)
    assert checked.sound, checked
    return found, twice


def left_running(storage: Path) -> int:
    """Trials that dashboards would show as running."""
    backend = JournalFileBackend(str(storage / "optuna" / "s.journal"))
    study = optuna.load_study(study_name="s", storage=JournalStorage(backend))
    return sum(trial.state == TrialState.RUNNING for trial in study.trials)


def heard(driver: Driver, begun: Counter[str], done: set[str]) -> Iterator[str]:
    """What the driver says, word by word; trials that are begun although done are counted."""
    while words := driver.until("trial", "finished", "started", "done", "interrupted", "progress"):
        if words[0] == "trial":
            begun[words[1]] += words[1] in done
        elif words[0] == "finished":
            done.add(words[1])
        yield words[0]


def with_faults(
    root: Path,
    repetitions: int,
    fault: Callable[[Driver], None],
    *,
    cluster: Raylets | None = None,
    inside: Sequence[str] = (),
    **sweep: Any,
) -> tuple[int, int]:
    """One sweep, to which the fault happens at random moments: faults, and trials done again."""
    chance = random.Random(repetitions)
    trials = TRIALS_PER_FAULT if cluster is None else TRIALS_PER_NODE
    spec = spec_of(trials * repetitions, **sweep)
    driver = Driver(root, spec, cluster=cluster, inside=inside)
    begun, done, happened = Counter[str](), set[str](), 0
    over = threading.Event()

    def strike() -> None:
        nonlocal happened
        while not over.is_set() and happened < repetitions:
            time.sleep(chance.uniform(0.2, 2))
            if not over.is_set():
                fault(driver)
                happened += 1

    striker = threading.Thread(target=strike, daemon=True)
    try:
        for word in heard(driver, begun, done):
            if word == "progress" and not striker.ident:
                striker.start()
        assert driver.process.wait(120) == 0, (root / "driver.log").read_text()
    finally:
        over.set()
        driver.close()
        if striker.ident:
            striker.join()  # it may be putting back what it took away
    return happened, begun.total()


def with_lost_nodes(root: Path, repetitions: int, *, warned: bool) -> tuple[int, int]:
    """A sweep on two nodes, of which one after the other is lost, and replaced by a fresh one.

    Parameters
    ----------
    warned: whether Ray is told some seconds before, as by a cloud that takes a machine back.
    """
    chance = random.Random(repetitions + warned)
    with Raylets(root) as cluster:

        def lose_a_node(driver: Driver) -> None:
            """One that has a trial, if there is any within a minute: a fresh one first starts."""
            until = time.monotonic() + 60
            while not (busy := [node for node in cluster.nodes if node.workers]):
                if driver.process.poll() is not None or time.monotonic() > until:
                    return
                time.sleep(0.1)
            lost = chance.choice(busy)
            if warned:
                lost.drain(cluster, seconds=5)
                time.sleep(chance.uniform(0, 5))
            cluster.lose(lost)
            cluster.join()

        cluster.join()
        cluster.join()
        return with_faults(root, repetitions, lose_a_node, cluster=cluster)


def with_the_heads_storage_away(root: Path, repetitions: int) -> tuple[int, int]:
    """A cluster whose driver alone loses the storage for a while, as where a mount is lost."""

    def take_it_away(driver: Driver) -> None:
        there = f"--mount=/proc/{driver.process.pid}/ns/mnt"
        storage = str(driver.storage)
        mount = ["nsenter", there, "mount", "-t", "tmpfs", "none", storage]
        subprocess.run(mount, check=True)
        time.sleep(random.uniform(0.5, 5))
        subprocess.run(["nsenter", there, "umount", "--lazy", storage], check=True)

    with Raylets(root) as cluster:
        cluster.join(cpus=2)
        inside = ["unshare", "--mount", "--propagation", "private"]
        return with_faults(root, repetitions, take_it_away, cluster=cluster, inside=inside)


def kill_a_worker(driver: Driver) -> None:
    send(signal.SIGKILL, *workers_of(driver)[:1])


def stop_a_worker(driver: Driver) -> None:
    """Until it is noticed, and the worker killed, after `sweep.stall_seconds`."""
    for pid in workers_of(driver)[:1]:
        send(signal.SIGSTOP, pid)
        while pid in workers_of(driver):
            time.sleep(0.2)


def take_the_storage_away(driver: Driver) -> None:
    away = driver.storage.with_name("away")
    driver.storage.rename(away)
    time.sleep(random.uniform(0.5, 5))
    away.rename(driver.storage)


def fill_the_disk(driver: Driver) -> None:
    """Of a storage that is a small disk of its own."""
    ballast = driver.storage / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    time.sleep(random.uniform(0.5, 5))
    ballast.unlink()


def make_it_read_only(driver: Driver) -> None:
    """A storage that is a disk of its own."""
    remount = ["mount", "-o", "remount,{}", str(driver.storage)]
    while subprocess.run(
        [word.format("ro") for word in remount], stderr=subprocess.DEVNULL, check=False
    ).returncode:
        time.sleep(0.01)  # a file was open for writing
    time.sleep(random.uniform(0.5, 5))
    subprocess.run([word.format("rw") for word in remount], check=True)


def with_killed_drivers(root: Path, repetitions: int, *, damage: bool) -> tuple[int, int]:
    """Drivers that are killed at random moments, and the same line again each time.

    Parameters
    ----------
    damage: whether a checkpoint and the journal are cut short after each.
    """
    chance = random.Random(repetitions + damage)
    spec = spec_of(TRIALS_PER_FAULT * repetitions)
    begun, done = Counter[str](), set[str]()
    for turn in range(repetitions + 1):
        driver = Driver(root, spec)
        try:
            for word in heard(driver, begun, done):
                if word == "progress" and turn < repetitions:
                    time.sleep(chance.uniform(0, 1.5))
                    break
            if turn < repetitions:
                driver.kill(signal.SIGKILL)
            for _ in heard(driver, begun, done):
                pass
            assert driver.process.wait(60) == (-signal.SIGKILL if turn < repetitions else 0)
        finally:
            driver.close()
        done |= trials_of(driver.storage)[0].keys()
        if damage and turn < repetitions:
            files = [
                *driver.storage.glob("checkpoints/*"),
                *driver.storage.glob("optuna/*.journal"),
            ]
            for file in files:
                os.truncate(file, chance.randrange(file.stat().st_size + 1))
    return repetitions, begun.total()


@functools.cache
def undisturbed(trials: int) -> Trials:
    """The trials of a sweep that nothing has happened to."""
    with root_folder() as root:
        driver = Driver(root, spec_of(trials))
        try:
            driver.all()
            assert driver.process.wait() == 0, (root / "driver.log").read_text()
        finally:
            driver.close()
        truth, _ = trials_of(root / "storage")
    assert len(truth) == trials
    return truth


def measured(
    name: str, repetitions: int, truth: Trials, how: Callable[[Path, int], tuple[int, int]]
) -> Result:
    """The result of one kind of fault, compared with the undisturbed sweep."""
    with root_folder() as root:
        if name in ON_A_DISK:
            (root / "storage").mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(root / "storage")]
            subprocess.run(mount, check=True)
        try:
            began = time.monotonic()
            faults, retrained = how(root, repetitions)
            seconds = time.monotonic() - began
            found, twice = trials_of(root / "storage")
            return Result(
                faults,
                len(truth),
                lost=len(truth.keys() - found.keys()),
                twice=twice,
                other=sum(
                    found[trial] != masks for trial, masks in truth.items() if trial in found
                ),
                retrained=retrained,
                running=left_running(root / "storage"),
                seconds=seconds,
            )
        finally:
            if name in ON_A_DISK:
                subprocess.run(["umount", str(root / "storage")], check=True)


@contextlib.contextmanager
def root_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tf-", dir="/tmp"))  # short: Ray's sockets lie below
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


KINDS: dict[str, Callable[[Path, int], tuple[int, int]]] = {
    "worker killed": lambda root, n: with_faults(root, n, kill_a_worker),
    "worker stopped": lambda root, n: with_faults(root, n, stop_a_worker, stall_seconds=20),
    "driver killed": lambda root, n: with_killed_drivers(root, n, damage=False),
    "driver killed, checkpoint and journal cut": lambda root, n: with_killed_drivers(
        root, n, damage=True
    ),
    "storage away": lambda root, n: with_faults(root, n, take_the_storage_away),
    "node killed": lambda root, n: with_lost_nodes(root, n, warned=False),
    "node taken back with a warning": lambda root, n: with_lost_nodes(root, n, warned=True),
    "storage away from the head alone": with_the_heads_storage_away,
    "full disk": lambda root, n: with_faults(root, n, fill_the_disk),
    "read-only disk": lambda root, n: with_faults(root, n, make_it_read_only),
}
ON_A_DISK = ("full disk", "read-only disk")  # of their own; to be mounted takes root
ON_NODES = (
    "node killed",
    "node taken back with a warning",
    "storage away from the head alone",
)


def main() -> None:
    """Run all kinds, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS))
    given = parser.parse_args()
    print("| fault | times | trials | lost | twice | other masks | done again | running | s |")
    print("| --- " * 9 + "|", flush=True)
    for name in given.kinds:
        trials = TRIALS_PER_NODE if name in ON_NODES else TRIALS_PER_FAULT
        truth = undisturbed(trials * given.repetitions)
        try:
            r = measured(name, given.repetitions, truth, KINDS[name])
        except subprocess.CalledProcessError as error:
            print(f"| {name} | not here: {error} |", flush=True)
            continue
        figures = (r.faults, r.trials, r.lost, r.twice, r.other, r.retrained, r.running)
        print(f"| {name} | {' | '.join(map(str, figures))} | {r.seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
