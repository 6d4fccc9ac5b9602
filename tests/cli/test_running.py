from __future__ import annotations

import json
import re

import pytest

SMALL = ["--set", "model=fc-16", "--set", "train.steps=30", "--set", "train.batch_size=32"]
SPACE = """
model: fc-16
gate: {l0_strength: {uniform: [0.5, 2.0]}}
train: {steps: 30, batch_size: 32}
sweep: {samples: 2}
"""


def test_a_trial_prints_its_figures_and_is_not_trained_twice(command):
    first = command("trial", *SMALL)
    assert first.code == 0
    assert "complete in" in first.out
    assert "test accuracy %" in first.out
    assert "all layers" in first.out
    assert "step 30 of 30" in first.err
    again = command("trial", *SMALL)
    assert again.code == 0
    assert "nothing was trained" in again.out
    assert again.err == ""
    assert again.out.splitlines()[2:] == first.out.splitlines()[2:]
    assert re.search(r"gates expected open \d", first.err)
    assert re.search(r"ticketsweep stability single --trial [0-9a-f]{8}\n", first.out)


def test_a_trial_as_json_is_one_document(command, tmp_path):
    ended = command("trial", *SMALL, "--format", "json", "--storage", tmp_path / "st")
    read = json.loads(ended.out)
    (trial,) = read["trials"]
    assert read["reused"] is False
    assert trial["config"]["model"] == "fc-16"
    assert trial["spread"]["val_accuracy"]["n"] == 4
    assert trial["stability"] == pytest.approx(read["stability"][trial["trial_id"]]["score"])


COMPARED = ["--set", "retrain.steps=20", "--set", "controls=[random_mask, shuffled_mask]"]


def test_a_trial_shows_its_ticket_beside_what_it_is_compared_with(command):
    text = command("trial", *SMALL, *COMPARED).out
    rows = [line.split("  ")[0] for line in text.splitlines() if line.count("±") == 2]
    assert rows == [
        "strong ticket", "shuffled mask", "random mask", "retrained ticket", "dense network",
        "shuffled mask, retrained", "random mask, retrained",
    ]  # fmt: skip
    assert "strong ticket less " in " ".join(text.split())
    (trial,) = json.loads(command("trial", *SMALL, *COMPARED, "--format", "json").out)["trials"]
    for name in ("retrained", "dense", "shuffled_mask", "random_mask_retrained"):
        for metric in (f"{name}_accuracy", f"{name}_val_accuracy"):
            assert trial["metrics"][metric] == pytest.approx(trial["spread"][metric]["mean"])


def test_a_trial_that_diverges_is_stored_as_failed_and_exits_with_1(command):
    deep = f"model=fc{'-16' * 15}"  # the product of fifteen layers leaves float32's range
    ended = command("trial", *SMALL, "--set", deep, "--set", "weight_scale=1000")
    assert ended.code == 1
    assert ended.out == ""
    assert ended.err.splitlines()[-1].startswith("Error: trial ")
    status = command("status", "single").out
    assert status.count("failed") == 3  # in the head of each table, and as the trial's state


BAD = {
    "not YAML": ("model: [", [], "must be YAML"),
    "an unknown key": ("modle: x", [], "did you mean 'model'"),
    "a value out of range": ("train: {steps: 0}", [], "train.steps must be >= 1"),
    "a value of another type": ("train: {lr: fast}", [], "train.lr must be a number"),
    "an empty distribution": ("seed: {choice: []}", [], "at least one option"),
    "an unknown model": ("model: resnet-1", [], "must be a model"),
    "an unknown data set": ("dataset: minst", [], "must be a data set"),
    "no replicates": ("replicates: {init: 0}", [], "replicates.init must be >= 1"),
    "a name with a slash": (SPACE, ["--name", "a/b"], "sweep.name must be"),
    "samples that are no number": (SPACE, ["--samples", "x"], "must be a whole number, got 'x'"),
    "no samples": (SPACE, ["--samples", "0"], "sweep.samples must be >= 1"),
    "a time without a unit": (SPACE, ["--for", "90"], "must be a time such as 90s, 30m, 2h"),
    "no time at all": (SPACE, ["--for", "0m"], "1d or 1h30m, at most 366d, got '0m'"),
    "settings to start with that lie outside": (
        SPACE,
        ["--set", "sweep.start_with=[{gate.l0_strength: 3}]"],
        "sweep.start_with.0.gate.l0_strength must be a number from 0.5 to 2.0",
    ),
    "a setting without a value": (SPACE, ["--set", "seed"], "must look like KEY=VALUE"),
    "an unknown choice": (SPACE, ["--wandb", "maybe"], "'--wandb': 'maybe' is not one of"),
    "a missing file": (None, [], "cannot be read"),
    "a file for a storage": (SPACE, ["--storage", "space.yaml"], "cannot be written to"),
    "an unknown kind of storage": (SPACE, ["--storage", "ftp://x"], "file://, s3:// or gs://"),
    "a missing data folder": ("dataset: 'parquet:nowhere'", [], "must name a folder"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_in_one_message_and_exit_code_2(command, tmp_path, case):
    text, options, message = BAD[case]
    if text is not None:
        (tmp_path / "space.yaml").write_text(text)
    if case == "a missing data folder":
        ended = command("trial", "space.yaml", *options)
    else:
        ended = command("run", "space.yaml", *options)
    assert ended.code == 2
    assert ended.out == ""
    assert message in ended.err
    assert len(re.findall("^Error: ", ended.err, flags=re.M)) == 1
    assert "Traceback" not in ended.err


def test_a_trial_takes_no_space_and_no_name_with_a_slash(command, tmp_path):
    (tmp_path / "space.yaml").write_text(SPACE)
    ended = command("trial", "space.yaml")
    assert ended.code == 2
    assert "gate.l0_strength must be one value for a single trial" in ended.err
    assert command("trial", "--sweep", "a/b").code == 2
    assert not (tmp_path / "ticketsweep-storage").exists()


def test_a_complete_trial_without_snapshots_says_that_it_gets_none(command):
    small = ["trial", "--set", "model=fc-4", "--set", "train.steps=2", "--storage", "st"]
    assert "without snapshots" not in command(*small, "--set", "snapshots=false").err
    ended = command(*small, "--set", "snapshots=true")
    assert ended.code == 0
    assert "stored without snapshots, and a complete one is not trained again" in ended.err
    again = command(*small, "--set", "snapshots=true", "--set", "seed=1")
    assert "without snapshots" not in again.err + command(*small, "--set", "seed=1").err


def test_a_stored_trial_is_run_again_by_its_id_with_what_is_set(command):
    row = json.loads(command("trial", *SMALL, "--format", "json").out)["trials"][0]
    same = json.loads(command("trial", "--like", row["trial_id"][:6], "--format", "json").out)
    assert same["reused"] is True
    assert same["trials"][0]["trial_id"] == row["trial_id"]
    fresh = ["trial", "--like", row["trial_id"], "--set", "seed=1", "--set", "train.steps=2"]
    other = json.loads(command(*fresh, "--format", "json").out)
    assert other["reused"] is False
    config, train = other["trials"][0]["config"], row["config"]["train"] | {"steps": 2}
    assert config == row["config"] | {"seed": 1, "train": train}
    both = command("trial", "x.yaml", "--like", "3f")
    assert (both.code, both.out) == (2, "")
    assert both.err == "Error: --like 3f takes the place of x.yaml: give one of the two\n"
    assert "no trial of storage" in command("trial", "--like", "zz").err
