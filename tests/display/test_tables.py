from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from rich.console import Console

from ticketsweep.analysis.stability import LayerBits, Seeds, trial_stability
from ticketsweep.display.agreement import (
    score,
    stability_answer,
    stability_records,
    stability_table,
)
from ticketsweep.display.catalogue import spaces_table
from ticketsweep.display.outcome import sweep_outcome
from ticketsweep.display.sweeps import ago, status_table
from ticketsweep.display.terminal import Column, tables
from ticketsweep.display.trials import setting_names, trials_of_sweep
from ticketsweep.results.ranking import chosen, rank_trials
from ticketsweep.results.summary import Spread, Summary
from ticketsweep.results.sweeps import SweepView

AIMS = {"val_accuracy": "max", "sparsity": "max"}
NOW = datetime(2026, 1, 3, tzinfo=UTC)


def text_of(*parts, width=10_000):
    console = Console(file=io.StringIO(), width=width, markup=False, highlight=False)
    for part in parts:
        console.print(part)
    return console.file.getvalue()


def console(width=10_000):
    return Console(file=io.StringIO(), width=width)


def row(trial_id, accuracy=0.9, sparsity=0.5, **columns):
    config = {"gate": {"l0_strength": 1.25, "temperature": 0.5}, "train": {"lr": 0.03}}
    return {
        "sweep": "s",
        "trial_id": trial_id,
        "status": "complete",
        "val_accuracy": accuracy,
        "strong_accuracy": accuracy,
        "sparsity": sparsity,
        "stability": None,
        "config": json.dumps(config),
        "metrics": [("loss", 0.5)],
        "started_at": NOW - timedelta(hours=2),
        "wall_seconds": 60.0,
        **columns,
    }


def stability(inits=2, datas=3):
    rng = np.random.default_rng(0)
    seeds = np.array([(i, d, 0) for i in range(inits) for d in range(datas)])
    bits = np.packbits(rng.random((len(seeds), 96)) < 0.5, axis=1, bitorder="little")
    return trial_stability([LayerBits("fc1.weight", 96, bits)], Seeds(*seeds.T))


def summary(rows, searched=("gate.l0_strength", "gate.temperature", "train.lr")):
    ranked = rank_trials(rows, AIMS)
    spread = {"val_accuracy": Spread(0.9, 0.01, 6)}
    return Summary(
        name="s",
        objectives=AIMS,
        searched=searched,
        rows=rows,
        ranked=ranked,
        best=chosen(ranked, 10),
        spreads={each["trial_id"]: spread for each in rows},
        stability={rows[0]["trial_id"]: stability()} if rows else {},
    )


def outcome(found, width):
    parts = sweep_outcome(
        console(width), found, samples=12, places={"masks, results": "here"}, storage="x y"
    )
    return text_of(*parts, width=width)


def test_a_figure_that_does_not_exist_is_a_dash_and_never_nan():
    text = outcome(summary([row("a" * 16, strong_accuracy=float("nan"))]), 200)
    assert "nan" not in text.lower()
    assert "–" in text
    assert "90.00 ±1.00" in text


@pytest.mark.parametrize("width", [80, 120])
def test_no_cell_is_cut_at_the_usual_widths(width):
    rows = [row(f"{i:016x}", 0.9 + i / 1000, 0.9 - i / 1000) for i in range(12)]
    text = outcome(summary(rows), width)
    assert "…" not in text
    prose = text.split("next:")[0]
    assert max(map(len, prose.splitlines())) <= width


def test_settings_go_into_a_table_of_their_own_where_they_do_not_fit():
    found = summary([row("a" * 16)])
    assert outcome(found, 80).count("trial ") - outcome(found, 300).count("trial ") == 1


def test_the_outcome_names_the_front_the_places_and_what_to_type():
    rows = [row(f"{i:016x}", 0.9 + i / 1000, 0.9 - i / 1000) for i in range(12)]
    text = outcome(summary(rows), 200)
    assert "s: 12 of 12 trials complete" in text
    assert "(10 of 12 shown)" in text
    assert "masks, results   here" in text
    assert "ticketsweep stability s --storage 'x y'" in text


def test_a_sweep_without_a_complete_trial_has_an_outcome_too():
    text = outcome(summary([row("a" * 16, status="failed", val_accuracy=None)]), 80)
    assert "0 of 12 trials complete, 1 failed" in text
    assert "rank" not in text


def test_a_kind_that_gathers_only_one_other_is_left_out_unless_it_is_asked_for():
    groups = {(): stability(inits=2, datas=3)}
    everything = text_of(stability_table(groups, keys=[]))
    assert " data " in everything
    assert "same init" not in everything
    assert "other init" in everything
    asked = text_of(stability_table(groups, keys=[], only=("same init", "other init")))
    assert "same init" in asked
    assert " data " not in asked


def test_two_seeds_show_no_interval_and_three_do():
    assert "[" not in score(stability(inits=1, datas=2))
    assert "[" in score(stability(inits=1, datas=3))
    assert score(stability(inits=2, datas=1)) == "–"


def test_a_stability_table_says_its_seeds_once_or_in_each_row():
    alike = {(1,): stability(), (2,): stability()}
    assert "seeds: 2 init, 3 data, 1 gate" in text_of(stability_table(alike, keys=["k"]))
    unlike = {(1,): stability(), (2,): stability(datas=2)}
    text = text_of(stability_table(unlike, keys=["k"]))
    assert "2/3/1" in text
    assert "2/2/1" in text


def test_records_of_stability_have_every_figure_and_key():
    first = stability_records({(20, "a"): stability()}, keys=["step", "x"])[0]
    assert (first["step"], first["x"], first["init_seeds"], first["data_seeds"]) == (20, "a", 2, 3)
    assert {"layer", "differs", "pairs", "jaccard", "corrected", "low", "high"} <= set(first)


def test_a_single_replicate_has_nothing_to_compare():
    alone = {(): stability(inits=1, datas=1)}
    assert "nothing to compare" in text_of(stability_answer(alone, keys=[], trials=1))
    assert "0 complete trials" in text_of(stability_answer({}, keys=[], trials=0))


def test_short_names_of_settings_are_their_last_part_unless_two_share_it():
    keys = ["gate.lr", "train.lr", "gate.temperature", "seed"]
    assert setting_names(keys) == ["gate.lr", "train.lr", "temperature", "seed"]


def test_a_gate_that_was_chosen_is_told_by_its_family():
    gate = {"family": "edge_popup", "density": 0.1}
    found = summary([row("aa", config=json.dumps({"gate": gate}))], ("gate", "gate.density"))
    text = outcome(found, 200)
    assert "edge_popup" in text
    assert "{" not in text


def test_failed_trials_are_listed_with_their_first_line():
    failed = row("b" * 16, status="failed", error="loss is NaN at step 3\nTraceback")
    view = SweepView("s", None, [row("a" * 16), failed])
    text = text_of(*trials_of_sweep(console(), view, limit=100))
    assert "loss is NaN at step 3" in text
    assert "Traceback" not in text


def test_a_long_sweep_shows_its_latest_trials_with_a_note():
    view = SweepView("s", None, [row(f"{i:016x}") for i in range(30)])
    text = text_of(*trials_of_sweep(console(), view, limit=10))
    assert "the latest 10 of 30 trials" in text
    assert len(text.splitlines()) == 10 + 4


def test_status_counts_trials_by_state_and_says_when_the_sweep_last_moved():
    rows = [row("a"), row("b", status="stopped"), row("c", status="failed", val_accuracy=None)]
    view = SweepView("s", {"samples": 9, "objectives": list(AIMS.items()), "space": "{}"}, rows)
    line = text_of(status_table([view], now=NOW)).splitlines()[3].split()
    assert line[:5] == ["s", "9", "1", "1", "1"]
    assert line[-2:] == ["1:59:00", "ago"]


def test_what_is_long_ago_has_a_date():
    assert ago(NOW - timedelta(days=3), NOW) == "2025-12-31"
    assert ago(None, NOW) == "–"


def test_columns_that_do_not_fit_go_into_further_tables_that_begin_with_the_key():
    key = [Column("k", ["1"])]
    columns = [Column(f"header{i}", ["value"]) for i in range(10)]
    drawn = text_of(tables(console(30), key, columns), width=30)
    assert all(f"header{i}" in drawn for i in range(10))
    assert max(map(len, drawn.splitlines())) <= 30


def test_search_spaces_are_listed_with_their_first_comment_line_and_faulty_ones_named(tmp_path):
    good = "# What it is.\n# More.\ngate: {l0_strength: {uniform: [1, 2]}}\nsweep: {samples: 7}\n"
    (tmp_path / "good.yaml").write_text(good)
    (tmp_path / "bad.yaml").write_text("modle: x\n")
    text = text_of(spaces_table(tmp_path))
    assert "What it is." in text
    assert "has faults" in text
    assert " 7 " in text
    assert "no search space" in text_of(spaces_table(tmp_path / "none"))
