from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from ticketsweep.progress import Alive, Progress, StageProgress
from ticketsweep.store import live, publication
from ticketsweep.store.claims import LEASE_SECONDS
from ticketsweep.store.live import LivePage, LiveRun, decode, encode, live_runs
from ticketsweep.store.verify import verify
from ticketsweep.store.writer import remove_leftovers, write_trial


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "CHANGE_SECONDS", 0.01)


def told(storage, sweep: str = "s") -> LiveRun:
    (run,) = live_runs(storage, sweep)
    return run


def until(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_page_says_what_its_run_was_told(storage):
    page = LivePage(storage, "s")
    page.begun(samples=9, stored=2, concurrency=3)
    for name in "abcd":
        page.started(name, steps=100, replicates=4, host=f"node-{name}")
    page.progressed("a", Progress(40, 100, loss=math.nan, val_accuracy=0.5, expected_density=0.1))
    page.progressed("a", Alive(step=60, steps=100))
    page.progressed("b", StageProgress("dense", 5, 10))
    page.finished("c", "complete")
    page.died("d")
    page.finished("copied", "complete")
    page.warn("a warning")
    until(lambda: live_runs(storage) and told(storage).warnings)
    run = told(storage)
    assert (run.samples, run.stored, run.concurrency) == (9, 2, 3)
    assert (run.finished, run.replicates) == (1, 4)
    first, second = run.trials
    assert (first.trial_id, first.host, first.stage, first.share) == ("a", "node-a", "", 0.6)
    assert (first.loss, first.val_accuracy, first.expected_density) == (None, 0.5, 0.1)
    assert (second.stage, second.step, second.steps) == ("dense", 5, 10)
    assert [each.text for each in run.warnings] == ["a warning"]
    assert run.is_alive(run.heard + timedelta(days=1))  # its process is known to run
    page.close("done")
    ended = told(storage)
    assert (ended.outcome, ended.trials) == ("done", ())
    assert ended.ended is not None
    assert not ended.is_alive(ended.heard)


def test_the_page_of_a_single_trial_goes_with_it(storage):
    page = LivePage(storage, "s", "t0")
    page.started("t0", steps=1, replicates=1, host="h")
    until(lambda: live_runs(storage))
    page.close("over")
    assert live_runs(storage) == []


def test_a_document_comes_back_as_it_was_and_damage_is_no_document(storage):
    page = LivePage(storage, "s")
    page.started("a", steps=10, replicates=1, host="h")
    page.close("done")
    run = told(storage)
    content = encode(run)
    assert decode(content) == run
    other = json.loads(content) | {"format": 2}
    for damaged in (
        content[:-9],
        b"",
        b"[]",
        b"\xff",
        b'{"format": 1}',
        json.dumps(other).encode(),
    ):
        assert decode(damaged) is None
    (path,) = Path(storage.live_folder("s")).iterdir()
    path.write_bytes(content[:50])
    assert live_runs(storage) == []


def test_a_run_that_was_killed_is_known_on_its_machine_and_elsewhere_by_its_silence(storage):
    LivePage(storage, "s").close("done")
    run = dataclasses.replace(told(storage), ended=None)
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                           capture_output=True, check=True)  # fmt: skip
    gone = run.process | {"pid": int(child.stdout)}
    assert not dataclasses.replace(run, process=gone).is_alive(run.heard)
    elsewhere = dataclasses.replace(run, process=run.process | {"machine": "another"})
    assert elsewhere.is_alive(run.heard + timedelta(seconds=LEASE_SECONDS - 1))
    assert not elsewhere.is_alive(run.heard + timedelta(seconds=LEASE_SECONDS + 1))


def test_nobody_waits_for_a_storage_that_takes_its_time(storage, monkeypatch):
    go_on = threading.Event()
    monkeypatch.setattr(publication, "put", lambda *_, **__: go_on.wait())
    monkeypatch.setattr(live, "_CLOSING_SECONDS", 0.05)
    began = time.monotonic()
    page = LivePage(storage, "s")
    for step in range(1000):
        page.started(f"t{step}", steps=1, replicates=1, host="h")
        page.progressed(f"t{step}", Alive(step=1, steps=1))
        page.finished(f"t{step}", "complete")
    page.close("done")
    assert time.monotonic() - began < 2
    go_on.set()


def test_a_storage_that_is_away_makes_the_page_late(storage):
    aside = Path(f"{storage.root}-aside")
    Path(storage.root).rename(aside)
    page = LivePage(storage, "s")
    page.begun(samples=1, stored=0, concurrency=1)
    time.sleep(0.05)
    aside.rename(storage.root)
    page.phase("going on")
    until(lambda: live_runs(storage))
    page.close("done")
    assert told(storage).outcome == "done"


def test_pages_are_no_part_of_the_database(storage, make_trial):
    write_trial(storage, "s", make_trial())
    page = LivePage(storage, "s")
    page.begun(samples=1, stored=0, concurrency=1)
    until(lambda: live_runs(storage))
    found = verify(storage, report=lambda done, total: None)
    assert (found.sound, found.leftovers) == (True, ())
    assert remove_leftovers(storage, "s") == 0
    page.close("done")
    assert told(storage).outcome == "done"


def test_no_secret_gets_onto_a_page(storage, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef0123")
    page = LivePage(storage, "s")
    page.warn("W&B refused 0123456789abcdef0123")
    page.phase("connecting to postgresql://me:hunter2@host/name?password=correcthorse")
    page.close("done")
    (path,) = Path(storage.live_folder("s")).iterdir()
    text = path.read_text()
    assert "W&B refused …" in json.loads(text)["warnings"][0]["text"]
    for secret in (os.environ["WANDB_API_KEY"], "hunter2", "correcthorse"):
        assert secret not in text
