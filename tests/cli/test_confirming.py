"""`best` and `confirm` on a small sweep. Its trials are made one by one, so no Ray is started."""

from __future__ import annotations

import csv
import json
import sys

import pytest

from ticketsweep.cli import main
from ticketsweep.seeds import derive_seed

SPACE = """
model: fc-16
gate: {l0_strength: {choice: [0.5, 20]}}
train: {steps: 30, batch_size: 32}
sweep: {name: s, samples: 2, objectives: {val_accuracy: max}}
"""
FRESH = [
    "--set", f"seed={derive_seed(0, 'confirm', 's', '0')}", "--set", "replicates={init: 3, data: 1}"
]  # fmt: skip


def call(*arguments):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ticketsweep", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
    assert not exit_.value.code


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A storage with the sweep `s` of two trials, and the trials that would confirm them."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "space.yaml").write_text(SPACE)
    storage = ["--storage", folder / "st"]
    for strength in ("0.5", "20"):
        point = ["--set", f"gate.l0_strength={strength}"]
        call("trial", folder / "space.yaml", *point, *storage)
        call("trial", folder / "space.yaml", *point, *FRESH, *storage)
    call("run", folder / "space.yaml", *storage, "--wandb", "off")
    return folder / "st"


def test_the_best_at_each_sparsity_is_a_table_with_the_line_that_runs_it_again(command, swept):
    text = command("best", "s", "--storage", swept)
    assert (text.code, text.err) == (0, "")
    assert "Nothing was chosen by test figures" in " ".join(text.out.split())
    assert f"ticketsweep confirm s --storage {swept}" in text.out
    asked = ["best", "s", "--at-sparsity", "0,0.6,0.999", "--storage", swept]
    document = json.loads(command(*asked, "--format", "json").out)
    assert document["by"] == "val_accuracy"
    sparse = [each["sparsity"] for each in document["best"]]
    assert sparse[2] is None
    assert sparse[1] >= 0.6
    rows = list(csv.DictReader(command(*asked, "--format", "csv").out.splitlines()))
    assert [row["trial_id"] for row in rows] == [e["trial_id"] or "" for e in document["best"]]
    line = rows[0]["command"].split("ticketsweep ")[1].split()
    assert json.loads(command(*line, "--format", "json").out)["reused"] is True


def test_confirming_runs_the_best_settings_with_fresh_seeds_once(command, swept):
    line = ["confirm", "s", "--top", 1, "--replicates", "init=3,data=1", "--storage", swept]
    first = command(*line, "--wandb", "off")
    assert first.code == 0, first.err
    assert "lies" in first.out
    assert "ticketsweep stability s-confirmed" in first.out
    document = json.loads(command(*line, "--format", "json").out)
    (one,) = document["confirmed"]
    assert one["val_accuracy_n"] == one["strong_accuracy_n"] == 3
    assert one["search_val_accuracy_n"] == 4
    fallen = one["search_val_accuracy"] - one["val_accuracy"]
    assert one["shrinkage"] == document["mean_shrinkage"] == pytest.approx(fallen)
    assert "search_strong_accuracy" not in one
    both = command(*line, "--top", 7)
    assert "complete trials of 2 settings: all are confirmed" in both.err
    status = command("status", "s-confirmed", "--storage", swept).out
    assert one["confirmed_trial_id"][:8] in status
    other = command("confirm", "s", "--replicates", "init=4", "--storage", swept)
    assert other.code == 2
    assert "replicates.init: 3 in the storage, 4 in the space of sweep s" in other.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["best", "t"], "no sweep 't'"),
        (["best", "s", "--at-sparsity", "95"], "must be shares of 1"),
        (["best", "s", "--by", "strong_accuracy"], "is a test figure"),
        (["confirm", "t"], "no sweep 't'"),
        (["confirm", "single"], "`ticketsweep trial --like"),
        (["confirm", "s", "--by", "stabilty"], "did you mean 'stability'?"),
        (["confirm", "s", "--at-sparsity", "0.9999"], "there is nothing to confirm"),
        (["confirm", "s", "--set", "train.steps=2"], "would make other settings"),
        (["confirm", "s", "--name", "a/b"], "a sweep's name must be"),
        (["confirm", "s", "--replicates", "init"], "must look like init=4,data=1"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_message(command, swept, arguments, complaint):
    ended = command(*arguments, "--storage", swept)
    assert (ended.code, ended.out) == (2, "")
    assert complaint in ended.err
    assert "Traceback" not in ended.err
