"""Whatever dies while it writes, readers see the trial as it was, as it is now, or not at all."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.writer import copy_trial, remove_leftovers, write_trial

HERE = Path(__file__).parent


def _seen(database: Database, trial_id: str, make_trial) -> tuple[str, int] | None:
    """(status, seed) of a trial after checking that all its tables belong together."""
    tables = {
        table: getattr(database, table)("a", trial_id).to_pylist(maps_as_pydicts="strict")
        for table in ("replicates", "masks", "curves")
    }
    rows = database.trials("a").to_pylist(maps_as_pydicts="strict")
    own = [row for row in rows if row["trial_id"] == trial_id]
    if not own:
        assert tables == {"replicates": [], "masks": [], "curves": []}
        return None
    (trial,) = own
    status, seed = trial["status"], int(trial["metrics"]["seed"])
    expected = make_trial(trial_id, status=status, seed=seed)
    assert trial["val_accuracy"] == expected.trial["val_accuracy"]
    assert [row["digest"] for row in tables["masks"]] == [mask.digest for mask in expected.masks]
    assert [row["init_seed"] for row in tables["replicates"]] == [seed] * len(expected.replicates)
    assert [row["loss"] for row in tables["curves"]] == [seed] * len(expected.curves)
    return status, seed


def _temporary(storage: Storage) -> list[Path]:
    return list(storage.local.rglob("*.tmp"))


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, str(HERE / "killed_writer.py"), str(folder)]
    subprocess.run(command, check=True, timeout=120)
    return folder


@pytest.mark.parametrize(
    ("scenario", "allowed", "final"),
    [
        ("new", {None, ("complete", 1)}, ("complete", 1)),
        ("failed-complete", {("failed", 0), ("complete", 1)}, ("complete", 1)),
        ("stopped-complete", {("stopped", 0), None, ("complete", 1)}, ("complete", 1)),
        ("stopped-failed", {("stopped", 0), ("failed", 1)}, ("failed", 1)),
        ("copy", {None, ("complete", 1)}, ("complete", 1)),
    ],
)
def test_a_writer_killed_at_any_file_operation_leaves_no_mixture(
    killed, make_trial, scenario, allowed, final
):
    folders = [path for path in (killed / scenario).iterdir() if path.name.isdigit()]
    folders.sort(key=lambda folder: int(folder.name))
    assert len(folders) > 5
    states = []
    for folder in folders:
        storage = Storage.open(str(folder), create=False)
        database = Database(storage)
        states.append(_seen(database, "t0", make_trial))
        assert database.warnings == ()
    assert set(states) <= allowed
    assert states[-1] == final
    assert states == sorted(states, key=lambda state: state == final)  # no way back
    for folder in folders[::3]:
        storage = Storage.open(str(folder), create=False)
        remove_leftovers(storage, "a")
        assert _temporary(storage) == []
        if scenario == "copy":
            copy_trial(storage, "t0", "source", "a", search="{}")
        else:
            write_trial(storage, "a", make_trial(status=final[0], seed=final[1]))
        assert _seen(Database(storage), "t0", make_trial) == final


@pytest.mark.parametrize("seed", range(2))
def test_a_writer_killed_at_a_random_moment_leaves_whole_trials(tmp_path, make_trial, seed):
    uri = str(tmp_path / "storage")
    command = [sys.executable, str(HERE / "endless_writer.py"), uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout.readline() == b"writing\n"
            time.sleep(random.Random(seed).uniform(0.05, 0.6))
        finally:
            writer.kill()
    storage = Storage.open(uri, create=False)
    database = Database(storage)
    ids = database.trials()["trial_id"].to_pylist()
    states = {trial_id: _seen(database, trial_id, make_trial) for trial_id in ids}
    unfinished = [trial for trial, state in states.items() if state[0] != "complete"]
    assert len(unfinished) <= 1
    assert database.warnings == ()
    remove_leftovers(storage, "a")
    assert _temporary(storage) == []


def test_a_reader_beside_a_writer_sees_whole_trials_only(tmp_path, make_trial):
    uri = str(tmp_path / "storage")
    storage = Storage.open(uri, create=True)
    database = Database(storage)
    query = """select trial_id, any_value(status) status, count(m.bits) masks, count(*) c
               from trials t left join masks m using (trial_id) group by 1"""
    command = [sys.executable, str(HERE / "endless_writer.py"), uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout.readline() == b"writing\n"
            end = time.monotonic() + 1.5
            while time.monotonic() < end or len(database.trials()) < 4:
                assert writer.poll() is None
                for row in database.sql(query).to_pylist():
                    expected = 0 if row["status"] == "failed" else 4
                    assert row["masks"] == expected, row
                assert len(database.masks()) % 4 == 0
        finally:
            writer.kill()
    assert database.warnings == ()
