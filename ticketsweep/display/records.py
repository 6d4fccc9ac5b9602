"""The answer to a query as a table to read, or as CSV, JSON or Parquet to work on."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
_BATCH = 1024  # rows turned into text at once, and batches of a row group
_ROW_GROUP = 1 << 24  # bytes of a row group in a file that is written


def with_distinct_names(answer: pa.RecordBatchReader) -> pa.RecordBatchReader:
    """The answer with columns of one name told apart: `layer`, `layer_1`."""
    names: list[str] = []
    for name in answer.schema.names:
        alike = (f"{name}_{n}" if n else name for n in itertools.count())
        names.append(next(each for each in alike if each not in names))
    fields = [field.with_name(name) for field, name in zip(answer.schema, names, strict=True)]
    batches = (batch.rename_columns(names) for batch in answer)
    return pa.RecordBatchReader.from_batches(pa.schema(fields), batches)


@dataclass(frozen=True)
class Head:
    """What of an answer is shown as a table: its first rows, and how many there are."""

    rows: pa.Table
    total: int


def head_of(answer: pa.RecordBatchReader) -> Head:
    """The first rows of an answer, and how many it has; the others are counted and not kept."""
    kept, total = [], 0
    for batch in answer:
        if total < TABLE_ROWS:
            kept.append(batch.slice(0, TABLE_ROWS - total))
        total += batch.num_rows
    return Head(pa.Table.from_batches(kept, answer.schema), total)


def as_table(console: Console, head: Head) -> RenderableType:
    """The first rows as a table, or one column below the other where that is too wide."""
    answer = head.rows
    rows = list(rows_of(answer.to_reader()))
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
    if shown < head.total:
        note = f"{shown} of {plural(head.total, 'row')} shown; --format csv or json has all"
    else:
        note = plural(head.total, "row")
    return Group(drawn, Text(f"({note})", style="dim"))


def rows_of(answer: pa.RecordBatchReader) -> Iterator[Row]:
    """The rows as plain values, a few at a time."""
    for batch in answer:
        for start in range(0, batch.num_rows, _BATCH):
            yield from batch.slice(start, _BATCH).to_pylist(maps_as_pydicts="lossy")


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


def as_text(answer: pa.RecordBatchReader, wanted: str) -> Iterator[str]:
    """The answer as "csv" or "json", in pieces."""
    rows = rows_of(answer)
    return as_csv(answer.schema.names, rows) if wanted == "csv" else as_json(rows)


def write_answer(answer: pa.RecordBatchReader, out: Path, wanted: str) -> int:
    """Write the answer to a file as "csv", "json" or "parquet"; returns the number of rows.

    Raises UserError where the file cannot be written.
    """
    rows = 0

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal rows
        for batch in answer:
            rows += batch.num_rows
            yield batch

    try:
        if wanted == "parquet":
            with out.open("wb") as file, pq.ParquetWriter(file, answer.schema) as writer:
                for table in _gathered(counted(), answer.schema):
                    writer.write_table(table)
        else:
            seen = pa.RecordBatchReader.from_batches(answer.schema, counted())
            with out.open("w", encoding="utf-8", newline="") as text:
                text.writelines(as_text(seen, wanted))
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"--out {out} cannot be written: {reason}") from None
    return rows


def _gathered(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """The batches as tables, each large enough for a row group of a Parquet file."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        if size >= _ROW_GROUP or len(held) >= _BATCH:
            yield pa.Table.from_batches(held, schema)
            held, size = [], 0
    if held:
        yield pa.Table.from_batches(held, schema)


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
