"""Sweeps on a real Ray. One takes seconds to start, so tests share what one run has left."""

from __future__ import annotations

import atexit
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ticketsweep.config import parse_config
from ticketsweep.distributions import corners
from ticketsweep.errors import ConfigError, DataError, StorageError, SweepError
from ticketsweep.planning import data_key, identify, load_data
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.writer import write_sweep
from ticketsweep.sweep.runner import SweepOutcome, refuse_if_changed, run_sweep
from ticketsweep.trial import run_trial

pytestmark = pytest.mark.slow
MakeSpec = Callable[..., Any]
Recorder = Any  # `conftest.Recorder`
DEEP = "fc-" + "-".join(["64"] * 24)  # overflows where its weights are scaled up


def processes() -> dict[int, tuple[int, str]]:
    """Every process that can be seen: its parent and its command line."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (OSError, ValueError):
                continue
            found[int(folder.name)] = (parent, line)
    return found


def descendants(of: int) -> dict[int, str]:
    """The processes below one, with their command lines."""
    known = processes()
    below: dict[int, str] = {}
    fresh = {of}
    while fresh:
        fresh = {pid for pid, (parent, _) in known.items() if parent in fresh}
        below |= {pid: known[pid][1] for pid in fresh}
    return below


def workers() -> set[int]:
    """Those that hold a trial: Ray names them after their class, or their method while it runs."""
    names = ("ray::TrialWorker", "ray::ResourceTrainable")
    return {pid for pid, line in descendants(os.getpid()).items() if line.startswith(names)}


def ray_processes() -> dict[int, str]:
    return {
        pid: line
        for pid, line in descendants(os.getpid()).items()
        if "raylet" in line or "gcs_server" in line or line.startswith("ray::")
    }


@pytest.fixture(scope="module", autouse=True)
def temporary() -> Iterator[Path]:
    """A short folder of our own for Ray's sockets, so that other sweeps are not taken for ours."""
    before = tempfile.tempdir
    tempfile.tempdir = tempfile.mkdtemp(prefix="ts-", dir="/tmp")
    atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)  # W&B keeps files there
    yield Path(tempfile.tempdir)
    tempfile.tempdir = before


def run(
    spec: Any, storage: Storage, recorder: Recorder, *, address: str | None = None
) -> SweepOutcome:
    return run_sweep(spec, storage=storage, address=address, tracking="off", observer=recorder)


@dataclasses.dataclass
class Swept:
    """A sweep of which two trials fail, run twice; `first`, `second` are what was seen."""

    storage: Storage
    spec: Any
    first: Recorder
    second: Recorder
    outcomes: tuple[SweepOutcome, SweepOutcome]
    rows: tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]
    workers: set[int]
    left: dict[int, str]
    folders: set[Path]


def by_id(storage: Storage, sweep: str = "mini") -> dict[str, dict[str, Any]]:
    rows = Database(storage).trials(sweep).to_pylist()
    assert len({row["trial_id"] for row in rows}) == len(rows)
    return {row["trial_id"]: row for row in rows}


@pytest.fixture(scope="module")
def swept(
    tmp_path_factory: pytest.TempPathFactory,
    make_spec: MakeSpec,
    make_recorder: Any,
    temporary: Path,
) -> Swept:
    storage = Storage.open(str(tmp_path_factory.mktemp("swept") / "storage"), create=True)

    def spec(samples: int) -> Any:
        block = {"sampler": "grid", "samples": samples, "max_failures": 1}
        return make_spec(
            model={"choice": [DEEP, "fc-16"]},
            weight_scale={"choice": [1.5, 1000.0]},
            gate={},
            seed={"choice": [0, 1]},
            train={"steps": 120, "batch_size": 64},
            sweep=block,
        )

    first, second = make_recorder(), make_recorder()
    seen: set[int] = set()
    first.on_event = lambda kind, what: seen.update(workers()) if kind == "progress" else None
    one = run_sweep(spec(6), storage=storage, address=None, tracking="offline", observer=first)
    left, rows = ray_processes(), by_id(storage)
    two = run(spec(8), storage, second)
    return Swept(
        storage, spec(8), first, second, (one, two), (rows, by_id(storage)), seen, left,
        set(temporary.glob("ticketsweep-*")),
    )  # fmt: skip


def test_every_trial_is_stored_once(swept: Swept) -> None:
    first, second = swept.outcomes
    assert len(first.rows) == 6
    assert len(second.rows) == 8
    assert not first.interrupted
    assert not first.exhausted
    assert {row["trial_id"] for row in second.rows} == set(swept.rows[1])
    assert {row["trial_id"] for row in swept.first.of("finished")} == set(swept.rows[0])


def test_failures_are_stored_and_the_others_finish(swept: Swept) -> None:
    rows = swept.rows[1].values()
    failed = [row for row in rows if row["status"] == "failed"]
    assert len(failed) == 2
    for row in failed:
        assert row["model"] == DEEP
        assert row["weight_scale"] == 1000
        assert "diverged" in row["error"]
    assert all(row["stability"] is not None for row in rows if row["status"] == "complete")


def test_failed_trials_are_tried_again_and_complete_ones_are_not(swept: Swept) -> None:
    before, after = swept.rows
    for identity, row in before.items():
        if row["status"] == "complete":
            assert after[identity] == row
        else:
            assert dict(row["metrics"])["failures"] == 1
            assert dict(after[identity]["metrics"])["failures"] == 2
    again = {row["trial_id"] for row in before.values() if row["status"] == "failed"}
    assert again
    assert set(swept.second.of("trial")) == again | (after.keys() - before.keys())
    assert swept.second.of("started") == [("mini", 8, 6 - len(again), 2)]


def test_trials_run_at_the_same_time_in_as_many_workers(swept: Swept) -> None:
    assert swept.first.of("started") == [("mini", 6, 0, 2)]
    assert len(swept.workers) == 2
    begun = [(row["started_at"].timestamp(), row["wall_seconds"]) for row in swept.rows[0].values()]
    overlapping = [(a, b) for a, wall in begun for b, _ in begun if a < b < a + wall]
    assert overlapping


def test_the_sweeps_row_tells_the_latest_number_of_samples(swept: Swept) -> None:
    (row,) = Database(swept.storage).sweeps().to_pylist()
    assert (row["sweep"], row["samples"]) == ("mini", 8)


def test_a_local_ray_leaves_nothing_behind(swept: Swept) -> None:
    assert swept.left == {}
    assert swept.folders == set()
    assert swept.storage.local is not None
    assert not list(swept.storage.local.rglob("*.tmp"))


def test_each_trial_has_an_offline_run(swept: Swept) -> None:
    assert swept.first.of("warning") == []
    runs = list((swept.storage.tracking_folder() / "wandb").glob("offline-run-*/run-*.wandb"))
    of_sweep = f"run-{swept.spec.settings.name}"
    names = {f"{of_sweep}-{trial_id}" for trial_id in swept.rows[0]}
    assert {path.stem for path in runs} == {of_sweep, *names}


def test_with_nothing_to_do_no_ray_is_started(swept: Swept, recorder: Recorder) -> None:
    """And the sweep gets its own row, where it has none since its trials were run one by one."""
    (of_sweep,) = Path(str(swept.storage.local)).glob("sweeps/**/*.parquet")
    of_sweep.unlink()
    outcome = run(swept.spec, swept.storage, recorder)
    assert Database(swept.storage).sweeps()["samples"].to_pylist() == [8]
    assert by_id(swept.storage) == swept.rows[1]
    assert len(outcome.rows) == 8
    assert recorder.events == []


def test_trials_of_another_sweep_are_copied_and_no_ray_is_started(
    swept: Swept, recorder: Recorder, make_spec: MakeSpec
) -> None:
    spec = make_spec(
        weight_scale=1.5,
        gate={},
        seed={"choice": [0, 1]},
        train={"steps": 120, "batch_size": 64},
        sweep={"name": "other", "samples": 5, "sampler": "random"},
    )
    outcome = run(spec, swept.storage, recorder)
    assert len(outcome.rows) == 2
    assert outcome.exhausted
    assert not any("Ray" in text for text in recorder.of("phase"))
    for row in outcome.rows:
        assert row["started_at"] == swept.rows[1][row["trial_id"]]["started_at"]
        assert row["sweep"] == "other"
        assert len(Database(swept.storage).masks("other", row["trial_id"])) == 8


def test_another_space_under_the_same_name_is_refused(
    swept: Swept, recorder: Recorder, make_spec: MakeSpec
) -> None:
    with pytest.raises(SweepError) as caught:
        run(make_spec(train={"steps": 41, "batch_size": 64}), swept.storage, recorder)
    assert "train.steps: 120 in the storage, 41 in mini.yaml" in str(caught.value)


OWN = """
from torch import nn

def net(input_shape, classes):
    layers = nn.Linear(64, 8, bias=False), nn.Linear(8, classes, bias=False)
    return nn.Sequential(nn.Flatten(), *layers)
"""


@pytest.mark.parametrize("samples", [1, 2])
def test_trials_of_other_code_are_not_mixed_with_those_of_todays(
    samples: int,
    storage: Storage,
    recorder: Recorder,
    make_spec: MakeSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "a_net_of_ones_own.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    block = {"sampler": "grid", "samples": samples}
    train = {"steps": 3, "batch_size": 64}
    spec = make_spec(
        model="a_net_of_ones_own:net",
        weight_scale=1.5,
        gate={},
        train=train,
        seed={"choice": [0, 1]},
        sweep=block,
    )
    config = parse_config(next(corners(spec.tree)), source="test")
    for _ in run_trial(config, dataset=load_data(config), storage=storage, sweep="mini"):
        pass
    if samples == 1:
        assert len(run(spec, storage, recorder).rows) == 1
    monkeypatch.setattr("ticketsweep.planning.source_digest", lambda name: "another")
    with pytest.raises(SweepError, match=r"ran with other code or data.*--name"):
        run(spec, storage, recorder)
    assert not [phase for phase in recorder.of("phase") if "Ray" in phase]


def test_trials_whose_ids_an_earlier_version_gave_are_gone_on_with(
    storage: Storage, make_spec: MakeSpec
) -> None:
    spec = make_spec(gate={"family": "gaussian"})
    config = parse_config(next(corners(spec.tree)), source="test")
    dataset = load_data(config)
    datasets = {data_key(config): dataset}
    row = {"model": "", "dataset": "", "gate_family": "", "config": config.model_dump_json()}
    for version in (1, 2):
        old = identify(config, dataset, version=version)
        refuse_if_changed(spec, [{**row, "trial_id": old}], datasets)
    with pytest.raises(SweepError, match="other code or data"):
        refuse_if_changed(spec, [{**row, "trial_id": "0" * 16}], datasets)
    unreadable = {**row, "trial_id": "0" * 16, "config": '{"unheard_of": 1}'}
    refuse_if_changed(spec, [unreadable], datasets)


def test_fewer_samples_than_before_do_not_change_the_sweeps_row(
    swept: Swept, recorder: Recorder, make_spec: MakeSpec
) -> None:
    before = Database(swept.storage).sweeps()
    spec = dataclasses.replace(
        swept.spec, settings=swept.spec.settings.model_copy(update={"samples": 2})
    )
    run(spec, swept.storage, recorder)
    assert Database(swept.storage).sweeps().equals(before)


def test_a_sweep_that_could_not_begin_may_begin_with_another_space(
    storage: Storage, recorder: Recorder, make_spec: MakeSpec
) -> None:
    missing = make_spec(dataset="parquet:nowhere")
    for _ in range(2):
        with pytest.raises(DataError):
            run(missing, storage, recorder)
    assert Database(storage).sweeps().num_rows == 0
    write_sweep(storage, {"sweep": "mini", "space": "{}", "objectives": {}, "samples": 99})
    with pytest.raises(DataError):  # and not a SweepError: no trial stands on the stored space
        run(missing, storage, recorder)


def test_a_batch_larger_than_the_data_is_refused_before_anything_starts(
    storage: Storage, recorder: Recorder, make_spec: MakeSpec
) -> None:
    spec = make_spec(train={"steps": 5, "batch_size": {"choice": [64, 5000]}})
    with pytest.raises(DataError, match=r"train.batch_size must be <= \d+.* got 5000"):
        run(spec, storage, recorder)
    assert not any("Ray" in text for text in recorder.of("phase"))
    assert Database(storage).sweeps().num_rows == 0


def test_resources_that_this_machine_lacks_are_refused(
    storage: Storage, recorder: Recorder, make_spec: MakeSpec
) -> None:
    spec = make_spec(sweep={"resources": {"cpus": 9999, "gpus": 1}})
    with pytest.raises(ConfigError, match=r"sweep.resources.cpus must be <=") as caught:
        run(spec, storage, recorder)
    assert torch.cuda.is_available() or "sweep.resources.gpus" in str(caught.value)
    assert recorder.events == []


def test_a_killed_worker_is_replaced_and_its_trial_stored_once(
    storage: Storage, recorder: Recorder, make_spec: MakeSpec
) -> None:
    killed: dict[int, str] = {}

    def kill(kind: str, what: Any) -> None:
        if kind == "progress" and not killed and what[1].step > 100:
            for pid in workers():
                os.kill(pid, signal.SIGKILL)
                killed[pid] = what[0]

    recorder.on_event = kill
    spec = make_spec(train={"steps": 400, "batch_size": 64}, sweep={"samples": 2})
    outcome = run(spec, storage, recorder)
    assert killed
    assert [row["status"] for row in outcome.rows] == ["complete"] * 2
    assert recorder.of("trial").count(next(iter(killed.values()))) == 2
    assert len(recorder.of("finished")) == 2


@pytest.mark.exhaustive
def test_a_worker_that_is_killed_too_often_fails_its_trial(
    storage: Storage, recorder: Recorder, make_spec: MakeSpec
) -> None:
    def kill(kind: str, what: Any) -> None:
        if kind == "progress" and what[0] == recorder.of("trial")[0] and what[1].step > 100:
            for pid in workers():
                os.kill(pid, signal.SIGKILL)

    recorder.on_event = kill
    spec = make_spec(
        train={"steps": 400, "batch_size": 64},
        sweep={"samples": 2, "max_failures": 0, "concurrency": 1},
    )
    outcome = run(spec, storage, recorder)
    rows = {row["trial_id"]: row for row in outcome.rows}
    lost = rows.pop(recorder.of("trial")[0])
    assert lost["status"] == "failed"
    assert "\n" not in lost["error"]
    assert dict(lost["metrics"])["failures"] == 1
    assert [row["status"] for row in rows.values()] == ["complete"]


@pytest.mark.exhaustive
def test_a_storage_that_breaks_ends_the_sweep(
    storage: Storage, recorder: Recorder, make_spec: MakeSpec
) -> None:
    root = storage.local
    assert root is not None

    def break_storage(kind: str, what: Any) -> None:
        if kind == "finished":
            for table in ("masks", "trials"):
                (root / table).rename(root / f"{table}-before")
                (root / table).write_text("no folder")
            recorder.on_event = None

    recorder.on_event = break_storage
    began = time.monotonic()
    with pytest.raises(StorageError, match="cannot"):
        run(make_spec(sweep={"samples": 50, "storage_seconds": 2}), storage, recorder)
    assert len(recorder.of("trial")) < 10
    assert time.monotonic() - began < 90
    for table in ("masks", "trials"):
        (root / table).unlink()
        shutil.move(root / f"{table}-before", root / table)
    assert ray_processes() == {}


@pytest.fixture
def cluster() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    running = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "include_dashboard": False, "object_store_memory": 10**8},
    )
    try:
        yield running.address
        assert all(node.remaining_processes_alive() for node in running.list_all_nodes())
    finally:
        running.shutdown()


def test_a_running_cluster_is_used_and_left_running(
    cluster: str, storage: Storage, recorder: Recorder, make_spec: MakeSpec, temporary: Path
) -> None:
    outcome = run(make_spec(sweep={"samples": 3}), storage, recorder, address=cluster)
    assert [row["status"] for row in outcome.rows] == ["complete"] * 3
    assert recorder.of("started") == [("mini", 3, 0, 2)]
    assert list(temporary.glob("ticketsweep-*")) == []


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:10001", "nonsense"])
def test_an_address_without_a_cluster_is_refused(
    address: str, storage: Storage, recorder: Recorder, make_spec: MakeSpec
) -> None:
    began = time.monotonic()
    with pytest.raises(SweepError, match="--address must be"):
        run(make_spec(), storage, recorder, address=address)
    assert time.monotonic() - began < 30


def test_the_driver_needs_no_wandb_when_tracking_is_off(swept: Swept) -> None:
    code = (
        "import sys, ticketsweep.sweep.runner, ticketsweep.sweep.tracking as t\n"
        "from ticketsweep.store.paths import Storage\n"
        f"storage = Storage.open({str(swept.storage.local)!r}, create=False)\n"
        "at = dict(mode='off', storage=storage, objectives={}, stored=[], warn=print)\n"
        "with t.tracker('s', ['wandb'], **at): pass\n"
        "print(*(m for m in ('ray', 'torch', 'optuna', 'wandb') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
