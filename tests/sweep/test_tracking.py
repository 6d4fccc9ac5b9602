from __future__ import annotations

import dataclasses
import json
import os
import runpy
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboardX.event_file_writer import EventFileWriter
from tensorboardX.proto.event_pb2 import Event

from ticketsweep.config import parse_config
from ticketsweep.store.database import Database
from ticketsweep.store.deletion import delete_sweep, doomed_sweep
from ticketsweep.store.paths import Storage
from ticketsweep.sweep import tracking
from ticketsweep.sweep.tracking import (
    TRACKERS,
    Mode,
    are_behind,
    default_mode,
    files_of,
    how_to_upload,
    tracker,
)
from ticketsweep.sweep.tracking.json_lines import JsonLines
from ticketsweep.sweep.tracking.lanes import Lane
from ticketsweep.sweep.tracking.records import (
    Best,
    Ending,
    Figures,
    Standing,
    Trial,
    curve_figures,
)
from ticketsweep.sweep.tracking.stored import best_of, ending_of, mask_uri
from ticketsweep.sweep.tracking.tensorboard import last_step as last_step_on_board
from ticketsweep.sweep.tracking.wandb_files import discard_if_empty, last_step, records, run_files

TRACKED = runpy.run_path(str(Path(__file__).with_name("tracked.py")))
STEPS, LAYERS = TRACKED["STEPS"], TRACKED["LAYERS"]
trial_id, config_of, progress = TRACKED["trial_id"], TRACKED["config_of"], TRACKED["progress"]
OBJECTIVES = {"val_accuracy": "max", "sparsity": "max"}
KEY = "0123456789abcdef0123456789abcdef01234567"


class Run:
    """What W&B has of one run on disk."""

    def __init__(self, file: Path) -> None:
        self.history: list[dict[str, Any]] = []
        self.config: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.artifacts: list[Any] = []
        self.exit_code: int | None = None
        for record in records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                self.config = values(record.run.config.update)
            elif kind == "history":
                self.history.append(values(record.history.item))
            elif kind == "summary":
                self.summary |= values(record.summary.update)
            elif kind == "artifact":
                self.artifacts.append(record.artifact)
            elif kind == "exit":
                self.exit_code = record.exit.exit_code


def values(items: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in items:
        *path, name = [item.key] if item.key else item.nested_key
        inner = found
        for part in path:
            inner = inner.setdefault(part, {})
        inner[name] = json.loads(item.value_json)
    return found


def told(index: int) -> list[dict[str, float]]:
    return [curve_figures(progress(index, step).replicates) for step in STEPS]


class Tracked:
    """Three trials that end and one that does not, tracked with everything there is."""

    def __init__(self, root: Path) -> None:
        self.storage = Storage.open(str(root), create=True)
        self.warnings: list[str] = []
        with self.tracker("offline") as track:
            for index in range(3):
                TRACKED["track"](track, self.storage, "s", index)
            track.begin(trial_id(3), config_of(3))
            track.log(trial_id(3), progress(3, 10))
            track.begin(trial_id(3), config_of(3))  # its worker was replaced
            track.log(trial_id(3), progress(3, 10))
            track.log(trial_id(3), progress(3, 20))
        self.folder = self.storage.tracking_folder()
        self.files = run_files(self.folder)
        self.runs = {name: Run(file) for name, (file,) in self.files.items()}

    def tracker(self, mode: Mode) -> Any:
        stored = Database(self.storage).trials("s").to_pylist()
        return tracker(
            *("s", TRACKERS),
            mode=mode,
            storage=self.storage,
            objectives=OBJECTIVES,
            stored=stored,
            warn=self.warnings.append,
        )

    def of(self, index: int) -> Run:
        return self.runs[f"s-{trial_id(index)}"]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "s.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Tracked:
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        return Tracked(tmp_path_factory.mktemp("tracked") / "storage")


def test_there_is_one_run_a_trial_and_one_of_the_sweep(tracked: Tracked) -> None:
    assert tracked.warnings == []
    assert set(tracked.runs) == {"s", *(f"s-{trial_id(index)}" for index in range(4))}
    assert {run.run.run_group for run in tracked.runs.values()} == {"s"}
    assert {run.run.project for run in tracked.runs.values()} == {"ticketsweep"}
    assert tracked.of(0).run.display_name == trial_id(0)
    assert list(tracked.of(0).run.tags) == ["fc-16", "digits", "gaussian"]
    assert tracked.runs["s"].run.job_type == "sweep"


def test_settings_have_the_names_of_the_command_line(tracked: Tracked) -> None:
    assert tracked.of(2).config["seed"] == 2
    assert tracked.of(2).config["gate.l0_strength"] == config_of(2).gate.l0_strength
    assert tracked.of(2).config["replicates.init"] == config_of(2).replicates.init


@pytest.mark.parametrize("index", [0, 1, 2])
def test_every_step_is_there_with_each_replicate_mean_and_spread(
    tracked: Tracked, index: int
) -> None:
    rows = [row for row in tracked.of(index).history if "loss/mean" in row]
    assert [row["_step"] for row in rows] == list(STEPS)
    assert [{name: row[name] for name in told(index)[0]} for row in rows] == told(index)
    values = [row[f"val_accuracy/{replicate}"] for row in rows[:1] for replicate in range(2)]
    assert rows[0]["val_accuracy/mean"] == pytest.approx(np.mean(values))
    assert rows[0]["val_accuracy/sd"] == pytest.approx(np.std(values, ddof=1))


def test_the_summary_has_every_metric_of_the_trial(tracked: Tracked) -> None:
    row = Database(tracked.storage).trial("s", trial_id(0))
    assert row is not None
    found = tracked.of(0).summary
    assert found["val_accuracy"] == row["val_accuracy"]
    assert found["sparsity"] == row["sparsity"]
    assert found["undecided"] == 0.25
    assert found["status"] == "complete"


def test_how_a_trial_ended_is_seen(tracked: Tracked) -> None:
    runs = [tracked.of(index) for index in range(4)]
    states = ["complete", "stopped", "failed", "interrupted"]
    assert [run.summary["status"] for run in runs] == states
    assert [run.exit_code for run in runs] == [0, 0, 1, 255]
    assert runs[2].summary["error"] == "it diverged"
    assert [row["_step"] for row in runs[3].history] == [10, 20]


def test_media_show_what_each_layer_keeps(tracked: Tracked) -> None:
    database = Database(tracked.storage)
    masks = [database.ticket(trial_id(0), replicate) for replicate in range(2)]
    media = tracked.of(0).history[-1]
    shares = [mask.mean() for ticket in masks for mask in ticket.values()]
    counts, edges = np.histogram(shares, bins=20, range=(0, 1))
    assert media["keep_share/histogram"]["values"] == counts.tolist()
    assert media["keep_share/histogram"]["bins"] == edges.tolist()
    (file,) = tracked.files[f"s-{trial_id(0)}"]
    (table,) = file.parent.glob("files/media/table/keep_share/layers_table*.json")
    means = {name: np.mean([ticket[name].mean() for ticket in masks]) for name, _ in LAYERS}
    assert dict(json.loads(table.read_text())["data"]) == pytest.approx(means)


def test_masks_are_an_artifact_by_reference(tracked: Tracked) -> None:
    (artifact,) = (each for each in tracked.of(0).artifacts if each.type == "masks")
    (entry,) = artifact.manifest.contents
    uri = (tracked.storage.local / f"masks/sweep=s/{trial_id(0)}.parquet").as_uri()  # type: ignore[operator]
    assert (artifact.name, entry.ref, entry.local_path) == (f"masks-{trial_id(0)}", uri, "")
    assert not list(tracked.folder.rglob("*.parquet"))


def test_the_sweeps_run_tells_how_far_it_came_and_what_was_best(tracked: Tracked) -> None:
    run, rows = tracked.runs["s"], Database(tracked.storage).trials("s").to_pylist()
    complete = next(row for row in rows if row["status"] == "complete")
    states = ("complete", "stopped", "failed")
    counts = [[row.get(f"trials/{state}", 0) for state in states] for row in run.history]
    assert counts == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert run.summary["best/val_accuracy"] == complete["val_accuracy"]
    assert run.summary["best/trials"]["_type"] == "table-file"
    assert run.exit_code == 0


def test_json_lines_have_it_all(tracked: Tracked) -> None:
    for index in range(3):
        of_trial = [event for event in tracked.events if event.get("trial") == trial_id(index)]
        assert [event["event"] for event in of_trial] == ["begun", *["step"] * 9, "ended"]
        assert [event["figures"] for event in of_trial[1:-1]] == told(index)
        assert of_trial[-1]["status"] == TRACKED["STATUSES"][index]
    assert tracked.events[-1]["rows"][0][:2] == [1, trial_id(0)]


def board(folder: Path) -> list[Event]:
    found = []
    for file in folder.glob("events.*"):
        data = file.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            found.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def test_tensorboard_has_the_curves_and_the_result(tracked: Tracked) -> None:
    folder = tracked.folder / "tensorboard" / "s" / trial_id(1)
    curves: dict[str, list[float]] = {}
    for event in board(folder):
        for value in event.summary.value:
            curves.setdefault(value.tag, []).append(value.simple_value)
    for name in told(1)[0]:
        assert curves[name] == pytest.approx([row[name] for row in told(1)])
    assert curves["final/undecided"] == [0.25]
    assert {f"keep_share/{name}" for name, _ in LAYERS} <= set(curves)
    assert last_step_on_board(folder) == STEPS[-1]


def test_the_next_process_goes_on_in_every_tracker(tmp_path: Path) -> None:
    """One trial was cut off; of another nobody heard that it was stored."""
    first = Tracked(tmp_path / "storage")
    TRACKED["store"](first.storage, "s", 3)
    ledger = first.folder / "s.jsonl.ledger"
    assert f"ended {trial_id(3)}" not in ledger.read_text().splitlines()
    stored = Database(first.storage).trials("s").to_pylist()
    assert are_behind(first.storage, "s", ["jsonl"], mode="off", stored=stored)
    with first.tracker("offline"):
        pass
    assert first.warnings == []
    assert not are_behind(first.storage, "s", TRACKERS, mode="offline", stored=stored)
    files = run_files(first.folder)[f"s-{trial_id(3)}"]
    rows = [row for file in files for row in Run(file).history if "loss/mean" in row]
    assert [row["_step"] for row in rows] == list(STEPS)
    assert Run(files[-1]).exit_code == 0
    steps = [e["step"] for e in first.events if e["event"] == "step" and e["trial"] == trial_id(3)]
    assert steps == list(STEPS)
    assert last_step_on_board(first.folder / "tensorboard" / "s" / trial_id(3)) == STEPS[-1]
    assert len(run_files(first.folder)[f"s-{trial_id(0)}"]) == 1
    assert how_to_upload(first.storage, "s") == f"wandb sync {first.folder / 'wandb'}"


def test_what_ran_before_a_tracker_was_asked_for_is_told_and_copies_too(tmp_path: Path) -> None:
    storage = Storage.open(str(tmp_path / "storage"), create=True)
    for index in range(3):
        TRACKED["store"](storage, "s", index)
    stored = Database(storage).trials("s").to_pylist()
    assert are_behind(storage, "s", ["jsonl"], mode="off", stored=stored)
    for _ in range(2):  # the second time, nothing is left to be told
        with tracker(
            "s", ["jsonl"], mode="off", storage=storage, objectives=OBJECTIVES,
            stored=stored[:2], warn=pytest.fail,
        ) as track:  # fmt: skip
            pass
    with tracker(
        "s", ["jsonl"], mode="off", storage=storage, objectives=OBJECTIVES,
        stored=stored[:2], warn=pytest.fail,
    ) as track:  # fmt: skip
        track.copied(stored[2])
    assert not are_behind(storage, "s", ["jsonl"], mode="off", stored=stored)
    path = storage.tracking_folder() / "s.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    for index in range(3):
        own = [event for event in events if event.get("trial") == trial_id(index)]
        assert [event["event"] for event in own if event["event"] != "step"] == ["begun", "ended"]
        steps = [event["step"] for event in own if event["event"] == "step"]
        assert steps == ([] if index == 2 else list(STEPS))  # of the failed one none is stored


def test_beside_a_remote_storage_a_ledger_that_knows_nothing_says_nothing(tmp_path: Path) -> None:
    """It lies where `run` was typed: from elsewhere, all may have been told."""
    local = Storage.open(str(tmp_path / "storage"), create=True)
    remote = dataclasses.replace(local, local=None)
    rows = [{"trial_id": name, "config": "{}"} for name in ("ended", "begun", "unknown")]
    begun, ended = {"begun"}, {"ended"}
    assert tracking._untold(begun, ended, rows, local) == {"begun", "unknown"}
    assert tracking._untold(begun, ended, rows, remote) == {"begun"}


def test_off_writes_nothing(tmp_path: Path) -> None:
    storage = Storage.open(str(tmp_path / "storage"), create=True)
    before = set(tmp_path.rglob("*"))
    with tracker(
        *("s", ["wandb"]), mode="off", storage=storage, objectives={}, stored=[], warn=pytest.fail
    ) as track:
        track.begin(trial_id(0), config_of(0))
        track.log(trial_id(0), progress(0, 10))
        track.finish(trial_id(0), {"trial_id": trial_id(0), "status": "failed"})
    assert set(tmp_path.rglob("*")) == before


def test_replicates_that_have_diverged_are_left_out_of_a_step() -> None:
    each = {0: {"loss": 1.0}, 1: {"loss": float("nan")}, 3: {"loss": 3.0}}
    assert curve_figures(each) == {
        "loss/mean": 2.0, "loss/sd": pytest.approx(2**0.5), "loss/0": 1.0, "loss/3": 3.0,
    }  # fmt: skip
    assert curve_figures({2: {"loss": 1.0}}) == {"loss/mean": 1.0, "loss/2": 1.0}
    assert curve_figures({}) == {}


def test_only_the_last_masks_count_and_a_remote_file_has_a_uri(tmp_path: Path) -> None:
    storage = Storage.open(str(tmp_path), create=True)
    row = TRACKED["store"](storage, "s", 0)
    ending = ending_of(Database(storage), "s", row)
    assert [(layer.name, layer.size) for layer in ending.layers] == [("fc1", 620), ("fc2", 200)]
    away = Storage("s3://bucket/some?region=eu", storage.filesystem, "bucket/some", None)
    assert mask_uri(away, "s", "t") == "s3://bucket/some/masks/sweep=s/t.parquet"


def test_the_best_are_told_with_the_settings_in_which_they_differ() -> None:
    def row(index: int, accuracy: float) -> dict[str, Any]:
        config = parse_config({"seed": index, "weight_scale": 1.5}, source="test")
        return {
            "trial_id": trial_id(index), "status": "complete", "val_accuracy": accuracy,
            "config": config.model_dump_json(),
        }  # fmt: skip

    best = best_of([row(0, 0.5), row(1, 0.75)], {"val_accuracy": "max"})
    assert best.columns == ("rank", "trial", "val_accuracy", "seed")
    assert best.rows == ((1, trial_id(1), 0.75, 1), (2, trial_id(0), 0.5, 0))


class Notebook:
    """A tracker that remembers, and fails or waits where it is asked to."""

    def __init__(self, known: int = -1, when: Callable[[str], None] = lambda name: None) -> None:
        self.known, self.when, self.hurried = known, when, threading.Event()
        self.calls: list[tuple[Any, ...]] = []

    def _note(self, *call: Any) -> None:
        self.when(call[0])
        self.calls.append(call)

    def begin(self, trial: Trial) -> int:
        self._note("begin", trial.trial_id)
        return self.known

    def log(self, trial_id: str, step: int, figures: Figures) -> None:
        self._note("log", step)

    def end(self, trial_id: str, ending: Ending) -> None:
        self._note("end", ending.status)

    def standing(self, standing: Standing) -> None:
        self._note("standing", standing.ended)

    def close(self, standing: Standing, best: Best) -> None:
        self._note("close")

    def hurry(self) -> None:
        self.hurried.set()


class Laned:
    def __init__(self, folder: Path, notebook: Notebook) -> None:
        self.warnings: list[str] = []
        ledger = folder / "ledger"
        self.lane = Lane("notes", lambda: notebook, ledger=ledger, warn=self.warnings.append)

    def tell(self, *steps: int, curve: tuple[int, ...] = ()) -> None:
        self.lane.begin(Trial("t", {}, ()))
        for step in steps:
            self.lane.log("t", step, {})
        ending = Ending("complete", "", {}, (), "")
        self.lane.end("t", lambda: {step: {} for step in curve}, lambda: ending)

    def close(self) -> None:
        self.lane.close(lambda: (Standing(1, {}), Best((), ())))


def test_a_step_is_told_once_and_one_that_was_missed_comes_with_the_end(tmp_path: Path) -> None:
    notebook = Notebook(known=20)
    laned = Laned(tmp_path, notebook)
    laned.tell(10, 20, 30, 30, curve=(10, 20, 30, 40))
    laned.close()
    steps = [("log", 30), ("log", 40)]
    assert notebook.calls == [("begin", "t"), *steps, ("end", "complete"), ("close",)]
    assert laned.warnings == []


def test_what_a_tracker_could_not_take_is_told_again_in_order(tmp_path: Path) -> None:
    failures = iter([OSError("the disk is full"), OSError("still full")])

    def when(name: str) -> None:
        if name == "log" and (error := next(failures, None)):
            raise error

    notebook = Notebook(when=when)
    laned = Laned(tmp_path, notebook)
    laned.tell(10, 20, 30, curve=(10, 20, 30))  # fails at a step, and again at the end
    laned.close()
    assert len(laned.warnings) == 1
    assert "the disk is full" in laned.warnings[0]
    assert ("end", "complete") not in notebook.calls
    again = Laned(tmp_path, notebook)
    assert again.lane.ended == set()
    again.tell(curve=(10, 20, 30))
    again.close()
    assert notebook.calls[-5:-1] == [("log", 10), ("log", 20), ("log", 30), ("end", "complete")]
    assert Laned(tmp_path, notebook).lane.ended == {"t"}


def test_a_tracker_that_hangs_holds_up_nobody_and_is_told_to_hurry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ticketsweep.sweep.tracking.lanes._PATIENCE", 0.2)
    going_on = threading.Event()
    notebook = Notebook(when=lambda name: going_on.wait() and None)
    laned = Laned(tmp_path, notebook)
    began = time.monotonic()
    laned.tell(10)
    laned.close()
    assert time.monotonic() - began < 2
    assert notebook.hurried.is_set()
    assert "did not end" in laned.warnings[0]
    going_on.set()


def test_a_line_that_a_full_disk_has_cut_is_removed(tmp_path: Path) -> None:
    lines = JsonLines("s", folder=tmp_path)
    lines.begin(Trial("t", {}, ()))
    lines.log("t", 10, {"loss": 1.0})
    with (tmp_path / "s.jsonl").open("a") as file:
        file.write('{"event": "step", "tri')
    again = JsonLines("s", folder=tmp_path)
    assert again.begin(Trial("t", {}, ())) == 10
    events = [json.loads(line)["event"] for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert events == ["begun", "step", "begun"]


def test_a_damaged_line_is_as_if_not_there(tmp_path: Path) -> None:
    lines = JsonLines("s", folder=tmp_path)
    lines.begin(Trial("t", {}, ()))
    lines.log("t", 7, {})
    with (tmp_path / "s.jsonl").open("ab") as file:
        file.write(b'\xff\x00 half\n[]\n{"event": 3}\n')
    assert JsonLines("s", folder=tmp_path).begin(Trial("t", {}, ())) == 7


@pytest.mark.parametrize(("in_the_way", "times"), [("tracking", 1), ("tracking/s.jsonl.ledger", 0)])
def test_a_folder_that_cannot_be_used_is_told_and_ends_nothing(
    in_the_way: str, times: int, tmp_path: Path
) -> None:
    storage = Storage.open(str(tmp_path / "storage"), create=True)
    path = tmp_path / "storage" / in_the_way
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\xff\xfe")
    told: list[str] = []
    with tracker(
        "s", ["jsonl"], mode="off", storage=storage, objectives=OBJECTIVES, stored=[],
        warn=told.append,
    ) as track:  # fmt: skip
        track.begin(trial_id(0), config_of(0))
    assert [warning.partition(": ")[0] for warning in told] == ["jsonl"] * times


def test_event_files_are_read_up_to_where_they_are_torn(tmp_path: Path) -> None:
    writer = EventFileWriter(str(tmp_path))
    for step in (1, 2):
        event = Event(step=step)
        event.summary.value.add(tag="loss/mean", simple_value=1.0)
        writer.add_event(event)
    writer.close()
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    assert last_step_on_board(tmp_path) == 1


def test_files_of_a_run_are_read_up_to_where_they_are_torn(
    tracked: Tracked, tmp_path: Path
) -> None:
    (file,) = tracked.files[f"s-{trial_id(0)}"]
    content, torn = file.read_bytes(), tmp_path / "offline-run-1-x" / "run-x.wandb"
    torn.parent.mkdir()
    found = []
    for size in range(0, len(content), 997):
        torn.write_bytes(content[:size])
        found.append(last_step(torn))
    assert found == sorted(found)
    assert set(found) >= {-1, *STEPS}
    assert not discard_if_empty(torn)
    torn.write_bytes(content[:7])
    assert discard_if_empty(torn)
    assert not torn.parent.exists()


@pytest.mark.parametrize(
    ("variables", "netrc", "mode"),
    [
        ({}, None, "offline"),
        ({"WANDB_API_KEY": KEY}, None, "online"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, None, "offline"),
        ({"WANDB_MODE": "disabled"}, None, "off"),
        ({"WANDB_MODE": "online"}, None, "online"),
        ({}, f"machine api.wandb.ai login user password {KEY}", "online"),
        ({}, f"machine elsewhere login user password {KEY}", "offline"),
        ({"WANDB_BASE_URL": "https://elsewhere:8080"},
         f"machine elsewhere login user password {KEY}", "online"),
        ({}, "machine", "offline"),
    ],
)  # fmt: skip
def test_the_mode_follows_from_what_is_configured(
    variables: dict[str, str],
    netrc: str | None,
    mode: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    if netrc is not None:
        (tmp_path / "netrc").write_text(netrc)
        (tmp_path / "netrc").chmod(0o600)
    assert default_mode() == mode


def test_with_a_sweep_goes_what_was_tracked_of_it_and_nothing_of_others(tracked, tmp_path):
    root = tmp_path / "storage"
    shutil.copytree(tracked.storage.local, root, symlinks=True)
    storage = Storage.open(str(root), create=False)
    folder = storage.tracking_folder()
    for sweep in ("s-2", "t"):
        with tracker(
            sweep, ["jsonl", "tensorboard"], mode="off", storage=storage, objectives=OBJECTIVES,
            stored=[], warn=pytest.fail,
        ) as track:  # fmt: skip
            TRACKED["track"](track, storage, sweep, 0)
    run = next(folder.glob("wandb/*run-*-s"))
    shutil.copytree(run, run.with_name(f"{run.name}-2"))  # of a sweep whose name begins alike
    (alike,) = folder.glob("wandb/*run-*-s-2/run-s.wandb")
    alike.rename(alike.with_name("run-s-2.wandb"))

    def files() -> set[Path]:  # W&B's own links point to the latest run
        return {path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}

    (folder / "mine").symlink_to(tmp_path / "not mounted")  # a user's own
    before = files()
    paths = files_of(storage, "s")
    own = {path for path in paths if path.is_file()}
    assert {path.relative_to(folder).parts[0] for path in own} == {
        *("s.jsonl", "s.jsonl.ledger", "s.tensorboard.ledger", "s.wandb.ledger"),
        *("tensorboard", "wandb"),
    }
    untracked = doomed_sweep(storage, "s")
    doomed = delete_sweep(storage, "s", beside=paths, report=lambda *_: None)
    assert doomed.files == untracked.files + len(own)
    assert files() == before - own
    assert not files_of(storage, "s")
    assert set(run_files(folder)) == {"s-2"}
    assert not (folder / "tensorboard" / "s").exists()
    of_others = {path for name in ("s-2", "t") for path in files_of(storage, name)}
    assert {path for path in of_others if path.is_file()} <= files()
    empty = [path for path in folder.rglob("*") if path.is_dir() and not any(path.iterdir())]
    assert [path for path in empty if path not in of_others] == []
    assert [path for path in folder.rglob("*") if not path.exists()] == [folder / "mine"]


def test_what_goes_on_is_told_before_what_ran_before_and_nobody_is_hurried_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ticketsweep.sweep.tracking.lanes._TOO_LATE", 1.0)
    held = threading.Event()

    def when(name: str) -> None:
        if name == "standing":
            held.wait(20)

    notebook = Notebook(when=when)
    laned = Laned(tmp_path, notebook)
    laned.lane.standing(Standing(0, {}))
    ending = Ending("stopped", "", {}, (), "")
    laned.lane.stored(Trial("before", {}, ()), lambda: {10: {}}, lambda: ending)
    time.sleep(1.5)
    laned.tell(20)
    held.set()
    laned.close()
    told = [call for call in notebook.calls if call[0] in ("log", "end")]
    assert told == [("log", 20), ("end", "complete"), ("log", 10), ("end", "stopped")]
    assert not notebook.hurried.is_set()
    assert laned.warnings == []
