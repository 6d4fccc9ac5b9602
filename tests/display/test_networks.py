from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from ticketsweep.display.networks import diverged_note, diverged_notes, networks_table
from ticketsweep.results.networks import differences
from ticketsweep.results.ranking import rank_trials
from ticketsweep.results.summary import Spread, Summary

AIMS = {"val_accuracy": "max"}
ROW = {
    "trial_id": "a" * 16,
    "status": "complete",
    "val_accuracy": 0.9,
    "config": json.dumps({"retrain": {"steps": 100}}),
}


def replicate(**figures):
    return {"strong_accuracy": 0.9, "val_accuracy": 0.88, **figures}


def summary(replicates, diverged=()):
    names = {name for each in replicates for name in each}
    values = {name: [each[name] for each in replicates if name in each] for name in names}
    spreads = {name: Spread(sum(v) / len(v), 0.01, len(v)) for name, v in values.items()}
    ranked = rank_trials([ROW], AIMS)
    return Summary(
        name="s",
        objectives=AIMS,
        searched=[],
        rows=[ROW],
        ranked=ranked,
        best=ranked,
        spreads={ROW["trial_id"]: spreads},
        stability={},
        differences={ROW["trial_id"]: differences(replicates)},
        diverged={ROW["trial_id"]: list(diverged)} if diverged else {},
    )


def drawn(found, width=80):
    console = Console(file=io.StringIO(), width=width)
    for part in networks_table(found, ROW):
        console.print(part)
    return console.file.getvalue()


CONTROL = {"random_mask_accuracy": 0.1, "random_mask_val_accuracy": 0.15}


def test_a_ticket_alone_has_no_table():
    assert networks_table(summary([replicate()]), ROW) == []


def test_only_the_networks_that_there_are_have_a_row():
    text = drawn(summary([replicate(**CONTROL)] * 2))
    rows = [line for line in text.splitlines() if "±" in line]
    assert [" ".join(row.split()) for row in rows] == [
        "strong ticket 90.00 ±1.00 88.00 ±1.00",
        "random mask 10.00 ±1.00 15.00 ±1.00",
    ]


def test_the_differences_are_numbers_and_no_verdict():
    found = summary([replicate(**CONTROL), replicate(**{**CONTROL, "random_mask_accuracy": 0.95})])
    text = " ".join(drawn(found).split())
    assert (
        "mean (least to most) over 2 replicates: strong ticket less random mask +37.5 "
        "(-5.0 to +80.0). Retrained"
    ) in text
    assert "the one that is best" not in text  # there is one control
    shuffled = {"shuffled_mask_accuracy": 0.2, "shuffled_mask_val_accuracy": 0.1}
    text = " ".join(drawn(summary([replicate(**CONTROL, **shuffled)])).split())
    assert "the one that is best on the validation split" in text


def test_a_difference_over_fewer_replicates_says_so():
    retrained = {"retrained_accuracy": 0.95, "dense_accuracy": 0.97}
    text = drawn(summary([replicate(**CONTROL, **retrained), replicate(**CONTROL)]))
    told = " ".join(text.split())
    assert "strong ticket less random mask +80.0 (+80.0 to +80.0), 2 replicates;" in told
    assert "retrained ticket less dense network -2.0, 1 replicate." in told
    assert "had 100 steps each" in told


@pytest.mark.parametrize("width", [80, 120])
def test_no_cell_is_cut_at_the_usual_widths(width):
    every = {
        f"{name}{end}_accuracy": 0.123456
        for name in ("joint", "retrained", "dense", "random_mask", "reinitialized", "shuffled_mask",
                     "shuffled_mask_retrained", "reinitialized_retrained", "random_mask_retrained")
        for end in ("", "_val")
    }  # fmt: skip
    text = drawn(summary([replicate(**every)] * 2), width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert text.count("12.35 ±1.00") == 18


@pytest.mark.parametrize(
    ("diverged", "note"),
    [
        ([], ""),
        ([300], "1 of 3 replicates diverged (at step 300) and is left out of every figure"),
        ([9, 2, 9], "3 of 5 replicates diverged (at step 2, 9) and are left out of every figure"),
    ],
)
def test_replicates_that_diverged_are_counted_and_dated(diverged, note):
    found = summary([replicate()] * 2, diverged)
    assert diverged_note(found, ROW) == note
    count = f"{len(diverged)} of {len(diverged) + 2} in trial aaaaaaaa"
    assert diverged_notes(found).endswith(count if diverged else "")
    assert bool(diverged_notes(found)) == bool(diverged)
