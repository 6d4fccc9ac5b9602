from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from ticketsweep.analysis.layers import LayerBits, Seeds
from ticketsweep.analysis.overlap import pack
from ticketsweep.analysis.stability import sweep_stability, trial_stability
from ticketsweep.display.agreement import stability_answer, stability_document

TRIAL = {"granularity": "weight"}


def seeds(inits, datas):
    plan = np.array([(i, d, 0) for i in range(inits) for d in range(datas)])
    return Seeds(*plan.T)


def layers(replicates, seed=0):
    rng = np.random.default_rng(seed)
    first = (rng.random((replicates, 12, 40)) < 0.4) & (rng.random(40) < 0.5)
    return [
        LayerBits("fc1.weight", (12, 40), pack(first)),
        LayerBits("fc2.weight", (10, 12), pack(rng.random((replicates, 10, 12)) < 0.3)),
    ]


def stability(inits=3, datas=3):
    return trial_stability(layers(inits * datas), seeds(inits, datas))


def shown(groups, keys=(), width=80):
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    console.print(stability_answer(console, groups, keys=keys, trials=[TRIAL]))
    return console.file.getvalue()


def test_what_each_seed_fixes_is_shown_with_what_is_common_and_what_cannot_be_told():
    text = shown({(): stability()})
    lines = [line.split() for line in text.splitlines() if line]
    firsts = [line[0] for line in lines]
    at = firsts.index("init")
    assert firsts[at : at + 4] == ["init", "data", "(interactions)", "(common"]
    shares = [float(lines[at + i][1 + (i == 3) * 2]) for i in range(4)]
    assert sum(shares) == pytest.approx(1, abs=0.02)
    flat = " ".join(text.split())
    assert "shares of the ticket beyond chance (all layers)" in flat
    assert "one gate seed: what it decides is part of what is common to all" in flat


def test_one_kind_of_seed_that_varies_is_a_sentence_in_place_of_a_table():
    text = shown({(): stability(inits=1)})
    assert "fixes alone" not in text
    assert "only the data seed varies" in text


def test_inputs_explain_the_agreement_of_a_first_layer_that_prefers_some():
    text = shown({(): stability(inits=3, datas=1)})
    table = text[text.index("given") :]
    figures = next(line.split() for line in table.splitlines() if line.startswith("fc1"))
    _, inputs, units, overlap, given_inputs, given_units, *_ = figures
    assert int(inputs) < 70 < int(units)
    assert float(overlap) > 0.2 > abs(float(given_inputs)) * 2
    assert float(given_units) > 0.2


def test_core_and_stability_of_all_masks_are_shown_by_layer():
    text = shown({(): stability()})
    assert "core: gates that all 9 replicates keep" in text
    assert "Nogueira's" in text


def test_groups_are_told_apart_by_their_keys_and_fit_in_80_columns():
    trials = [((step, 0.125), layers(9, seed), seeds(3, 3)) for seed, step in enumerate((0, 100))]
    groups = sweep_stability(trials)
    text = shown(groups, keys=["rewind_step", "gate.temperature"])
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for table in ("fixes alone", "core %"):
        after = text[text.index(table) :]
        assert "100" in [line.split()[0] for line in after.splitlines() if line.split()]


def test_the_document_has_everything_and_no_nan():
    whole = stability_document({(7,): stability()}, keys=["step"])
    text = json.dumps(whole, allow_nan=False)
    assert "NaN" not in text
    assert {record["step"] for records in whole.values() for record in records} == {7}
    parts = [r["part"] for r in whole["seeds"] if r["layer"] == "all layers"]
    assert parts == ["common", "init", "data", "interactions"]
    first = whole["pairs"][0]
    assert {"hamming", "overlap_coefficient", "inputs_given", "units_correlation"} <= set(first)
    layer = whole["layers"][0]
    assert len(layer["frequency"]) == len(layer["by_chance"]) == 10
    assert {"core", "union", "nogueira", "low", "high"} <= set(layer)


@pytest.mark.parametrize("share", [0, 1])
def test_masks_that_keep_nothing_or_everything_show_no_nan(share):
    bits = pack(np.full((4, 30), share == 1))
    found = trial_stability([LayerBits("fc1", (5, 6), bits)], seeds(2, 2))
    text = shown({(): found})
    assert "nan" not in text
    json.dumps(stability_document({(): found}, keys=[]), allow_nan=False)


def test_masks_of_units_have_no_inputs_to_show():
    rng = np.random.default_rng(0)
    layer = LayerBits("fc1.units", (40,), pack(rng.random((4, 40)) < 0.5))
    text = shown({(): trial_stability([layer], seeds(2, 2))})
    line = next(x for x in text.splitlines()[::-1] if x.startswith("fc1.units"))
    assert line.split()[1:3] == ["–", "–"]
