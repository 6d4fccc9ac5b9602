"""What goes wrong in a worker costs that worker, and no trial."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from ticketsweep.errors import StorageError
from ticketsweep.store.claims import claimed
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.sweep import tuning
from ticketsweep.sweep.runner import run_sweep
from ticketsweep.sweep.silence import Silence

MakeSpec = Callable[..., Any]
HERE = Path(__file__).parent
HANGS_AT_ITS_START = """
# Of all processes of Ray the first that is to hold a trial stops before it does.
import os, signal, sys
from pathlib import Path

class Stopping:
    def find_spec(self, name, path=None, target=None):
        if name == "ticketsweep.sweep.worker":
            folder = Path(os.environ["FAULTY_FOLDER"])
            try:
                (folder / "started").touch(exist_ok=False)  # two may start at the same moment
            except FileExistsError:
                return
            os.kill(os.getpid(), signal.SIGSTOP)
            (folder / "woken").touch()

sys.meta_path.insert(0, Stopping())
"""


def test_a_sweep_that_is_being_run_is_refused_to_a_second_driver(
    storage: Storage, recorder: Any, make_spec: MakeSpec
) -> None:
    with (
        claimed(storage, "mini", "run", waiting=print),
        pytest.raises(StorageError, match=rf"mini is being run by process {os.getpid()} of "),
    ):
        run_sweep(make_spec(), storage=storage, address=None, tracking="off", observer=recorder)
    assert recorder.events == []
    assert len(Database(storage).sweeps()) == 0


def over(silence: Silence, *keys: str) -> list[str]:
    return [silent.key for silent in silence.of(dict.fromkeys(keys, 3.0)) if silent.too_long]


def test_only_time_spent_listening_counts_as_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    silence = Silence()
    for _ in range(4):
        assert over(silence, "a") == []
        now += 0.9
    now += 1000  # the machine was asleep: all that is known is that a second has gone by
    silence.heard("b")
    assert over(silence, "a", "b") == ["a"]
    assert over(silence, "a", "b") == []
    now += 0.9
    silence.heard("b")
    for _ in range(4):
        assert over(silence, "b") == []  # "a" waits for another worker
        silence.heard("b")
        now += 0.9
    assert over(silence, "a", "b") == []


def test_a_long_silence_is_told_more_and_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    silence, told = Silence(), []
    for _ in range(800):
        told += [(silent.key, round(silent.seconds)) for silent in silence.of({"a": 1e3, "b": 1e3})]
        if now < 500:
            assert not silence.heard("b")
        now += 1
    assert told == [
        ("a", 60),
        ("a", 120),
        ("a", 240),
        ("a", 480),
        ("b", 60),
        ("b", 120),
        ("b", 240),
    ]
    assert silence.heard("a")
    assert not silence.heard("a")


def test_a_worker_that_has_started_is_given_its_time_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    silence, found = Silence(), []
    for limit in (100.0, 10.0):
        for _ in range(55):
            found += [(round(s.seconds), s.too_long) for s in silence.of({"a": limit})]
            now += 1
    assert found == [(11, True)] * 4


@pytest.mark.exhaustive
@pytest.mark.slow
def test_workers_that_hang_at_any_time_or_have_lost_their_device_are_replaced(
    storage: Storage,
    recorder: Any,
    make_spec: MakeSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "faults"
    folder.mkdir()
    monkeypatch.setattr(tuning, "SECONDS_TO_START", 60)  # more than a busy machine takes
    monkeypatch.setenv("FAULTY_FOLDER", str(folder))
    monkeypatch.setenv("FAULTY_DRIVER", str(os.getpid()))
    (tmp_path / "sitecustomize.py").write_text(HANGS_AT_ITS_START)
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{tmp_path}")
    monkeypatch.syspath_prepend(str(HERE))
    kinds = ("loses_the_device", "stops", "exhausts", "sound")
    spec = make_spec(
        model={"choice": [f"faulty:{kind}" for kind in kinds]},
        weight_scale=1.5,
        gate={},
        sweep={
            "sampler": "grid",
            "samples": len(kinds),
            "stall_seconds": 20,  # a worker that has just begun compiles for some of them
            "max_failures": 5,  # which a machine with other work may take for a fault
        },
    )
    outcome = run_sweep(spec, storage=storage, address=None, tracking="off", observer=recorder)
    rows = {row["model"].partition(":")[2]: row for row in outcome.rows}
    states = {kind: row["status"] for kind, row in rows.items()}
    assert states == dict.fromkeys(kinds, "complete") | {"exhausts": "failed"}
    assert "allocate memory" in rows["exhausts"]["error"]
    assert recorder.of("trial").count(rows["exhausts"]["trial_id"]) == 1  # and no worker's death
    workers = {kind: len(list(folder.glob(f"{kind}-*"))) for kind in ("loses", "stops")}
    assert min(workers.values()) >= 2
    began = {kind: recorder.of("trial").count(row["trial_id"]) for kind, row in rows.items()}
    assert min(began["loses_the_device"], began["stops"]) >= 2
    assert (folder / "started").exists()
    assert not (folder / "woken").exists()


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_sweep_grows_and_stops_trials_early_while_its_storage_goes_and_comes_back(
    storage: Storage, make_recorder: type[Any], make_spec: MakeSpec
) -> None:
    def swept(recorder: Any, **sweep: Any) -> dict[str, dict[str, Any]]:
        spec = make_spec(
            train={"steps": 60, "batch_size": 64},
            sweep={"scheduler": {"asha": {"grace_steps": 5}}, **sweep},
        )
        outcome = run_sweep(spec, storage=storage, address=None, tracking="off", observer=recorder)
        assert len({row["trial_id"] for row in outcome.rows}) == len(outcome.rows)
        return {row["trial_id"]: row for row in outcome.rows}

    def go_away(kind: str, what: Any) -> None:
        if kind == "progress":
            later.on_event = None
            root = storage.local
            assert root is not None
            away = root.with_name("away")
            root.rename(away)
            threading.Timer(3, away.rename, [root]).start()

    first, later = make_recorder(), make_recorder()
    before = swept(first, samples=3, concurrency=1)
    later.on_event = go_away
    after = swept(later, samples=9, concurrency=2)
    assert first.of("started") == [("mini", 3, 0, 1)]
    assert later.of("started") == [("mini", 9, 3, 2)]
    assert {identity: after[identity] for identity in before} == before
    assert len(after) == 9
    stopped = [row for row in after.values() if row["status"] == "stopped"]
    assert {row["status"] for row in after.values()} == {"complete", "stopped"}
    assert stopped
    assert later.on_event is None
    for row in after.values():
        masks = Database(storage).masks("mini", row["trial_id"])
        assert set(masks["step"].to_pylist()) == {row["steps_done"]}
        assert len(masks) == 4 * 2
        assert (row["status"] == "stopped") == (row["steps_done"] in {5, 15, 45})
    journal = storage.optuna_journal("mini")
    assert journal is not None
    study = optuna.load_study(
        study_name="mini", storage=JournalStorage(JournalFileBackend(str(journal)))
    )
    states = Counter(trial.state.name for trial in study.trials)
    assert states == {"COMPLETE": 9 - len(stopped), "PRUNED": len(stopped)}
    assert storage.local is not None
    assert list(storage.local.glob("checkpoints/*")) == []
