from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from rich.console import Console

from ticketsweep.analysis.layers import LayerBits, Seeds
from ticketsweep.analysis.stability import trial_stability
from ticketsweep.display.agreement import (
    score,
    stability_answer,
    stability_records,
    stability_table,
)
from ticketsweep.display.catalogue import spaces_table
from ticketsweep.display.outcome import storage_place, sweep_outcome, sweep_places, trial_outcome
from ticketsweep.display.sweeps import ago, list_table, status_table
from ticketsweep.display.terminal import Column, tables
from ticketsweep.display.trials import setting_names, trials_of_sweep
from ticketsweep.results.ranking import chosen, rank_trials
from ticketsweep.results.standing import Standing
from ticketsweep.results.summary import Spread, Summary
from ticketsweep.results.sweeps import SweepView
from ticketsweep.store.paths import Storage

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
        "undecided": 0.0625,
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
    return trial_stability([LayerBits("fc1.weight", (12, 8), bits)], Seeds(*seeds.T))


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
        differences={},
        diverged={},
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
    assert "10 of 12 complete trials; all: ticketsweep status s --storage 'x y'" in text
    assert "masks, results   here" in text
    assert "ticketsweep stability s --storage 'x y'" in text


def test_a_sweep_without_a_complete_trial_has_an_outcome_too():
    text = outcome(summary([row("a" * 16, status="failed", val_accuracy=None)]), 80)
    assert "0 of 12 trials complete, 1 failed" in text
    assert "rank" not in text
    assert "ticketsweep status s" in text
    assert "ticketsweep stability" not in text  # nor any other question to masks that are not there
    assert "ticketsweep query" not in text


def test_more_trials_than_were_asked_for_are_never_a_part_of_fewer():
    rows = [row(f"{i:016x}") for i in range(14)]
    assert "s: 14 trials complete (12 asked for)" in outcome(summary(rows), 200)
    stored = {"samples": 12, "objectives": list(AIMS.items()), "space": "{}"}
    listed = text_of(list_table(console(), [SweepView("s", stored, rows)]))
    assert "14 (12 asked for)" in listed


def test_the_share_of_undecided_gates_stands_beside_the_results_that_it_qualifies():
    rows = [row("a" * 16)]
    for text in (
        outcome(summary(rows), 80),
        text_of(*trials_of_sweep(console(80), SweepView("s", None, rows), limit=10)),
    ):
        assert "undecided" in text
        assert " 6.25" in text


def test_replicates_that_diverged_are_told_of_a_trial_and_of_the_best_of_a_sweep():
    found = replace(summary([row("a" * 16)]), diverged={"a" * 16: [300]})
    trial = text_of(*trial_outcome(console(), found, reused=False, place="x", storage=None))
    assert "over 6 replicates; 1 of 7 replicates diverged (at step 300) and is left" in " ".join(
        trial.split()
    )
    assert "left out of every figure: 1 of 7 in trial aaaaaaaa" in outcome(found, 200)
    assert "diverged" not in outcome(summary([row("a" * 16)]), 200)


def test_an_objective_among_the_metrics_has_a_column_with_its_spread():
    aims = {"retrained_val_accuracy": "max", "sparsity": "max"}
    rows = [row("a" * 16, metrics=[("retrained_val_accuracy", 0.97)])]
    spreads = {"a" * 16: {"retrained_val_accuracy": Spread(0.97, 0.02, 6)}}
    ranked = rank_trials(rows, aims)
    found = replace(summary(rows), objectives=aims, ranked=ranked, best=ranked, spreads=spreads)
    text = outcome(found, 200)
    assert "97.00 ±2.00" in text
    assert "the Pareto front of retrained_val_accuracy max, sparsity max" in text


def test_the_number_of_replicates_is_told_once_or_in_each_row():
    rows = [row("a" * 16), row("b" * 16)]
    assert "over 6 replicates" in outcome(summary(rows), 200)
    spreads = {"a" * 16: Spread(0.9, 0.01, 6), "b" * 16: Spread(0.9, 0.01, 4)}
    unlike = replace(summary(rows), spreads={k: {"val_accuracy": v} for k, v in spreads.items()})
    assert "over the n replicates" in outcome(unlike, 200)


def test_a_trial_is_followed_by_questions_about_itself_alone():
    parts = trial_outcome(console(), summary([row("a" * 16)]), reused=False, place="x", storage="y")
    assert "ticketsweep stability s --trial aaaaaaaa --storage y" in text_of(*parts)


@pytest.mark.parametrize(("folder", "where"), [("st", "st"), ("../st", "/")])
def test_places_are_all_told_from_here_or_all_from_the_root(tmp_path, monkeypatch, folder, where):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    storage = Storage.open(str((here / folder).resolve()), create=True)
    storage.optuna_journal("s").parent.mkdir()
    storage.optuna_journal("s").touch()
    storage.tracking_folder().mkdir()
    places = sweep_places(storage, "s")
    assert len(places) == 3
    assert all(place.startswith(where) for place in places.values())
    assert storage_place(storage) in places.values()


def test_a_kind_that_gathers_only_one_other_is_left_out_unless_it_is_asked_for():
    groups = {(): stability(inits=2, datas=3)}
    everything = text_of(stability_table(console(), groups, keys=[], gates="weights"))
    assert " data " in everything
    assert "same init" not in everything
    assert "other init" in everything
    asked = text_of(
        stability_table(
            console(), groups, keys=[], gates="weights", only=("same init", "other init")
        )
    )
    assert "same init" in asked
    assert " data " not in asked


@pytest.mark.parametrize("keys", [["rewind_step"], ["gate.temperature", "gate.l0_strength"]])
def test_no_figure_of_stability_is_cut_in_80_columns(keys):
    values = {2: [(0.1235, 4.271), (0.9308, 5.639)], 1: [(0,), (20_000,)]}[len(keys)]
    groups = {value: stability() for value in values}
    text = text_of(stability_table(console(80), groups, keys=keys, gates="weights"), width=80)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    whole = text_of(stability_table(console(), groups, keys=keys, gates="weights")).split(
        "seeds: "
    )[0]
    assert set(whole.replace("─", "").split()) <= set(text.split())


def test_the_measure_is_named_under_its_table():
    text = text_of(stability_table(console(), {(): stability()}, keys=[], gates="weights"))
    assert "(|A∩B| - ab/n) / (min(a, b) - ab/n)" in " ".join(text.split())


def test_gates_of_units_are_said_to_be_units():
    text = text_of(stability_table(console(), {(): stability()}, keys=[], gates="units"))
    assert "units" in text.splitlines()[0]
    assert "counts units, not weights" in " ".join(text.split())
    mixed = text_of(stability_table(console(), {(): stability()}, keys=[], gates="gates"))
    assert "units" not in mixed
    found = summary([row("a" * 16, granularity="neuron")])
    text = text_of(*trial_outcome(console(), found, reused=False, place="x", storage=None))
    assert "sparsity of weights %" in text
    assert "counts units, not weights" in " ".join(text.split())


def test_two_seeds_show_no_interval_and_three_do():
    assert "[" not in score(stability(inits=1, datas=2))
    assert "[" in score(stability(inits=1, datas=3))
    assert score(stability(inits=2, datas=1)) == "–"


def test_a_stability_table_says_its_seeds_once_or_in_each_row():
    alike = {(1,): stability(), (2,): stability()}
    assert "seeds: 2 init, 3 data, 1 gate" in text_of(
        stability_table(console(), alike, keys=["k"], gates="weights")
    )
    unlike = {(1,): stability(), (2,): stability(datas=2)}
    text = text_of(stability_table(console(), unlike, keys=["k"], gates="weights"))
    assert "2/3/1" in text
    assert "2/2/1" in text


def test_records_of_stability_have_every_figure_and_key():
    first = stability_records({(20, "a"): stability()}, keys=["step", "x"])[0]
    assert (first["step"], first["x"], first["init_seeds"], first["data_seeds"]) == (20, "a", 2, 3)
    assert {"layer", "differs", "pairs", "jaccard", "corrected", "low", "high"} <= set(first)
    assert "z" not in first  # the gates of a layer are not independent


def test_a_single_replicate_has_nothing_to_compare():
    alone = {(): stability(inits=1, datas=1)}
    assert "nothing to compare" in text_of(
        stability_answer(console(), alone, keys=[], trials=[row("a")])
    )
    assert "0 complete trials" in text_of(stability_answer(console(), {}, keys=[], trials=[]))


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
    standing = Standing(view, (), NOW)
    line = text_of(status_table(console(), [standing])).splitlines()[3].split()
    assert line[:6] == ["s", "9", "0", "1", "1", "1"]
    assert line[-2:] == ["1:59:00", "ago"]


def test_a_sweep_without_a_trial_has_not_begun():
    view = SweepView("s", {"samples": 9, "created_at": NOW, "objectives": [], "space": "{}"}, [])
    assert "not begun" in text_of(status_table(console(), [Standing(view, (), NOW)]))


SPACE = {"gate": {name: {"uniform": [0.0, 1.0]} for name in ("temperature", "temperature_end")}}


def test_lists_are_whole_words_in_80_columns(tmp_path):
    stored = {"samples": 9, "created_at": NOW, "objectives": list(AIMS.items())}
    views = [
        SweepView(name, {**stored, "space": json.dumps(SPACE)}, [])
        for name in ("quickstart", "a-rather-long-name-" * 5)
    ]
    listed = text_of(list_table(console(80), views), width=80)
    assert "gate.temperature, gate.temperature_end" in listed
    about = "What it is, in so many words that they never fit into a single line of eighty columns"
    (tmp_path / "a_space_with_a_long_name.yaml").write_text(f"# {about}\ntrain: {{steps: 1}}\n")
    spaces = text_of(spaces_table(console(80), tmp_path), width=80)
    assert "a_space_with_a_long_name.yaml" in spaces
    for text in (listed, spaces):
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= 80
    assert set(about.split()) <= set(spaces.split())


def test_what_is_long_ago_has_a_date():
    assert ago(NOW - timedelta(days=3), NOW) == "2025-12-31"
    assert ago(None, NOW) == "–"


def test_columns_that_do_not_fit_go_into_further_tables_that_begin_with_the_key():
    key = [Column("k", ["1"])]
    columns = [Column(f"header{i}", ["value"]) for i in range(10)]
    drawn = text_of(tables(console(30), key, columns), width=30)
    assert all(f"header{i}" in drawn for i in range(10))
    assert max(map(len, drawn.splitlines())) <= 30


def test_what_is_left_of_one_part_is_joined_by_the_next_where_that_fits():
    key = [Column("k", ["1"])]
    first, second = ([Column(f"{name}{i}", ["value"]) for i in range(3)] for name in "ab")
    drawn = text_of(tables(console(25), key, first, second), width=25)
    heads = [line.split() for line in drawn.splitlines() if line.startswith("k")]
    assert heads == [["k", "a0", "a1", "a2"], ["k", "b0", "b1", "b2"]]
    wider = text_of(tables(console(32), key, first, second[:2]), width=32)
    heads = [line.split() for line in wider.splitlines() if line.startswith("k")]
    assert heads == [["k", "a0", "a1", "a2"], ["k", "b0", "b1"]]
    narrow = text_of(tables(console(19), key, first, second[:1]), width=19)
    heads = [line.split() for line in narrow.splitlines() if line.startswith("k")]
    assert heads == [["k", "a0", "a1"], ["k", "a2", "b0"]]


def test_search_spaces_are_listed_with_their_first_comment_line_and_faulty_ones_named(tmp_path):
    good = "# What it is.\n# More.\ngate: {l0_strength: {uniform: [1, 2]}}\nsweep: {samples: 7}\n"
    (tmp_path / "good.yaml").write_text(good)
    (tmp_path / "bad.yaml").write_text("modle: x\n")
    text = text_of(spaces_table(console(), tmp_path))
    assert "What it is." in text
    assert "has faults" in text
    assert " 7 " in text
    assert "no search space" in text_of(spaces_table(console(), tmp_path / "none"))
