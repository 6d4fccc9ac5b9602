"""`delete` asks before it deletes; `clean` deletes only what nobody needs."""

from __future__ import annotations

import json
import shutil
import sys

import pytest


@pytest.fixture
def storage(stored, tmp_path):
    shutil.copytree(stored, tmp_path / "st")
    return tmp_path / "st"


def trials_in(command) -> int:
    asked = ("query", "select count(*) as n from trials", "--format", "json", "--storage", "st")
    return json.loads(command(*asked).out)[0]["n"]


def test_nothing_is_deleted_unless_somebody_said_yes(command, storage):
    refused = command("delete", "single", "--storage", "st")
    assert (refused.code, refused.out) == (2, "")
    assert "single: 1 trial with 8 masks" in refused.err
    assert "--yes" in refused.err
    dry = command("delete", "single", "--storage", "st", "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    assert dry.out.startswith("would be deleted: sweep single: 1 trial with 8 masks (")
    assert trials_in(command) == 1


@pytest.mark.parametrize(("answer", "code", "left"), [("n", 1, 1), ("", 1, 1), ("y", 0, 0)])
def test_on_a_terminal_it_asks(command, storage, monkeypatch, answer, code, left):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda text, err: err and answer == "y")
    assert command("delete", "single", "--storage", "st").code == code
    assert trials_in(command) == left


def test_a_sweep_that_is_deleted_is_unknown_after_it(command, storage):
    done = command("delete", "single", "--storage", "st", "--yes", "--format", "json")
    record = json.loads(done.out)
    assert (record["trials"], record["masks"], record["deleted"]) == (1, 8, True)
    again = command("delete", "single", "--storage", "st", "--yes")
    assert (again.code, again.out) == (2, "")
    assert "no sweep 'single'" in again.err
    assert trials_in(command) == 0


def test_single_trials_are_named_by_the_first_digits_of_their_ids(command, storage):
    (path,) = (storage / "trials").rglob("*.parquet")
    none = command("delete", "single", "--failed", "--yes", "--storage", "st")
    assert (none.code, none.out[:17]) == (0, "nothing to delete")
    missing = command("delete", "single", "--trial", "zz", "--yes", "--storage", "st")
    assert (missing.code, missing.out) == (2, "")
    done = command("delete", "single", "--trial", path.stem[:6], "--yes", "--storage", "st")
    assert done.out.startswith("deleted: sweep single: 1 trial with 8 masks")
    assert trials_in(command) == 0


def test_cleaning_says_what_it_deletes_and_how_much(command, storage):
    assert command("clean", "--storage", "st").out == "nothing to clean up\n"
    (path,) = (storage / "trials").rglob("*.parquet")
    checkpoint = storage / "checkpoints" / f"{path.stem}.safetensors"
    checkpoint.parent.mkdir(exist_ok=True)
    checkpoint.write_bytes(bytes(1500))
    dry = command("clean", "--dry-run", "--storage", "st")
    assert "checkpoint of a complete trial" in dry.out
    assert checkpoint.exists()
    record = json.loads(command("clean", "single", "--storage", "st", "--format", "json").out)
    assert record["files"] == [
        {
            "path": f"checkpoints/{checkpoint.name}",
            "bytes": 1500,
            "kind": "checkpoint of a complete trial",
        }
    ]
    assert (record["bytes"], record["deleted"], checkpoint.exists()) == (1500, True, False)
    assert trials_in(command) == 1


def test_what_can_be_no_sweeps_name_is_looked_for_nowhere(command, storage):
    refused = command("delete", "/", "--storage", "st", "--yes")
    assert (refused.code, refused.out) == (2, "")
    assert "a sweep's name must be" in refused.err
