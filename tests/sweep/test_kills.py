"""Drivers that are killed from outside, and what the same line makes of it when run again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from tests.sweep.raylets import Raylets, environment
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage

pytestmark = pytest.mark.slow
DRIVER = Path(__file__).with_name("driver.py")
TABLES = ("masks", "replicates", "curves", "trials")
SPEC: dict[str, Any] = {
    "model": "fc-100",
    "dataset": "digits",
    "weight_scale": {"uniform": [1.0, 2.0]},
    "gate": {"family": "gaussian", "l0_strength": {"loguniform": [0.3, 6]}},
    "train": {"steps": 60, "batch_size": 64},
    "replicates": {"init": 2, "data": 2, "gate": 1},
    "sweep": {"name": "s", "samples": 6},
}


class Driver:
    """A running `driver.py` in a session of its own, as a terminal would start it.

    Parameters
    ----------
    cluster: that it joins; None lets it start a Ray of its own.
    inside: the beginning of a command line that runs the rest of it.
    """

    def __init__(
        self,
        root: Path,
        spec: dict[str, Any],
        *,
        cluster: Raylets | None = None,
        inside: Sequence[str] = (),
    ) -> None:
        self.storage, self.temporary = root / "storage", root / "tmp"
        self.temporary.mkdir(exist_ok=True)
        self._log = (root / "driver.log").open("w")
        command = [*inside, sys.executable, str(DRIVER), str(self.storage), json.dumps(spec)]
        known = os.environ if cluster is None else environment(cluster.root)
        self.process = subprocess.Popen(
            command if cluster is None else [*command, cluster.address],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
            env={**known, "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1"},
        )

    def until(self, *kinds: str) -> list[str]:
        """The next line that begins with one of the words, as words; empty at the end."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            words = line.split()  # none in what Ray prints of nodes that are lost
            if words and words[0] in kinds:
                return words
        return []

    def all(self, *kinds: str) -> list[list[str]]:
        found = []
        while words := self.until(*kinds):
            found.append(words)
        return found

    def kill(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()


def ray_of(temporary: Path) -> list[str]:
    """Ray's processes that use this temporary folder."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if (folder / "stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z":
                    continue
                line = (folder / "cmdline").read_bytes()
                known = line + (folder / "environ").read_bytes()
                if str(temporary).encode() in known:
                    found.append(line.replace(b"\0", b" ").decode())
    return found


def gone_within(seconds: float, temporary: Path) -> list[str]:
    until = time.monotonic() + seconds
    while (left := ray_of(temporary)) and time.monotonic() < until:
        time.sleep(0.1)
    return left


def stored(root: Path) -> dict[str, dict[str, Any]]:
    """The committed trials, with where and when each of their files was written."""
    storage = Storage.open(str(root / "storage"), create=False)
    database = Database(storage)
    rows = database.trials("s").to_pylist()
    assert database.warnings == ()
    for row in rows:
        of_trial = {"sweep": "s", "trial": row["trial_id"]}
        assert len(database.masks(**of_trial)) == 4 * 2
        assert len(database.replicates(**of_trial)) == 4
        files = [Path(storage.trial_file(t, "s", row["trial_id"])).stat() for t in TABLES]
        row["files"] = [(info.st_ino, info.st_mtime_ns) for info in files]
    found = {row["trial_id"]: row for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.fixture
def root() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tk-", dir="/tmp"))  # short: Ray's sockets lie below
    yield folder
    shutil.rmtree(folder)


def wait_for_a_write(driver: Driver, known: set[str]) -> None:
    """Return as soon as a trial's first file is there, while its last one is not."""
    masks, trials = driver.storage / "masks" / "sweep=s", driver.storage / "trials" / "sweep=s"
    while driver.process.poll() is None:
        if masks.is_dir():
            written = {path.name for path in masks.glob("*.parquet")} - known
            committed = {path.name for path in trials.glob("*.parquet")} if written else set()
            if written - committed:
                return
        time.sleep(0)


def survive(root: Path, kills: int, seed: int, samples: int) -> None:
    """Kill drivers at random moments, every other one within a trial's write; then finish."""
    chance = random.Random(seed)
    spec = SPEC | {"sweep": SPEC["sweep"] | {"samples": samples}}
    before: dict[str, dict[str, Any]] = {}
    tried: set[str] = set()
    for turn in range(kills):
        driver = Driver(root, spec)
        try:
            assert driver.until("started", "done")[0] == "started"
            if turn % 2 == 0:
                known = {f"{identity}.parquet" for identity in before}
                wait_for_a_write(driver, known)
            else:
                assert driver.until("finished")
                time.sleep(chance.uniform(0, 0.3))
            driver.kill(signal.SIGKILL)
            driver.process.wait()
            now = time.monotonic()
            tried |= {words[1] for words in driver.all("trial")}
            assert gone_within(10, driver.temporary) == []
            assert time.monotonic() - now < 10
        finally:
            driver.close()
        after = stored(root)
        assert {identity: after[identity] for identity in before} == before
        before = after
    assert len(before) < samples
    driver = Driver(root, spec)
    try:
        trained = {words[1] for words in driver.all("trial")}
        assert driver.process.wait(60) == 0
    finally:
        driver.close()
    after = stored(root)
    assert {identity: after[identity] for identity in before} == before
    assert len(after) == samples
    assert trained == after.keys() - before.keys()
    assert {row["status"] for row in after.values()} == {"complete"}
    assert not list(driver.storage.rglob("*.tmp"))
    assert not list(driver.temporary.iterdir())
    assert ray_of(driver.temporary) == []


def test_a_sweep_survives_kills(root: Path) -> None:
    survive(root, kills=2, seed=0, samples=8)


@pytest.mark.skipif(
    not os.environ.get("TICKETSWEEP_TEST_LONG"), reason="takes minutes; set TICKETSWEEP_TEST_LONG=1"
)
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_sweep_survives_many_kills(root: Path, seed: int) -> None:
    survive(root, kills=8, seed=seed, samples=40)


@pytest.mark.parametrize("moment", ["starting", "running"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupt_ends_cleanly_and_soon(
    root: Path, number: signal.Signals, moment: str
) -> None:
    driver = Driver(root, SPEC | {"train": {"steps": 4_000, "batch_size": 64}})
    try:
        if moment == "starting":
            while driver.until("phase") != ["phase", "starting", "Ray"]:
                pass
            time.sleep(1.5)
        else:
            assert driver.until("progress")
        began = time.monotonic()
        if number == signal.SIGINT:
            os.killpg(driver.process.pid, number)  # as a terminal does: to Ray's processes as well
        else:
            driver.kill(number)
        assert driver.until("interrupted", "done") == ["interrupted", "0"]
        assert driver.process.wait(30) == 0
        assert time.monotonic() - began < 10
        assert gone_within(5, driver.temporary) == []
        assert not list(driver.temporary.iterdir())
        assert "Traceback" not in (root / "driver.log").read_text()
    finally:
        driver.close()


@pytest.mark.exhaustive
def test_a_second_driver_is_refused_and_what_was_cut_in_the_middle_is_passed_over(
    root: Path,
) -> None:
    """Checkpoints and the journal end in the middle, as on a disk that lost its power."""
    spec = SPEC | {
        "train": {"steps": 1_000, "batch_size": 64},
        "checkpoint_seconds": 0,
        "sweep": SPEC["sweep"] | {"samples": 3, "concurrency": 1},
    }
    first = Driver(root, spec)
    try:
        assert first.until("progress")
        (root / "second").mkdir()
        (root / "second" / "storage").symlink_to(first.storage)
        second = Driver(root / "second", spec)
        try:
            assert second.all("started") == []
            assert second.process.wait() != 0
            refused = f"sweep s is being run by process {first.process.pid} of"
            assert refused in (root / "second" / "driver.log").read_text()
        finally:
            second.close()
        assert first.until("finished")
        assert first.until("progress")
        first.kill(signal.SIGKILL)
        first.process.wait()
        assert gone_within(10, first.temporary) == []
    finally:
        first.close()
    before = stored(root)
    cut = [*first.storage.glob("checkpoints/*"), *first.storage.glob("optuna/*.journal")]
    assert len(cut) == 2
    for file in cut:
        os.truncate(file, file.stat().st_size - 7)
    again = Driver(root, spec)
    try:
        assert len(again.all("finished")) == 3 - len(before)
        assert again.process.wait(60) == 0
    finally:
        again.close()
    after = stored(root)
    assert {identity: after[identity] for identity in before} == before
    assert [row["status"] for row in after.values()] == ["complete"] * 3
    assert not list(again.storage.glob("checkpoints/*"))
    backend = JournalFileBackend(str(again.storage / "optuna" / "s.journal"))
    study = optuna.load_study(study_name="s", storage=JournalStorage(backend))
    assert [trial.state for trial in study.trials].count(TrialState.COMPLETE) == 3
