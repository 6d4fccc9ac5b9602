from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ticketsweep.config import TrialConfig, parse_config
from ticketsweep.sweep.tracking import default_mode, tracker

BLOCK = 32 * 1024
KEY = "0123456789abcdef0123456789abcdef01234567"


def config(**changes: Any) -> TrialConfig:
    return parse_config({"model": "fc-16", **changes}, source="test")


def blobs(file: Path) -> Iterator[bytes]:
    """The records of a `.wandb` file: LevelDB's log format after a header of seven bytes."""
    data = file.read_bytes()
    assert struct.unpack("<4sHB", data[:7])[:2] == (b":W&B", 0xBEE1)
    at, parts = 7, b""
    while at < len(data):
        if BLOCK - at % BLOCK < 7:
            at += BLOCK - at % BLOCK  # too little for a header: padding
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


class Run:
    """What one offline run has on disk."""

    def __init__(self, file: Path) -> None:
        from wandb.proto.wandb_internal_pb2 import Record

        self.history: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.exit_code: int | None = None
        self.config: dict[str, Any] = {}
        for blob in blobs(file):
            record = Record.FromString(blob)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                self.run = record.run
                for item in record.run.config.update:
                    self.config[item.key or item.nested_key[0]] = json.loads(item.value_json)
            elif kind == "history":
                row = {
                    i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.history.item
                }
                self.history.append(row)
            elif kind == "summary":
                for item in record.summary.update:
                    self.summary[item.key or item.nested_key[0]] = json.loads(item.value_json)
            elif kind == "exit":
                self.exit_code = record.exit.exit_code


def runs(folder: Path) -> dict[str, Run]:
    files = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    return {run.run.display_name: run for run in map(Run, files)}


ROW = {
    "status": "complete",
    "error": None,
    "val_accuracy": 0.75,
    "sparsity": 0.9,
    "stability": None,
    "host": "here",
    "metrics": [("loss", 0.5)],
}
CURVE = [{"loss": 2.0 - step / 100, "val_accuracy": step / 100} for step in range(0, 90, 10)]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("tracked")
    warnings: list[str] = []
    long = "fc-" + "-".join(["64"] * 40)
    with tracker("mnist", mode="offline", folder=folder, warn=warnings.append) as track:
        for name, of in (("a", config()), ("b", config(seed=3)), ("c", config(model=long))):
            track.begin(name, of)
        for step, row in enumerate(CURVE):  # rows of two runs in turn
            track.log("a", 10 * step, row)
            track.log("b", 10 * step, row)
        track.begin("a", config())  # its worker was replaced
        track.finish("a", ROW)
        track.finish("b", {**ROW, "status": "failed", "error": "it diverged", "metrics": []})
        track.finish("never-begun", ROW)
    assert warnings == []
    return runs(folder)


def test_there_is_one_run_a_trial_grouped_by_sweep(tracked: dict[str, Run]) -> None:
    assert set(tracked) == {"a", "b", "c"}
    assert {run.run.run_group for run in tracked.values()} == {"mnist"}
    assert {run.run.project for run in tracked.values()} == {"ticketsweep"}
    assert tracked["a"].run.run_id == "mnist-a"
    assert list(tracked["a"].run.tags) == ["fc-16", "gaussian"]


def test_settings_have_the_names_of_the_command_line(tracked: dict[str, Run]) -> None:
    found = tracked["b"].config
    assert found["seed"] == 3
    assert found["gate.l0_strength"] == config().gate.l0_strength
    assert found["replicates.init"] == config().replicates.init


@pytest.mark.parametrize("name", ["a", "b"])
def test_every_row_of_the_curve_is_there(tracked: dict[str, Run], name: str) -> None:
    rows = tracked[name].history
    assert [row["_step"] for row in rows] == list(range(0, 90, 10))
    assert [{key: row[key] for key in CURVE[0]} for row in rows] == CURVE


def test_the_summary_has_the_trials_figures(tracked: dict[str, Run]) -> None:
    found = tracked["a"].summary
    assert found["val_accuracy"] == 0.75
    assert found["sparsity"] == 0.9
    assert found["loss"] == 0.5
    assert found["status"] == "complete"
    assert "host" not in found
    assert tracked["a"].exit_code == 0


def test_a_failed_trial_ends_with_its_error_and_exit_code_1(tracked: dict[str, Run]) -> None:
    assert tracked["b"].summary["status"] == "failed"
    assert tracked["b"].summary["error"] == "it diverged"
    assert tracked["b"].exit_code == 1


def test_a_run_that_is_still_open_ends_as_interrupted(tracked: dict[str, Run]) -> None:
    assert tracked["c"].summary["status"] == "interrupted"
    assert tracked["c"].exit_code == 1


def test_off_writes_nothing(tmp_path: Path) -> None:
    with tracker("s", mode="off", folder=tmp_path / "t", warn=pytest.fail) as track:
        track.begin("a", config())
        track.log("a", 1, {"loss": 1.0})
        track.finish("a", ROW)
    assert list(tmp_path.iterdir()) == []


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


SCRIPT = """
import sys, time
from pathlib import Path
from ticketsweep.config import TrialConfig
from ticketsweep.sweep import tracking
from ticketsweep.sweep.tracking import tracker
tracking._SECONDS_TO_START = 8.0  # of waiting in vain
row = {"status": "complete", "val_accuracy": 0.5, "metrics": []}
with tracker("s", mode="online", folder=Path(sys.argv[1]), warn=lambda t: print("WARN", t)) as t:
    began = time.monotonic()
    for name in "ab":
        t.begin(name, TrialConfig())
        for step in range(5):
            t.log(name, step, {"loss": float(step)})
        t.finish(name, row)
    print("told in", time.monotonic() - began)
"""


@pytest.mark.slow
@pytest.mark.parametrize("key", [KEY, None], ids=["with a key", "without a key"])
def test_without_a_server_everything_is_recorded_offline(key: str | None, tmp_path: Path) -> None:
    known = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    known |= {"WANDB_BASE_URL": "http://127.0.0.1:9", "NETRC": str(tmp_path / "none")}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env=known | ({"WANDB_API_KEY": key} if key else {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    assert time.monotonic() - began < 60
    warnings = [line for line in done.stdout.splitlines() if line.startswith("WARN")]
    assert len(warnings) == 1
    assert "offline" in warnings[0]
    assert KEY not in done.stdout + done.stderr
    assert done.stderr == ""
    told = next(line for line in done.stdout.splitlines() if line.startswith("told in"))
    assert float(told.split()[-1]) < 1
    found = runs(tmp_path)
    assert set(found) == {"a", "b"}
    for run in found.values():
        assert [row["loss"] for row in run.history] == [0, 1, 2, 3, 4]
        assert run.summary["val_accuracy"] == 0.5
        assert run.exit_code == 0
