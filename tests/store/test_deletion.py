"""Deleting: what goes, what stays, and that a kill at any moment leaves a sound database."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ticketsweep.errors import StorageError
from ticketsweep.store import deletion
from ticketsweep.store.checkpoints import CheckpointFile
from ticketsweep.store.claims import claimed
from ticketsweep.store.compaction import compact, compacting
from ticketsweep.store.comparisons import ComparedPair, write_comparisons
from ticketsweep.store.database import Database
from ticketsweep.store.deletion import delete_sweep, delete_trials, doomed_sweep
from ticketsweep.store.live import LivePage, live_runs
from ticketsweep.store.logs import add_note
from ticketsweep.store.paths import Storage
from ticketsweep.store.under_way import note_begun, trials_under_way
from ticketsweep.store.verify import verify
from ticketsweep.store.writer import copy_trial, write_sweep, write_trial

SWEEP = {"version": "1", "space": "{}", "objectives": {"loss": "min"}, "samples": 9, "seed": 0}


def silent(done: int, total: int) -> None:
    assert 0 <= done <= total


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, make_trial: Callable[..., object]) -> Path:
    """A sweep with everything that a sweep can have, and another that has copied of it."""
    root = tmp_path_factory.mktemp("filled") / "storage"
    storage = Storage.open(str(root), create=True)
    for name in ("old", "other"):
        write_sweep(storage, {**SWEEP, "sweep": name})
    for n in range(3):
        write_trial(storage, "old", make_trial(f"t{n}", seed=n))
    compact(storage, "old", report=silent)
    for n in range(3, 6):
        write_trial(storage, "old", make_trial(f"t{n}", seed=n))
    write_trial(storage, "old", make_trial("bad", status="failed"))
    pair = ComparedPair(0, 1, "data", {"barrier": 0.1})
    write_comparisons(storage, "old", "t1", "paths", [pair], settings={})
    copy_trial(storage, "t0", "old", "other", search=None)
    copy_trial(storage, "t4", "old", "other", search=None)
    note_begun(storage, "old", "mine", "{}")
    note_begun(storage, "old", "shared", "{}")
    note_begun(storage, "other", "shared", "{}")
    add_note(storage, "old", "t3", "a line")
    for trial in ("mine", "shared", "nobody"):
        CheckpointFile(storage, trial).write(b"state")
    (root / "optuna").mkdir()
    (root / "optuna" / "old.journal").write_text("{}")
    return root


@pytest.fixture
def storage(filled: Path, tmp_path: Path) -> Storage:
    shutil.copytree(filled, tmp_path / "storage")
    return Storage.open(str(tmp_path / "storage"), create=False)


def files(storage: Storage) -> dict[str, bytes]:
    assert storage.local is not None
    paths = [path for path in storage.local.rglob("*") if path.is_file()]
    return {str(path.relative_to(storage.local)): path.read_bytes() for path in paths}


class _Killed(BaseException):
    pass


@contextmanager
def killed_after(removals: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ends a deletion, as a kill would, once so many files are gone."""
    left, remove = removals, deletion.remove

    def removing(storage: Storage, path: str) -> None:
        nonlocal left
        if not left:
            raise _Killed
        left -= 1
        remove(storage, path)

    with monkeypatch.context() as patch:
        patch.setattr(deletion, "remove", removing)
        patch.setattr(deletion, "_AT_ONCE", 1)
        yield


def test_all_of_a_sweep_goes_and_nothing_of_others(storage: Storage) -> None:
    before = files(storage)
    doomed = doomed_sweep(storage, "old")
    assert files(storage) == before
    assert delete_sweep(storage, "old", report=silent) == doomed
    after = files(storage)
    assert after == {name: before[name] for name in after}
    gone = before.keys() - after.keys()
    assert gone == {n for n in before if "old" in n} | {"checkpoints/mine.safetensors"}
    assert (doomed.trials, doomed.masks) == (7, 6 * 4)
    assert (doomed.files, doomed.bytes) == (len(gone), sum(len(before[n]) for n in gone))
    database = Database(storage)
    assert database.trials()["sweep"].to_pylist() == ["other", "other"]
    assert database.ticket("t0", sweep="other").keys() == {"fc1", "fc2"}
    assert verify(storage, report=silent).sound
    assert "old" not in storage.names()
    with pytest.raises(StorageError, match="has no sweep 'old'"):
        delete_sweep(storage, "old", report=silent)
    assert files(storage) == after


@pytest.mark.parametrize(
    "step", [pytest.param(7, id="some"), pytest.param(1, marks=pytest.mark.exhaustive, id="all")]
)
def test_a_kill_at_any_moment_leaves_whole_trials_and_the_same_line_finishes(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    target = tmp_path / "storage"
    whole = Database(Storage.open(str(filled), create=False))
    rows = {row["trial_id"]: row for row in whole.trials("old").to_pylist()}
    total = doomed_sweep(whole.storage, "old").files
    for removals in range(3 % step, total, step):
        shutil.copytree(filled, target)
        storage = Storage.open(str(target), create=False)
        with killed_after(removals, monkeypatch), pytest.raises(_Killed):
            delete_sweep(storage, "old", report=silent)
        database = Database(storage)
        left = database.trials("old").to_pylist()
        assert all(row == rows[row["trial_id"]] for row in left)
        complete = {row["trial_id"] for row in left if row["status"] == "complete"}
        assert set(database.masks("old")["trial_id"].to_pylist()) == complete
        assert verify(storage, report=silent).sound
        delete_sweep(storage, "old", report=silent)
        assert not [name for name in files(storage) if "old" in name or "mine" in name]
        shutil.rmtree(target)


def test_a_sweep_that_is_being_run_is_not_deleted(storage: Storage) -> None:
    before = files(storage)
    with (
        claimed(storage, "old", "run", waiting=lambda _: None),
        pytest.raises(StorageError, match="is being run by process"),
    ):
        delete_sweep(storage, "old", report=silent)
    assert files(storage) == before


def test_no_trial_goes_while_the_sweep_is_being_compacted(storage: Storage) -> None:
    before = files(storage)
    with compacting(storage, "old"), pytest.raises(StorageError, match="compact"):
        delete_trials(storage, "old", ["t3"], report=silent)
    assert files(storage) == before


def test_a_checkpoint_stays_that_a_single_trial_of_another_sweep_is_writing(
    storage: Storage,
) -> None:
    CheckpointFile(storage, "bad").write(b"state")
    page = LivePage(storage, "single", "bad")
    page.started("bad", steps=10, replicates=1, host="here")
    until = time.monotonic() + 20
    while not any(run.trials for run in live_runs(storage, "single")):
        assert time.monotonic() < until
        time.sleep(0.1)
    try:
        delete_sweep(storage, "old", report=silent)
    finally:
        page.close("complete")
    assert "bad" in storage.checkpoints()


def test_single_trials_go_from_parts_too(storage: Storage) -> None:
    delete_trials(storage, "old", ["t1", "t4", "bad"], report=silent)
    database = Database(storage)
    assert database.trials("old")["trial_id"].to_pylist() == ["t0", "t2", "t3", "t5"]
    assert set(database.masks("old")["trial_id"].to_pylist()) == {"t0", "t2", "t3", "t5"}
    assert database.comparisons().num_rows == 0
    assert database.trials("other")["trial_id"].to_pylist() == ["t0", "t4"]
    assert verify(storage, report=silent).sound
    delete_trials(storage, "old", ["t0", "t2"], report=silent)  # the last of the part
    assert Database(storage).trials("old")["trial_id"].to_pylist() == ["t3", "t5"]
    assert trials_under_way(storage)["old"] == {"mine", "shared"}
    found = verify(storage, report=silent)
    assert found.sound
    assert found.leftovers == ()


@pytest.mark.parametrize("removals", [0, 1, 4, 8])
def test_a_kill_while_single_trials_go_leaves_whole_ones(
    storage: Storage, removals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with killed_after(removals, monkeypatch), pytest.raises(_Killed):
        delete_trials(storage, "old", ["t1", "t4"], report=silent)
    left = set(Database(storage).trials("old")["trial_id"].to_pylist())
    assert {"t0", "t2", "t3", "t5", "bad"} <= left
    assert set(Database(storage).masks("old")["trial_id"].to_pylist()) == left - {"bad"}
    assert verify(storage, report=silent).sound
    delete_trials(storage, "old", ["t1", "t4"], report=silent)
    assert left - {"t1", "t4"} == set(Database(storage).trials("old")["trial_id"].to_pylist())
