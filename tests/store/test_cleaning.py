"""Cleaning: only what nobody can need any more is found, and nothing else is deleted."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ticketsweep.errors import StorageError
from ticketsweep.store.checkpoints import CheckpointFile
from ticketsweep.store.claims import claimed, this_process
from ticketsweep.store.cleaning import clean, find_litter
from ticketsweep.store.compaction import compact
from ticketsweep.store.database import Database
from ticketsweep.store.deletion import delete_sweep
from ticketsweep.store.live import LiveRun, LiveTrial, encode
from ticketsweep.store.paths import Storage
from ticketsweep.store.under_way import note_begun
from ticketsweep.store.verify import verify
from ticketsweep.store.writer import write_sweep, write_trial

WEEK = 7 * 86_400.0
LONG_AGO = time.time() - 2 * WEEK
MakeTrial = Callable[..., object]


def silent(done: int, total: int) -> None:
    assert done <= total


def begin(storage: Storage, name: str) -> None:
    objectives = {"loss": "min"}
    row = {"version": "1", "space": "{}", "objectives": objectives, "samples": 9, "seed": 0}
    write_sweep(storage, {**row, "sweep": name})


def checkpoint(storage: Storage, trial: str, *, old: bool = False) -> None:
    CheckpointFile(storage, trial).write(b"state")
    if old:
        os.utime(storage.checkpoint_file(trial), (LONG_AGO, LONG_AGO))


def litter(storage: Storage, sweep: str | None = None) -> dict[str, str]:
    found = find_litter(storage, sweep, older_than=WEEK)
    return {each.path.removeprefix(f"{storage.root}/"): each.kind for each in found}


def test_a_checkpoint_stays_as_long_as_its_trial_may_go_on(
    storage: Storage, make_trial: MakeTrial
) -> None:
    begin(storage, "mine")
    write_trial(storage, "mine", make_trial("done"))
    compact(storage, "mine", report=silent)
    write_trial(storage, "mine", make_trial("rung", status="stopped"))
    write_trial(storage, "mine", make_trial("broken", status="failed"))
    note_begun(storage, "mine", "begun", "{}")
    note_begun(storage, "mine", "done", "{}")
    note_begun(storage, "gone", "orphan", "{}")
    for trial in ("done", "rung", "broken", "begun", "orphan", "single", "forgotten"):
        checkpoint(storage, trial, old=trial != "single")
    complete, unknown = "checkpoint of a complete trial", "checkpoint that no sweep goes on from"
    note = "note of a trial that has ended"
    of_mine = {
        "checkpoints/done.safetensors": complete,
        "underway/sweep=mine/done.json": note,
    }
    assert litter(storage, "mine") == of_mine
    assert litter(storage) == of_mine | {
        "checkpoints/orphan.safetensors": unknown,
        "checkpoints/forgotten.safetensors": unknown,
        "underway/sweep=gone/orphan.json": note,
    }
    clean(storage, find_litter(storage, None, older_than=WEEK), report=silent)
    assert set(storage.checkpoints()) == {"rung", "broken", "begun", "single"}
    assert litter(storage) == {}


def test_nothing_is_taken_from_a_sweep_that_is_being_run(
    storage: Storage, make_trial: MakeTrial
) -> None:
    begin(storage, "mine")
    begin(storage, "other")
    write_trial(storage, "other", make_trial("twin"))
    checkpoint(storage, "twin", old=True)
    with claimed(storage, "mine", "run", waiting=lambda _: None):
        note_begun(storage, "mine", "twin", "{}")
        assert litter(storage) == {}
    assert litter(storage) == {"checkpoints/twin.safetensors": "checkpoint of a complete trial"}


def test_the_checkpoint_of_a_single_trial_that_is_running_stays(storage: Storage) -> None:
    checkpoint(storage, "t0", old=True)
    now = datetime.now(UTC)
    trial = LiveTrial("t0", "here", now, steps=10)
    run = LiveRun("single", "t0", this_process(), now, now, 1, trials=(trial,))
    path = Path(storage.live_folder("single")) / "t0.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(encode(dataclasses.replace(run, ended=now)))
    assert list(litter(storage)) == ["checkpoints/t0.safetensors"]
    path.write_bytes(encode(run))
    assert litter(storage) == {}
    with pytest.raises(StorageError, match="a trial of sweep single is being run by process"):
        delete_sweep(storage, "single", report=silent)


def test_claims_and_files_of_dead_processes_are_found(
    storage: Storage, make_trial: MakeTrial
) -> None:
    write_trial(storage, "s", make_trial("t0"))
    with claimed(storage, "s", "run", waiting=lambda _: None):
        (claim,) = storage.claims("s")
        content = json.loads(Path(claim).read_bytes())
        host = content["host"]
    dead = {**content, "pid": 2**22 + 1, "started": "1"}
    for name, of in {"dead": dead, "away": {**dead, "machine": "another"}}.items():
        path = Path(storage.claims_folder("s")) / f"run.{name}.json"
        path.write_text(json.dumps(of))
    there = [
        f"masks/sweep=s/.t1.parquet.{host}.{2**22 + 1}.ab.tmp",
        f"checkpoints/.t1.safetensors.{host}.{2**22 + 1}.ab.tmp",
        f"underway/sweep=s/.t1.json.{host}.{2**22 + 1}.ab.tmp",
        f"masks/sweep=s/.t1.parquet.{host}.{os.getpid()}.ab.tmp",
    ]
    for name in there:
        path = Path(storage.root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    probe = Path(storage.root) / f".probe-{'0' * 16}"
    probe.touch()
    os.utime(probe, (LONG_AGO, LONG_AGO))
    assert litter(storage) == dict.fromkeys([*there[:3], probe.name], "unfinished file") | {
        "claims/sweep=s/run.dead.json": "claim of a process that has ended"
    }


def test_rows_that_were_never_committed_go_once_they_are_old(
    storage: Storage, make_trial: MakeTrial
) -> None:
    for n in range(2):
        write_trial(storage, "s", make_trial(f"t{n}", seed=n))
    compact(storage, "s", report=silent)
    write_trial(storage, "s", make_trial("t2", seed=2))
    write_trial(storage, "s", make_trial("cut", seed=3))
    Path(storage.trial_file("trials", "s", "cut")).unlink()
    before = Database(storage).masks("s").to_pylist()
    assert litter(storage) == {}
    for path in Path(storage.root).rglob("*.parquet"):
        os.utime(path, (LONG_AGO, LONG_AGO))
    assert set(litter(storage)) == {
        f"{table}/sweep=s/cut.parquet" for table in ("masks", "replicates", "curves")
    }
    clean(storage, find_litter(storage, "s", older_than=WEEK), report=silent)
    assert Database(storage).masks("s").to_pylist() == before
    found = verify(storage, report=silent)
    assert (found.sound, found.trials, found.leftovers) == (True, 3, ())


def test_a_sweep_that_is_not_there_is_named(storage: Storage) -> None:
    begin(storage, "lenet")
    with pytest.raises(StorageError, match=r"no sweep .lenett. .did you mean .lenet."):
        find_litter(storage, "lenett", older_than=WEEK)
