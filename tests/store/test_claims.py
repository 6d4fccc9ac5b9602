"""Of all who claim the same work on a sweep one gets it, whatever the clocks say."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ticketsweep.errors import StorageError
from ticketsweep.store import claims
from ticketsweep.store.claims import Claim, claimed


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "RENEWAL_SECONDS", 0.05)
    monkeypatch.setattr(claims, "LEASE_SECONDS", 0.6)


def run(storage, **options: Any):
    return claimed(storage, "a", "run", waiting=options.get("waiting", lambda text: None))


def left_behind(storage, **content: Any) -> Path:
    """The claim of a process that was killed."""
    claim = Claim(storage, "a", "run")
    claim._content |= {"held": True} | content
    claim._write()
    return Path(claim._path)


def test_a_second_one_is_refused_and_told_who_has_it(storage):
    with run(storage):
        began = time.monotonic()
        with pytest.raises(StorageError, match=rf"is being run by process {os.getpid()} of \S+, "):
            run(storage).__enter__()
        assert time.monotonic() - began < 0.5
        with (
            claimed(storage, "a", "compaction", waiting=print),
            claimed(storage, "b", "run", waiting=print),
        ):
            pass  # other work, and another sweep
    with run(storage):
        pass
    assert storage.claims("a") == []


def test_a_dead_process_of_this_machine_is_known_at_once(storage):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    left_behind(storage, pid=process.pid)
    left_behind(storage, started="1")  # its number was given to a process that is running: this one
    began = time.monotonic()
    with run(storage):
        assert time.monotonic() - began < 0.4
        assert len(storage.claims("a")) == 1


def test_a_silent_process_of_another_machine_is_waited_for_and_then_dead(storage):
    claim = left_behind(storage, machine="another", host="node-7", pid=12)
    for moved in (-(10**6), 10**6):  # seconds; no clock is asked
        os.utime(claim, (time.time() + moved,) * 2)
    said: set[str] = set()
    began = time.monotonic()
    with run(storage, waiting=said.add):
        assert time.monotonic() - began >= 0.6
    assert said == {"waiting to see whether process 12 of node-7 is still running"}


def test_a_process_of_another_machine_that_renews_its_claim_is_seen_to_run(storage, monkeypatch):
    with contextlib.ExitStack() as stack:
        monkeypatch.setattr(claims, "_machine", lambda: "another")
        stack.enter_context(run(storage))
        monkeypatch.undo()
        with pytest.raises(StorageError, match="is being run by"):
            run(storage).__enter__()


def test_who_was_taken_for_dead_notices_it_and_does_not_come_back(storage, monkeypatch):
    with run(storage) as sleeper:
        content = Path(storage.claims("a")[0]).read_text()
        sleeper._lock.acquire()  # it hangs: neither renews nor looks
        path = Path(sleeper._path)
        path.write_text(json.dumps(json.loads(content) | {"machine": "another"}))
        with run(storage) as taker:
            sleeper._write()  # it had already looked, and writes as it wakes
            sleeper._lock.release()
            until = time.monotonic() + 5
            while not sleeper._lost and time.monotonic() < until:
                time.sleep(0.01)
            with pytest.raises(StorageError, match="was taken for dead"):
                sleeper.check()
            taker.check()
            assert storage.claims("a") == [taker._path]


def test_a_storage_that_is_away_costs_nobody_the_claim(storage):
    root = storage.local
    with run(storage) as claim:
        root.rename(root.with_name("away"))
        root.write_text("no folder")
        time.sleep(0.2)
        root.unlink()
        root.with_name("away").rename(root)
        time.sleep(0.2)
        claim.check()
        beat = json.loads(Path(claim._path).read_text())["beat"]
        time.sleep(0.2)
        assert json.loads(Path(claim._path).read_text())["beat"] > beat


def test_of_many_at_once_exactly_one_gets_it(storage):
    for _ in range(5):
        barrier, over = threading.Barrier(8), threading.Event()
        outcomes: list[str] = []

        def contend(barrier=barrier, over=over, outcomes=outcomes) -> None:
            barrier.wait()
            try:
                with run(storage):
                    outcomes.append("held")
                    over.wait(10)
            except StorageError:
                outcomes.append("refused")

        threads = [threading.Thread(target=contend) for _ in range(8)]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 10
        while len(outcomes) < 8 and time.monotonic() < until:
            time.sleep(0.01)
        over.set()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["held"] + ["refused"] * 7


def test_a_first_write_that_takes_longer_than_a_renewal_costs_nobody_the_claim(
    storage, monkeypatch
):
    def slowly(*what: Any, put=claims.put) -> None:
        time.sleep(0.2)
        put(*what)

    monkeypatch.setattr(claims, "put", slowly)
    with run(storage) as claim:
        time.sleep(0.1)
        claim.check()
