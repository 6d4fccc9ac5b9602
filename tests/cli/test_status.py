from __future__ import annotations

import json
import os
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ticketsweep.store import live
from ticketsweep.store.live import LivePage
from ticketsweep.store.logs import trial_log
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import TrialRows
from ticketsweep.store.writer import write_sweep, write_trial


@pytest.fixture
def begun(tmp_path) -> Storage:
    """A sweep of two trials, one of which is done."""
    storage = Storage.open(str(tmp_path / "st"), create=True)
    row = {"sweep": "mine", "created_at": datetime.now(UTC), "version": "0", "space": "{}"}
    aims = {"val_accuracy": "max"}
    write_sweep(storage, {**row, "objectives": aims, "samples": 2, "seed": 0})
    finish(storage, "a1")
    return storage


def finish(storage: Storage, trial_id: str) -> None:
    known = {"trial_id": trial_id, "status": "complete", "steps_done": 1, "val_accuracy": 0.5}
    write_trial(storage, "mine", TrialRows({**known, "started_at": datetime.now(UTC)}))


def test_status_tells_of_a_run_as_it_goes_on_and_in_json_too(command, begun, monkeypatch):
    monkeypatch.setattr(live, "CHANGE_SECONDS", 0.05)
    page = LivePage(begun, "mine")
    page.begun(samples=2, stored=1, concurrency=1)
    page.started("b2", steps=100, replicates=4, host="node-7")
    page.warn("careful")
    folder = Path(begun.live_folder("mine"))
    while not (folder.is_dir() and list(folder.glob("run.json"))):
        time.sleep(0.05)
    shown = command("status", "mine", "--storage", begun.uri)
    assert shown.code == 0
    for word in ("running", "node-7", "careful", "a1", "b2"):
        assert word in shown.out
    answer = json.loads(command("status", "mine", "--storage", begun.uri, "--format", "json").out)
    (sweep,) = answer["sweeps"]
    assert sweep["counts"] == {"under_way": 1, "complete": 1, "stopped": 0, "failed": 0}
    assert sweep["under_way"][0]["host"] == "node-7"
    assert [row["trial_id"] for row in sweep["trials"]] == ["a1"]
    page.close("done")


def test_watching_ends_when_the_sweep_is_done(command, begun):
    end = threading.Timer(1.0, finish, (begun, "b2"))
    end.start()
    watched = command("status", "mine", "--watch", "--every", "0.5", "--storage", begun.uri)
    end.join()
    assert (watched.code, watched.err) == (0, "")
    lines = watched.out.splitlines()
    assert "mine: 1 of 2 trials done" in lines[0]
    assert "mine: 2 of 2 trials done" in lines[-1]
    assert "\x1b" not in watched.out


def test_watching_is_ended_by_ctrl_c(command, begun):
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    watched = command("status", "mine", "--watch", "--storage", begun.uri)
    assert (watched.code, watched.err) == (130, "")


def test_watching_goes_on_while_the_storage_is_away(command, begun):
    aside = Path(f"{begun.root}-aside")

    def away() -> None:
        Path(begun.root).rename(aside)
        time.sleep(1.2)
        aside.rename(begun.root)
        finish(begun, "b2")

    threading.Timer(0.7, away).start()
    watched = command("status", "mine", "--watch", "--every", "0.5", "--storage", begun.uri)
    assert watched.code == 0
    assert watched.err.count("not up to date") == 1
    assert "2 of 2 trials done" in watched.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status", "--watch"], "--watch needs NAME"),
        (["status", "mine", "--watch", "--format", "json"], "--format json goes without it"),
        (["status", "mien"], "did you mean 'mine'"),
        (["status", "mien", "--watch"], "did you mean 'mine'"),
        (["logs", "ff"], "no trial with a log has an id that begins with 'ff'"),
        (["logs", "a"], "begins the ids of several (a1, a2): add a digit"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_message(command, begun, arguments, message):
    for trial_id in ("a1", "a2"):
        with trial_log(begun, "mine", trial_id):
            pass
    ended = command(*arguments, "--storage", begun.uri)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert ended.err.count("\n") == 1


def test_the_log_of_a_trial_without_ray_says_what_it_did(command, stored):
    listed = command(
        "query", "select trial_id from trials", "--format", "json", "--storage", stored
    )
    trial_id = json.loads(listed.out)[0]["trial_id"]
    shown = command("logs", trial_id[:5], "--storage", stored)
    assert shown.code == 0
    assert f"trial {trial_id} of sweep single: 4 replicates on" in shown.out
    assert "step 30 of 30: loss" in shown.out
    assert shown.out.endswith("end: complete\n")
    assert command("logs", trial_id, "--follow", "--storage", stored).out == shown.out
