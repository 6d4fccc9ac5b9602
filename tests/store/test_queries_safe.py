"""What a query may not do: each line is an attempt to reach beyond the database, or to stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import duckdb
import pyarrow as pa
import pytest

from ticketsweep.errors import QueryError
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.sql import check_query
from ticketsweep.store.writer import write_trial

WORD = "swordfish"


@pytest.fixture(scope="module")
def stored(tmp_path_factory, make_trial) -> Database:
    storage = Storage.open(str(tmp_path_factory.mktemp("stored")), create=True)
    write_trial(storage, "a", make_trial("t0"))
    return Database(storage)


NOT_A_SELECT = """
update extensions
force install httpfs
install spatial from community
load '{secret}'
attach ':memory:' as y
attach if not exists '{secret}' as y (read_only)
comment on table masks is 'x'
create or replace temp view masks as select 1
create schema s
create sequence s
create type t as enum ('a')
create index i on masks (layer)
merge into masks using masks m on true when matched then delete
set variable x = 1
set session threads = 4
set global enable_external_access = true
reset session threads
pragma threads = 4
pragma enable_progress_bar
pragma json_execute_serialized_sql('x')
/* select */ drop table masks
; create table x as select 1
select 1 /* ; */ ; drop view masks
select 1; select getenv('HOME')
pivot masks on layer using count(*)
copy masks to '{out}' (format parquet)
copy (select * from masks) to program 'touch {out}'
copy from database memory to other
call pragma_version()
execute immediate 'select 1'
deallocate x
abort
with x as materialized (delete from masks returning *) select * from x
with x as (copy masks to '{out}') select 1
select * from (insert into masks values (1)) x
""".strip().splitlines()

REACHES_OUT = """
explain analyze copy masks to '{out}'
explain analyze copy (select 1) to ':memory:'
select * from read_text(':memory:')
select * from read_text(':memory:.wal')
explain copy masks to '{out}'
explain (analyze) create table y as select 1
explain analyze delete from masks
explain analyze set threads = 4
explain analyze attach '{out}' as y
explain analyze load '{secret}'
explain analyze pragma database_list
describe select * from read_csv('{secret}')
describe '{secret}'
summarize '{secret}'
select * from parquet_scan('{secret}')
select * from read_ndjson('{secret}')
select * from read_json_objects('{secret}')
select * from read_csv_auto('{secret}')
select * from read_duckdb('{secret}')
select * from parquet_schema('{secret}')
select * from parquet_file_metadata('{secret}')
select * from parquet_kv_metadata('{secret}')
select * from parquet_bloom_probe('{secret}', 'x', 1)
select * from "{secret}"
select * from 'file://{secret}'
select * from read_text(['{secret}'])
select * from read_text((select '{secret}'))
select * from main.read_text('{secret}')
select * from system.main.read_text('{secret}')
select * from system.main.glob('/*')
select * from read_blob('/proc/self/environ')
select hash(content) from read_text('/etc/passwd')
select list_transform(['{secret}'], lambda x: (select content from read_text(x)))
select * from unnest((select list(file) from glob('*')))
select * from read_text('{secret}') union all select null, null, null, null
select (select content from read_text('{secret}'))
select exists (from read_text('{secret}'))
select 1 where (select count(*) from glob('{secret}')) > 0
with recursive r as (select content from read_text('{secret}') union all select '' from r) from r
select * from json_execute_serialized_sql(json_serialize_sql('from read_text(''{secret}'')'))
select * from query('from read_text(''{secret}'')')
select * from query('from frame')
select * from frame
select * from query_table('frame')
select * from query_table(['masks', 'frame'])
select * from pandas_scan(1)
select * from arrow_scan_dumb(1, 2, 3)
select * from python_map_function(1)
select\u00a0*\u00a0from\u00a0read_text('{secret}')
select * from read\u200b_text('{secret}')
select * from \uff52ead_text('{secret}')
select * from READ_TEXT('{secret}')
select * from read_text(U&'{secret}')
select * from read_text('{secret}' || chr(0))
select * from duckdb_extensions()
select * from duckdb_secrets()
select * from which_secret('s3://x', 's3')
select getenv('HOME')
select printf('%s', getenv('HOME'))
select * from st_read('{secret}')
select * from sqlite_attach('{secret}')
select * from postgres_scan('host=127.0.0.1', 'a', 'b')
select * from read_csv('https://127.0.0.1:9/x')
select * from 'hf://datasets/a/b.parquet'
select http_get('http://127.0.0.1:9')
select * from force_checkpoint()
select * from enable_logging(level = 'trace')
select * from disable_logging()
select * from enable_profiling(format = 'json', save_location = '{out}')
select * from sniff_csv('{secret}')
select load_extension('{secret}')
select nextval('x')
""".strip().splitlines()


@pytest.mark.parametrize("query", [*NOT_A_SELECT, *REACHES_OUT])
def test_an_attempt_is_refused_and_leaves_no_trace(stored, query, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = pa.table({"word": [WORD]})
    assert len(frame) == 1
    secret, out = tmp_path / "secret.csv", tmp_path / "out"
    secret.write_text(f"word\n{WORD}\n")
    text = query.encode().decode("unicode_escape") if "\\u" in query else query
    with pytest.raises(QueryError) as caught:
        stored.sql(text.replace("{secret}", str(secret)).replace("{out}", str(out)))
    said = str(caught.value)
    assert "\n" not in said
    assert WORD not in said
    assert os.path.expanduser("~/.duckdb") not in said  # noqa: PTH111
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]
    assert len(stored.masks()) == 4


def test_what_is_no_select_is_refused_by_its_kind_before_anything_runs():
    for query in NOT_A_SELECT:
        if not query.startswith(("with", "select * from (")):
            with pytest.raises(QueryError):
                check_query(query, {})


@pytest.mark.parametrize(
    "query",
    [
        "select value from duckdb_settings() where name like '%director%' and value like '/%'",
        "select path from duckdb_databases() where path is not null",
        "select * from duckdb_views() where not internal and sql like '%/%'",
        "select * from duckdb_logs()",
        "select * from duckdb_temporary_files()",
        "select * from duckdb_variables()",
        "select * from duckdb_prepared_statements()",
        "select * from duckdb_external_file_cache()",
    ],
)
def test_what_the_engine_tells_of_itself_names_no_place(stored, query):
    assert len(stored.sql(query)) == 0


def test_every_setting_that_opens_a_door_is_shut_and_locked(stored):
    wanted = {
        "enable_external_access": "false",
        "allow_community_extensions": "false",
        "allow_unsigned_extensions": "false",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "python_enable_replacements": "false",
        "lock_configuration": "true",
        "temp_directory": "",
        "allowed_directories": "[]",
        "allowed_paths": "[]",
    }
    for name, value in wanted.items():
        answer = stored.sql("select current_setting($name)::varchar v", {"name": name})
        assert answer["v"].to_pylist() == [value], name


TOO_DEEP = {
    "parentheses": "select " + "(" * 10_000 + "1" + ")" * 10_000,
    "sums": "select 1" + "+1" * 100_000,
    "lists": "select " + "[" * 5_000 + "1" + "]" * 5_000,
    "subqueries": "select * from " + "(select * from " * 2_000 + "range(1)" + ")" * 2_000,
    "nots": "select " + "not " * 100_000 + "true",
}


@pytest.mark.parametrize("what", TOO_DEEP)
def test_a_query_that_is_nested_without_end_is_an_error_and_no_crash(stored, what):
    with pytest.raises(QueryError, match="depth"):
        stored.sql(TOO_DEEP[what])


def test_a_query_that_wants_all_memory_is_refused(stored):
    with pytest.raises(QueryError, match=r"too much memory: .* \(select fewer columns or rows"):
        stored.sql("select list(range) from range(10000000000)")


ENDLESS = {
    "joins": "select count(*) from range(1000000000) a, range(1000000) b where a.range <> b.range",
    "recursion": "with recursive r(i) as (select 1 union all select i+1 from r) from r",
    "sleep": "select pg_sleep(1000)",
    "rows": "select * from range(100000000000)",
    "one function that hears nothing": "select lpad('x', 2000000000, 'y')",
}


@pytest.mark.parametrize("what", ENDLESS)
def test_ctrl_c_ends_a_query_within_a_second_and_without_a_traceback(stored, what):
    code = "from ticketsweep.cli import main; main()"
    line = [sys.executable, "-c", code, "query", ENDLESS[what], "--format", "csv"]
    with subprocess.Popen(
        [*line, "--storage", stored.storage.uri],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        said = process.stderr.readline()
        assert said == "querying, Ctrl-C ends it …\n"
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        out, err = process.communicate(timeout=30)
        took = time.monotonic() - start
    assert process.returncode == 130
    assert took < 2.5
    assert out == ""
    assert "Traceback" not in err


def test_the_engine_itself_still_knows_what_is_refused():
    # Else a renamed function would make an attempt above pass for the wrong reason.
    with duckdb.connect() as connection:
        functions = connection.sql("select distinct function_name from duckdb_functions()")
        known = {name for (name,) in functions.fetchall()}
    assert {"read_text", "read_blob", "read_csv", "read_parquet", "glob", "query_table"} <= known
