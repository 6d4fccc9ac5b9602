from __future__ import annotations

import csv
import io
import json
import re
import resource

import pyarrow.parquet as pq
import pytest

from ticketsweep.names import CONTROLS, DATASETS, GATES, MODELS

LAYERS = "select layer, avg(kept * 1.0 / size) as density from masks group by 1 order by 1"


def test_a_query_answers_in_every_format(command, stored, tmp_path):
    as_json = command("query", LAYERS, "--format", "json", "--storage", stored)
    records = json.loads(as_json.out)
    assert [record["layer"] for record in records] == ["fc1.weight", "fc2.weight"]
    assert as_json.err == ""
    as_csv = command("query", LAYERS, "--format", "csv", "--storage", stored)
    rows = list(csv.DictReader(io.StringIO(as_csv.out)))
    assert [float(row["density"]) for row in rows] == [r["density"] for r in records]
    as_table = command("query", LAYERS, "--storage", stored)
    assert "(2 rows)" in as_table.out
    written = command("query", LAYERS, "--out", "a.parquet", "--storage", stored)
    assert written.out == ""
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == records


def test_a_query_takes_parameters(command, stored):
    query = "select count(*) n from masks where sweep = $name and sparsity >= $least"
    arguments = ["query", query, "--storage", stored, "--format", "json", "--param", "least=0.0"]
    for name, n in [("single", 8), ("a=b", 0)]:
        ended = command(*arguments, "--param", f"name={name}")
        assert json.loads(ended.out) == [{"n": n}]


def test_the_storage_is_named_by_the_environment_too(command, stored, monkeypatch):
    monkeypatch.setenv("TICKETSWEEP_STORAGE", str(stored))
    assert command("query", "select 1").code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", "select * frm masks"], "syntax error"),
        (["query", "select nothing from masks"], "nothing"),
        (["query", "drop table masks"], "must be a SELECT"),
        (["query", "select 1; select 2"], "one statement"),
        (["query", "select 1", "--format", "parquet"], "needs --out"),
        (["query", "select 1", "--out", "a.txt"], "needs --format"),
        (["query", "select 1", "--out", "a.csv", "--format", "table"], "needs --format"),
        (["query", "select 1", "--out", "no/where.csv"], "cannot be written"),
        (["query", "select $x"], "$x has no value"),
        (["query", "select $x", "--param", "x"], "--param must be NAME=VALUE"),
        (["query", "select $x", "--param", "x=1", "--param", "x=2"], "given twice"),
        (["stability", "sinlge"], "did you mean 'single'"),
        (["stability", "single", "--by", "nothing"], "--by must be"),
        (["stability", "single", "--layer", "nothing"], "fc1.weight"),
        (["stability", "single", "--trial", "nothing"], "begins the id of none"),
        (["status", "nothing"], "known: single"),
        (["list", "nothing"], "'what': 'nothing' is not one of 'sweeps'"),
        (["frobnicate"], "No such command"),
    ],
)
def test_bad_input_ends_in_one_message_and_exit_code_2(
    command, stored, monkeypatch, arguments, message
):
    monkeypatch.setenv("TICKETSWEEP_STORAGE", str(stored))
    ended = command(*arguments)
    assert ended.code == 2
    assert ended.out == ""
    assert message in ended.err
    assert len(re.findall("^Error: ", ended.err, flags=re.M)) == 1


@pytest.mark.parametrize(
    "arguments", [["query", "select 1"], ["status"], ["stability", "s"], ["list", "sweeps"]]
)
def test_reading_makes_no_storage(command, tmp_path, arguments):
    ended = command(*arguments)
    assert ended.code == 2
    assert "does not exist" in ended.err
    assert not any(tmp_path.iterdir())


def test_stability_in_every_format_says_the_same(command, stored):
    arguments = ["stability", "single", "--by", "rewind_step", "--storage", stored]
    table = command(*arguments)
    assert "all layers" in table.out
    assert "95 % interval over seeds" in table.out
    answer = json.loads(command(*arguments, "--format", "json").out)
    assert set(answer) == {"groups", "pairs", "seeds", "layers", "settling", "comparisons"}
    records = answer["pairs"]
    rows = list(csv.DictReader(io.StringIO(command(*arguments, "--format", "csv").out)))
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        assert row["differs"] == record["differs"]
        assert row["low"] == ("" if record["low"] is None else str(record["low"]))
        assert record["rewind_step"] == 0


def test_stability_of_one_layer_of_one_trial(command, stored):
    query = command("query", "select trial_id from trials", "--format", "json", "--storage", stored)
    ((trial_id,),) = (record.values() for record in json.loads(query.out))
    ended = command(
        "stability", "single", "--trial", trial_id[:6], "--layer", "fc2.weight",
        "--format", "json", "--storage", stored,
    )  # fmt: skip
    answer = json.loads(ended.out)
    for kind in ("pairs", "seeds", "layers"):
        assert {record["layer"] for record in answer[kind]} == {"fc2.weight"}


def test_status_and_list_show_the_sweep(command, stored):
    for arguments in (["status"], ["status", "single"], ["list", "sweeps"]):
        ended = command(*arguments, "--storage", stored)
        assert ended.code == 0
        assert "single" in ended.out


@pytest.mark.parametrize(
    ("what", "word"),
    [
        ("models", "lenet-300-100"),
        ("datasets", "mnist"),
        ("gates", "gaussian"),
        ("controls", "random_mask"),
    ],
)
def test_what_settings_may_name_is_listed_a_line_each(command, monkeypatch, what, word):
    names = {"models": MODELS, "datasets": DATASETS, "gates": GATES, "controls": CONTROLS}[what]
    monkeypatch.setenv("COLUMNS", "80")
    lines = command("list", what).out.splitlines()
    assert any(line.startswith(word) for line in lines)
    assert [line.split()[0] for line in lines[2:]] == list(names)


def test_a_corrupt_file_is_named_and_skipped(command, tmp_path):
    small = ["--set", "model=fc-4", "--set", "train.steps=2", "--storage", "st"]
    for seed in (0, 1):
        assert command("trial", *small, "--set", f"seed={seed}").code == 0
    damaged, _ = sorted((tmp_path / "st" / "masks").rglob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    query = ["query", "select count(distinct trial_id) as n from masks", "--format", "json"]
    ended = command(*query, "--storage", "st")
    assert json.loads(ended.out) == [{"n": 1}]
    assert damaged.stem in ended.err
    assert damaged.stem in command("stability", "single", "--storage", "st").err


def test_an_answer_for_which_there_is_no_room_is_not_taken_for_damage(command, stored):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        query = "select range, (select count(*) from masks) n from range(200000)"
        ended = command("query", query, "--format", "csv", "--storage", stored)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (ended.code, ended.out) == (2, "")
    assert re.fullmatch(
        r"Error: the answer cannot be kept in .+ too large \(free .+\)\n", ended.err
    )
