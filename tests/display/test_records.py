from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ticketsweep.display.records import (
    RECORDS,
    TABLE_ROWS,
    as_table,
    as_text,
    head_of,
    plain,
    with_distinct_names,
    write_answer,
)
from ticketsweep.errors import UserError

EVERYTHING = pa.table(
    {
        "text": ["a,b", 'say "x"\nover two lines', None],
        "whole": pa.array([2**62, -1, None], pa.int64()),
        "number": [0.1, float("nan"), float("inf")],
        "bits": [b"\x00\xff", b"", None],
        "at": pa.array([datetime(2026, 1, 2, tzinfo=UTC)] * 3, pa.timestamp("us", tz="UTC")),
        "metrics": pa.array([[("loss", 0.5)], [], None], pa.map_(pa.string(), pa.float64())),
        "shape": [[3, 4], [], None],
    }
)


def drawn(answer, width):
    console = Console(width=width, file=io.StringIO(), markup=False, highlight=False)
    console.print(as_table(console, head_of(answer.to_reader())))
    return console.file.getvalue()


def test_json_is_one_document_with_every_kind_of_value():
    first, second, third = json.loads("".join(as_text(EVERYTHING.to_reader(), "json")))
    assert first == {
        "text": "a,b",
        "whole": 2**62,
        "number": 0.1,
        "bits": "00ff",
        "at": "2026-01-02T00:00:00+00:00",
        "metrics": {"loss": 0.5},
        "shape": [3, 4],
    }
    assert second["number"] is None
    assert third == dict.fromkeys(EVERYTHING.column_names) | {"at": first["at"]}


def test_an_empty_answer_is_an_empty_list_and_a_header():
    empty = EVERYTHING.slice(0, 0)
    assert json.loads("".join(as_text(empty.to_reader(), "json"))) == []
    assert list(csv.reader(as_text(empty.to_reader(), "csv"))) == [EVERYTHING.column_names]
    assert "(0 rows)" in drawn(empty, 200)


@given(
    st.lists(
        st.tuples(st.text() | st.none(), st.integers(-(2**63), 2**63 - 1) | st.none()), max_size=5
    )
)
def test_csv_and_json_say_what_the_answer_says(rows):
    answer = pa.table(
        {
            "text": pa.array([text for text, _ in rows], pa.string()),
            "n": pa.array([n for _, n in rows], pa.int64()),
        }
    )
    as_json = "".join(as_text(answer.to_reader(), "json"))
    assert [tuple(record.values()) for record in json.loads(as_json)] == rows
    as_csv = "".join(as_text(answer.to_reader(), "csv"))
    read = list(csv.reader(io.StringIO(as_csv, newline="")))[1:]
    assert read == [[text or "", "" if n is None else str(n)] for text, n in rows]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Decimal("170141183460469231731687303715884105727"), 2**127 - 1),
        (Decimal("0.5"), 0.5),
        (date(2026, 1, 2), "2026-01-02"),
        (timedelta(seconds=90), 90.0),
        ([("a", b"\x01")], [["a", "01"]]),
        (True, True),
    ],
)
def test_values_of_sql_become_values_of_json(value, expected):
    assert plain(value) == expected
    assert type(plain(value)) is type(expected)


def test_columns_of_one_name_are_all_kept():
    answer = duckdb.sql("select 1 as a, 2 as a_1, 3 as a").to_arrow_table()
    (record,) = json.loads("".join(as_text(with_distinct_names(answer.to_reader()), "json")))
    assert record == {"a": 1, "a_1": 2, "a_2": 3}


def test_a_long_table_is_cut_with_a_note():
    text = drawn(pa.table({"n": list(range(TABLE_ROWS + 1))}), 80)
    assert f"{TABLE_ROWS} of 101 rows shown" in text
    assert len(text.splitlines()) == TABLE_ROWS + 3


def test_a_table_too_wide_for_the_terminal_becomes_records_and_loses_no_column():
    names = [f"column_{i}" for i in range(30)]
    answer = pa.table({name: ["x" * 10] * 40 for name in names})
    text = drawn(answer, 80)
    assert all(name in text for name in names)
    assert max(map(len, text.splitlines())) <= 80
    assert f"{RECORDS} of 40 rows shown" in text


def test_masks_are_shortened_in_a_table():
    assert "(1,000 bytes)" in drawn(pa.table({"bits": [b"\xaa" * 1000]}), 200)


@pytest.mark.parametrize("wanted", ["csv", "json", "parquet"])
def test_a_file_holds_the_answer(tmp_path, wanted):
    out = tmp_path / f"answer.{wanted}"
    write_answer(EVERYTHING.to_reader(), out, wanted)
    if wanted == "parquet":
        assert pq.read_table(out).column_names == EVERYTHING.column_names
        assert pq.read_metadata(out).num_rows == 3
    else:
        assert out.read_text() == "".join(as_text(EVERYTHING.to_reader(), wanted))


@pytest.mark.parametrize("wanted", ["csv", "parquet"])
def test_a_file_that_cannot_be_written_is_the_users_to_mend(tmp_path, wanted):
    with pytest.raises(UserError, match=r"--out .* cannot be written: No such file"):
        write_answer(EVERYTHING.to_reader(), tmp_path / "no" / "folder", wanted)
