from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ticketsweep.store.database import open_database

SPACE = """
model: fc-16
dataset: digits
rewind_step: {choice: [0, 20]}
gate: {l0_strength: {loguniform: [0.3, 6]}}
train: {steps: 200, batch_size: 32}
replicates: {init: 2, data: 1, gate: 1}
sweep: {name: tried, samples: 6, seed: 3}
"""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "tried.yaml"
    path.write_text(SPACE)
    return path


def test_a_dry_run_writes_nothing_and_says_what_a_run_would_be(command, space: Path) -> None:
    done = command("run", space, "--dry-run", "--format", "json")
    assert done.code == 0, done.err
    assert sorted(path.name for path in space.parent.iterdir()) == ["tried.yaml"]
    found = json.loads(done.out)
    assert (found["samples"], found["lacking"], found["states"]) == (6, 6, {})
    assert found["possible"] is None
    assert found["replicates"] == [2, 2]
    assert len({each["trial_id"] for each in found["drawn"]}) == 10
    assert all(each["seconds"] > 0 for each in found["drawn"])
    assert found["memory"]["packs"] == [2]
    again = json.loads(command("run", space, "--dry-run", "--format", "json").out)
    ids = [[each["trial_id"] for each in one["drawn"]] for one in (found, again)]
    assert ids[0] == ids[1]


def test_a_trial_takes_what_was_reckoned_and_is_then_known(command, space: Path) -> None:
    """Within a factor of two where the machine is left alone, which here it is not."""
    changes = ["--set", "model=fc-300-100", "--set", "retrain={steps: 200}"]
    found = json.loads(command("run", space, *changes, "--dry-run", "--format", "json").out)
    (first, *_) = found["drawn"]
    one = {
        "rewind_step": first["config"]["rewind_step"],
        "gate.l0_strength": first["config"]["gate"]["l0_strength"],
    }
    chosen = [word for key, value in one.items() for word in ("--set", f"{key}={value!r}")]
    done = command("trial", space, *changes, *chosen, "--set", "device=cpu", "--format", "json")
    assert done.code == 0, done.err
    (row,) = open_database("ticketsweep-storage").trials().to_pylist()
    assert row["trial_id"] == first["trial_id"]
    assert row["wall_seconds"] / 12 <= first["seconds"] <= 12 * row["wall_seconds"]
    before = sorted(space.parent.rglob("*"))
    known = json.loads(command("run", space, *changes, "--dry-run", "--format", "json").out)
    assert known["drawn"][0]["stored_in"] == "single"
    assert known["drawn"][0]["seconds"] == 0
    assert known["lacking"] == 6
    assert sorted(space.parent.rglob("*")) == before


def test_what_a_run_would_refuse_is_refused(command, space: Path) -> None:
    for change, word in (
        ("train.batch_size=2000", "train.batch_size"),
        ("sweep.resources.cpus=4096", "sweep.resources.cpus"),
        ("dataset=parquet:nowhere", "nowhere"),
    ):
        done = command("run", space, "--dry-run", "--set", change)
        assert done.code == 2, done.err
        assert word in done.err
        assert "Traceback" not in done.err


def test_a_finite_space_is_counted_and_shown_whole_in_80_columns(
    command, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = command("run", space, "--dry-run", "--set", "gate={l0_strength: {choice: [1, 2]}}")
    assert done.code == 0, done.err
    assert "4 distinct configurations" in done.out
    assert "6 asked for; 0 complete; 4 to be run" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    assert "nothing was written" in done.out
    assert len(re.findall(r"^[0-9a-f]{8} ", done.out, flags=re.M)) == 4


def test_a_storage_that_no_run_could_use_is_refused(command, space: Path) -> None:
    (space.parent / "taken").write_text("")
    for storage in ("taken", "taken/below"):
        done = command("run", space, "--dry-run", "--storage", storage)
        assert (done.code, done.out) == (2, ""), storage
        assert "name another" in done.err
