"""The answer to a query as a table to read, or as CSV, JSON or Parquet to work on."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console, Group, RenderableType
from rich.text import Text

from ticketsweep.display.figures import NONE, plural
from ticketsweep.display.terminal import Column, fits, table
from ticketsweep.errors import UserError
from ticketsweep.results.rows import Row, finite_number

TABLE_ROWS = 100
RECORDS = 20
_CELL = 60  # characters; longer values are for the other formats
_BATCH = 1024  # rows turned into text at once


def with_distinct_names(answer: pa.Table) -> pa.Table:
    """The answer with columns of one name told apart: `layer`, `layer_1`."""
    names: list[str] = []
    for name in answer.column_names:
        alike = (f"{name}_{n}" if n else name for n in itertools.count())
        names.append(next(each for each in alike if each not in names))
    return answer.rename_columns(names)


def as_table(console: Console, answer: pa.Table) -> RenderableType:
    """The first rows as a table, or one column below the other where that is too wide."""
    rows = list(rows_of(answer.slice(0, TABLE_ROWS)))
    names = answer.column_names
    columns = [
        Column(name, [_cell(row[name]) for row in rows], right=_is_numeric(answer.schema.types[i]))
        for i, name in enumerate(names)
    ]
    drawn: RenderableType = table(columns)
    shown = len(rows)
    if not fits(console, drawn):
        shown = min(shown, RECORDS)
        drawn = Group(*(_record(names, row) for row in rows[:shown]))
    if shown < answer.num_rows:
        note = f"{shown} of {plural(answer.num_rows, 'row')} shown; --format csv or json has all"
    else:
        note = plural(answer.num_rows, "row")
    return Group(drawn, Text(f"({note})", style="dim"))


def rows_of(answer: pa.Table) -> Iterator[Row]:
    """The rows as plain values, a batch at a time."""
    for batch in answer.to_batches(max_chunksize=_BATCH):
        yield from batch.to_pylist(maps_as_pydicts="lossy")


def as_csv(names: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
    """CSV with a header, line by line.

    Lists and maps are JSON, binary is hexadecimal, nothing stands for null.
    """
    yield _csv_line(names)
    for row in rows:
        yield _csv_line([_csv_cell(plain(row[name])) for name in names])


def as_json(rows: Iterable[Row]) -> Iterator[str]:
    """One JSON document, a list of records, record by record."""
    yield "["
    separator = "\n"
    for row in rows:
        yield separator + json.dumps(plain(row), allow_nan=False)
        separator = ",\n"
    yield "\n]\n"


def document(value: object) -> str:
    """Any value made of rows as one JSON document."""
    return json.dumps(plain(value), indent=2, allow_nan=False) + "\n"


def as_text(answer: pa.Table, wanted: str) -> Iterator[str]:
    """The answer as "csv" or "json", in pieces."""
    rows = rows_of(answer)
    return as_csv(answer.column_names, rows) if wanted == "csv" else as_json(rows)


def write_answer(answer: pa.Table, out: Path, wanted: str) -> None:
    """Write the answer to a file as "csv", "json" or "parquet".

    Raises UserError where the file cannot be written.
    """
    try:
        if wanted == "parquet":
            with out.open("wb") as file:
                pq.write_table(answer, file)
        else:
            with out.open("w", encoding="utf-8", newline="") as text:
                text.writelines(as_text(answer, wanted))
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"--out {out} cannot be written: {reason}") from None


def plain(value: Any) -> Any:
    """A value of Arrow's as JSON has it.

    Binary is hexadecimal, times are ISO 8601, intervals are seconds, and NaN and infinity, which
    JSON lacks, are null.
    """
    if isinstance(value, float):
        return finite_number(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Decimal):  # what SQL's sum of whole numbers is
        whole = value.is_finite() and value == value.to_integral_value()
        return int(value) if whole else finite_number(float(value))
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value)


def _record(names: list[str], row: Mapping[str, Any]) -> RenderableType:
    """One row as name and value, line by line."""
    width = max(len(name) for name in names)
    lines = [f"{name:>{width}}  {_cell(row[name])}" for name in names]
    return Text("\n".join([*lines, ""]), no_wrap=True, overflow="ellipsis")


def _cell(value: Any) -> str:
    if value is None:
        return NONE
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bytes):
        text = value.hex()
        return text if len(text) <= _CELL else f"{text[:16]}… ({plural(len(value), 'byte')})"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    shown = plain(value)
    text = shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= _CELL else f"{text[: _CELL - 1]}…"


def _csv_line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)  # quotes a lone \r only if its own lines end in \r\n
    return text.getvalue().removesuffix("\r\n") + "\n"


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _is_numeric(kind: pa.DataType) -> bool:
    types = pa.types
    return any((types.is_integer(kind), types.is_floating(kind), types.is_decimal(kind)))
