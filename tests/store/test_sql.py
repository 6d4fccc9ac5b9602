from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import wait

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ticketsweep.errors import QueryError
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import SCHEMAS, MaskRow, TrialRows, pack_mask, unpack_mask
from ticketsweep.store.sql import run_query
from ticketsweep.store.writer import write_trial

ALL = pa.RecordBatchReader.read_all
PAIRS = st.integers(0, 40).flatmap(
    lambda n: st.tuples(hnp.arrays(np.bool_, n), hnp.arrays(np.bool_, n))
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory, make_trial) -> Database:
    storage = Storage.open(str(tmp_path_factory.mktemp("stored")), create=True)
    write_trial(storage, "a", make_trial("t0", seed=0))
    write_trial(storage, "a", make_trial("t1", seed=1))
    return Database(storage)


@settings(max_examples=10, deadline=None)
@given(st.lists(PAIRS, min_size=10, max_size=30))
def test_macros_agree_with_numpy(pairs):
    columns = ([pack_mask(mask) for mask in side] for side in zip(*pairs, strict=True))
    table = pa.table(dict(zip("ab", columns, strict=True)))
    macros = [
        "mask_jaccard(a, b)", "mask_hamming(a, b)", "mask_and(a, b)", "mask_kept(a)",
        "mask_or(a, b)", "mask_bits(a)", "mask_overlap_chance(a, b, 40)",
    ]  # fmt: skip
    query = f"select {', '.join(macros)} from masks"
    answer = run_query(query, {"masks": table}, {}, ALL)
    for (a, b), row in zip(pairs, answer.to_pylist(), strict=True):
        jaccard, hamming, both, kept, either, bits, chance = row.values()
        union = np.count_nonzero(a | b)
        assert jaccard == (np.count_nonzero(a & b) / union if union else None)
        assert hamming == np.count_nonzero(a != b)
        np.testing.assert_array_equal(unpack_mask(both, a.shape), a & b)
        assert kept == np.count_nonzero(a)
        np.testing.assert_array_equal(unpack_mask(either, a.shape), a | b)
        assert bits[: a.size] == a.astype(int).tolist()
        assert bits[a.size :] == [0] * (-a.size % 8)
        assert chance == np.count_nonzero(a) * np.count_nonzero(b) / 40


@pytest.mark.parametrize("macro", ["mask_kept('')", "mask_hamming('', '')"])
def test_macros_take_literals(macro):
    assert run_query(f"select {macro} c", {}, {}, ALL)["c"].to_pylist() == [0]


def test_macros_work_on_stored_masks(stored, make_trial):
    answer = stored.sql(
        """select layer, mask_jaccard(a.bits, b.bits) j, mask_kept(mask_and(a.bits, b.bits)) k
           from masks a join masks b using (layer, replicate)
           where a.trial_id = 't0' and b.trial_id = 't1' and replicate = 1 order by layer"""
    ).to_pylist()
    pairs = zip(make_trial(seed=0).masks[2:], make_trial(seed=1).masks[2:], strict=True)
    for row, (a, b) in zip(answer, pairs, strict=True):
        both = np.count_nonzero(a.to_array() & b.to_array())
        either = np.count_nonzero(a.to_array() | b.to_array())
        assert (row["layer"], row["k"], row["j"]) == (a.layer, both, both / either)


def test_the_chance_of_an_overlap_is_that_of_masks_at_random(stored):
    masks = {"a": pack_mask(np.arange(1000) < 100), "b": pack_mask(np.arange(1000) % 5 == 0)}
    query = "select mask_overlap_chance($a, $b, 1000) c, mask_overlap_chance($a, $b, 0) none"
    assert stored.sql(query, masks).to_pylist() == [{"c": 20.0, "none": None}]


def test_a_parameter_is_a_value_and_never_sql(stored):
    query = "select count(*) n from masks where layer = $layer and replicate >= $least"
    for layer, least, n in [("fc1", 0, 4), ("fc1", "1", 2), ("fc1' or 'a' = 'a", 0, 0)]:
        answer = stored.sql(query, {"layer": layer, "least": least})
        assert answer["n"].to_pylist() == [n]
    assert stored.sql("select $x x", {"x": "1; drop table masks"})["x"].to_pylist() == [
        "1; drop table masks"
    ]


@pytest.mark.parametrize(
    ("query", "parameters", "message"),
    [
        ("select $x", {}, r"parameter \$x has no value"),
        ("select ?", {}, r"parameter \$1 has no value"),
        ("select $name", {"name": 1, "nam": 2}, r"no parameter \$nam \(did you mean 'name'"),
        ("select 1", {"x": 1}, r"no parameter \$x \(it has no parameter\)"),
        ("from masks where sparsity > $x", {"x": "many"}, "many"),
    ],
)
def test_parameters_and_values_must_match(stored, query, parameters, message):
    with pytest.raises(QueryError, match=message):
        stored.sql(query, parameters)


def test_masks_of_different_sizes_cannot_be_compared(stored):
    with pytest.raises(QueryError, match="different sizes"):
        stored.sql("select mask_and('a'::BLOB, 'bc'::BLOB)")


@pytest.mark.parametrize(
    "query",
    [
        "select layer, avg(kept*1.0/size) from masks group by 1",
        "from trials select trial_id",
        "with x as (select * from masks) select count(*) from x",
        "explain select * from masks",
        "explain analyze select * from masks join trials using (trial_id)",
        "describe masks",
        "show tables",
        "summarize trials",
        "values (1)",
        "select 1; ",
        "-- a comment\nselect 1",
        "select * from query('select * from ma' || 'sks')",
        "select metrics['seed'], started_at::date from trials",
    ],
)
def test_a_select_or_explain_is_answered(stored, query):
    assert len(stored.sql(query)) >= 1


def test_all_tables_are_seen_where_none_is_named(stored):
    names = stored.sql("select table_name from information_schema.tables")["table_name"].to_pylist()
    assert set(names) == set(SCHEMAS)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "-- nothing",
        "select 1; select 2",
        "select 1; drop view masks",
        "create table x as select 1",
        "create view trials as select 1",
        "create macro mask_kept(a) as 0",
        "create temp table x as select 1",
        "create secret s (type s3)",
        "drop view masks",
        "insert into trials select * from trials",
        "update trials set lr = 0",
        "delete from masks",
        "truncate masks",
        "alter table trials drop column lr",
        "with x as (insert into trials select * from trials returning 1) select * from x",
        "explain analyze insert into trials select * from trials",
        "explain analyze create table x as select 1",
        "explain analyze copy (select 1) to '{out}'",
        "copy (select 1) to '{out}'",
        "copy trials from '{secret}'",
        "export database '{out}'",
        "import database '{secret}'",
        "attach '{out}' as other",
        "detach memory",
        "use memory",
        "install httpfs",
        "load httpfs",
        "set enable_external_access = true",
        "set lock_configuration = false",
        "set threads = 1",
        "reset enable_external_access",
        "pragma enable_external_access",
        "pragma database_list",
        "call pragma_version()",
        "prepare x as select 1",
        "execute x",
        "begin transaction",
        "commit",
        "rollback; create table x as select 1",
        "checkpoint",
        "vacuum",
        "analyze",
        "select * from read_text('{secret}')",
        "select * from read_blob('{secret}')",
        "select * from read_csv('{secret}')",
        "select * from read_json('{secret}')",
        "select * from read_parquet('{secret}')",
        "select * from parquet_metadata('{secret}')",
        "select * from sniff_csv('{secret}')",
        "select * from '{secret}'",
        "select * from glob('/*')",
        "select * from query_table('{secret}')",
        "select * from query('drop view masks')",
        "select * from query('select * from ''{secret}''')",
        "select * from read_text('http://127.0.0.1:9/x')",
        "select * from 's3://bucket/x.parquet'",
        "select * from sqlite_scan('{secret}', 'x')",
        "select * from enable_logging(storage = 'file', storage_path = '{out}')",
        "select * from enable_profiling(save_location = '{out}')",
        "select * from duckdb_secrets()",
        "select * from duckdb_extensions()",
        "select getenv('HOME')",
        "select * from arrow_scan(1, 2, 3)",
        "select * from a_python_variable",
        "select load_extension('httpfs')",
    ],
)
def test_a_query_reads_the_database_and_nothing_else(stored, query, tmp_path):
    a_python_variable = stored.trials()
    assert len(a_python_variable) == 2
    secret, out = tmp_path / "secret.csv", tmp_path / "out"
    secret.write_text("word\nswordfish\n")
    before = _snapshot(tmp_path)
    with pytest.raises(QueryError) as caught:
        stored.sql(query.replace("{secret}", str(secret)).replace("{out}", str(out)))
    assert "\n" not in str(caught.value)
    assert "swordfish" not in str(caught.value)
    assert _snapshot(tmp_path) == before
    assert stored.sql("select count(*) c, max(mask_kept(bits)) from masks")["c"][0].as_py() == 8


def _snapshot(folder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("selec 1", "syntax error"),
        (
            "select * from mask",
            r'mask does not exist! Did you mean "masks"\? '
            r"\(the views are sweeps, trials, replicates, masks, curves, comparisons, tickets\)$",
        ),
        ("select * from attribute", r"attribute does not exist! \(the views are sweeps"),
        (
            "select layr from masks",
            r'no column "layr" in what the query selects from; nearest: "layer", "layer_index", '
            r'"sparsity" \(masks has sweep, trial_id, .*, digest\)$',
        ),
        ("select m.layr from masks m", r'named "layr" \(masks has sweep, trial_id, '),
        ("select zzz from masks join trials using (trial_id)", r'"zzz" in .*; nearest: "size"$'),
        ("", r"^the query is empty"),
        ("-- nothing", r"^the query is empty"),
        (
            "select mask_jaccard(a.bits, b.bits) from masks a join masks b using (trial_id)",
            r"different sizes \(mask_\* needs masks of the same layer: join on layer\)$",
        ),
        ("select 'a'::int from masks", "Could not convert"),
        ("select error('mine') from masks", "mine"),
    ],
)
def test_a_sql_error_is_one_line(stored, query, message):
    with pytest.raises(QueryError) as caught:
        stored.sql(query)
    assert re.search(message, str(caught.value))
    assert "\n" not in str(caught.value)
    assert stored.warnings == ()


def test_a_long_query_can_be_interrupted(stored):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
    start = time.monotonic()
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            stored.sql("select count(*) from range(1000000000) a, range(1000000) b where a <> b")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert time.monotonic() - start < 20


def test_filters_on_nan_null_and_time_mean_what_they_mean_in_sql(storage):
    values = [0.1, None, math.nan, math.inf, -0.0]
    for index, value in enumerate(values):
        trial = {"trial_id": f"t{index}", "status": "complete", "stability": value}
        write_trial(storage, "a", TrialRows(trial))
    database, rows = Database(storage), Database(storage).trials()
    for condition in ("> 0.05", "< 0.05", "= 0", "is null", "<> 0.1", "= 'nan'", "between 0 and 1"):
        query = f"select trial_id from trials where stability {condition} order by 1"
        # the same rows as a plain table, where nothing can be pushed down to a file
        assert database.sql(query) == run_query(query, {"trials": rows}, {}, ALL), condition


@pytest.mark.parametrize("where", ["sweep = 'b'", "trial_id = 't1'", "sweep > 'a'"])
def test_a_filter_on_sweep_or_trial_reads_no_other_file(storage, make_trial, where):
    write_trial(storage, "a", make_trial("t0"))
    write_trial(storage, "b", make_trial("t1"))
    path = storage.local / "masks/sweep=a/t0.parquet"
    layer = pq.read_metadata(path).row_group(0).column(4)
    data = bytearray(path.read_bytes())
    data[layer.dictionary_page_offset + layer.total_compressed_size - 1] ^= 1  # in its last page
    path.write_bytes(data)
    database = Database(storage)
    answer = database.sql(f"select distinct trial_id, layer from masks where {where} order by 2")
    assert answer["trial_id"].to_pylist() == ["t1", "t1"]
    assert database.warnings == ()
    database.sql("select distinct layer from masks")
    assert "masks/sweep=a/t0.parquet" in database.warnings[0]


def test_a_layer_without_gates_has_macros_too(storage):
    mask = MaskRow.from_array(
        np.zeros((0, 3), np.bool_), replicate=0, step=0, layer="none", layer_index=0
    )
    write_trial(storage, "a", TrialRows({"trial_id": "t", "status": "complete"}, masks=[mask]))
    query = "select mask_kept(bits) k, mask_jaccard(bits, bits) j from masks"
    assert Database(storage).sql(query).to_pylist() == [{"k": 0, "j": None}]


@pytest.mark.parametrize("kind", [OSError, ValueError, MemoryError])
def test_what_is_done_with_an_answer_may_fail_without_blame_for_the_database(
    stored, monkeypatch, kind
):
    calls, error = [], kind("no space left")

    def consume(rows: pa.RecordBatchReader) -> None:
        calls.append(rows.read_all().num_rows)
        raise error

    monkeypatch.setattr("ticketsweep.store.catalogue.check_pages", lambda *_: pytest.fail("read"))
    with pytest.raises(kind) as raised:
        stored.sql_stream("select * from masks", None, consume)
    assert raised.value is error
    assert (len(calls), stored.warnings) == (1, ())


def test_an_interrupt_that_comes_when_the_query_has_just_ended_is_one(monkeypatch):
    def late(answers, timeout=None):
        ended = wait(answers, 60)
        if timeout is None:
            raise KeyboardInterrupt
        return ended

    monkeypatch.setattr("ticketsweep.store.sql.wait", late)
    with pytest.raises(KeyboardInterrupt):
        run_query("select 1", {}, {}, ALL)


def test_stdout_has_the_answer_of_a_long_query_and_nothing_else():
    # Without a script of its own, Python counts as interactive, and DuckDB draws progress bars.
    query = (
        "select count(*) n, current_setting('enable_progress_bar') bar "
        "from range(40000) a, range(8000) b where hash(a.range + b.range) >= 0"
    )
    code = (
        "import sys, pyarrow as pa; from ticketsweep.store.sql import run_query; "
        "print(run_query(sys.argv[1], {}, {}, pa.RecordBatchReader.read_all).to_pylist())"
    )
    line = [sys.executable, "-c", code, query]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout == "[{'n': 320000000, 'bar': False}]\n"
