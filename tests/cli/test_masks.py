from __future__ import annotations

import json

import pytest

SMALL = ["--set", "model=fc-4", "--set", "train.steps=2", "--storage", "st"]


def test_a_real_trial_is_sound(command, stored):
    ended = command("masks", "verify", "--storage", stored)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("4 files of 1 trial checked")
    assert ended.out.endswith(": sound\n")
    record = json.loads(command("masks", "verify", "--storage", stored, "--format", "json").out)
    assert (record["sound"], record["files"], record["lost"]) == (True, 4, [])


@pytest.mark.parametrize("table", ["masks", "trials", "replicates", "curves"])
def test_what_was_damaged_is_named_moved_aside_and_trained_anew(command, tmp_path, table):
    trained = json.loads(command("trial", *SMALL, "--format", "json").out)
    assert not trained["reused"]
    (damaged,) = (tmp_path / "st" / table).rglob("*.parquet")
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    found = command("masks", "verify", "--storage", "st")
    assert found.code == 1
    assert f"{table}/sweep=single/{damaged.name}" in found.out
    assert f"Lost: trial {damaged.stem} of sweep single." in found.out
    moved = command("masks", "verify", "single", "--quarantine", "--storage", "st")
    assert moved.code == 1
    assert "4 files" in moved.out
    assert command("masks", "verify", "--storage", "st").code == 0
    again = json.loads(command("trial", *SMALL, "--format", "json").out)
    assert not again["reused"]
    record = json.loads(command("masks", "verify", "--storage", "st", "--format", "json").out)
    assert (record["sound"], record["trials"]) == (True, 1)


def test_a_storage_or_sweep_that_is_not_there_is_refused(command, stored):
    ended = command("masks", "verify", "--storage", "nowhere")
    assert (ended.code, ended.out) == (2, "")
    ended = command("masks", "verify", "sinlge", "--storage", stored)
    assert (ended.code, ended.out) == (2, "")
    assert "no sweep 'sinlge'" in ended.err


def test_compaction_says_what_it_did_and_changes_no_answer(command):
    command("trial", *SMALL)
    asked = ("query", "select * from masks order by all", "--format", "csv", "--storage", "st")
    before = command(*asked).out
    done = command("masks", "compact", "--storage", "st")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("single: 1 trial merged: 4 files of ")
    assert (
        command("masks", "compact", "--storage", "st").out == "single: nothing to merge (4 files)\n"
    )
    assert command(*asked).out == before
    again = json.loads(command("trial", *SMALL, "--format", "json").out)
    assert again["reused"]
    record = json.loads(
        command("masks", "compact", "single", "--storage", "st", "--format", "json").out
    )
    assert record["sweeps"][0]["trials"] == 0
    assert command("masks", "verify", "--storage", "st").code == 0


def test_a_sweep_that_cannot_be_compacted_is_one_line(command, stored):
    ended = command("masks", "compact", "sinlge", "--storage", stored)
    assert (ended.code, ended.out) == (2, "")
    assert "no trials of a sweep 'sinlge' (it has" in ended.err


def test_a_damaged_part_is_named_and_what_is_sound_of_it_stays(command, tmp_path):
    for seed in "01":
        command("trial", *SMALL, "--set", f"seed={seed}")
    command("masks", "compact", "--storage", "st")
    (part,) = (tmp_path / "st/masks").rglob("*.parquet")
    content = bytearray(part.read_bytes())
    content[len(content) // 4] ^= 1
    part.write_bytes(content)
    found = command("masks", "verify", "--storage", "st")
    assert found.code == 1
    assert f"masks/sweep=single/compacted/{part.name}" in "".join(found.out.split())
    assert "other trials of it are whole" in found.out
    assert command("masks", "verify", "--quarantine", "--storage", "st").code == 1
    for seed in "01":
        command("trial", *SMALL, "--set", f"seed={seed}")
    record = json.loads(command("masks", "verify", "--storage", "st", "--format", "json").out)
    assert (record["sound"], record["trials"]) == (True, 2)
