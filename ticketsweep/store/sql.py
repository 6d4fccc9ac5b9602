"""SQL over the tables: DuckDB with everything but the tables locked away."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from ticketsweep.errors import QueryError
from ticketsweep.store.schema import SCHEMAS, Table

# DuckDB counts and combines the bits of a BLOB cast to BIT, but refuses to cast an empty one (of a
# layer without gates), and evaluates constants whatever CASE says: hence nullif.
_A, _B, _NONE = "nullif(a::BLOB, ''::BLOB)::BIT", "nullif(b::BLOB, ''::BLOB)::BIT", "''::BLOB"
_BOTH_EMPTY = f"a::BLOB = {_NONE} AND b::BLOB = {_NONE}"
MACROS: Mapping[str, str] = {
    "mask_kept": f"(a) AS CASE WHEN a::BLOB = {_NONE} THEN 0 ELSE bit_count({_A}) END",
    "mask_and": f"(a, b) AS CASE WHEN {_BOTH_EMPTY} THEN {_NONE} ELSE ({_A} & {_B})::BLOB END",
    "mask_hamming": f"(a, b) AS CASE WHEN {_BOTH_EMPTY} THEN 0 ELSE bit_count(xor({_A}, {_B})) END",
    "mask_jaccard": f"(a, b) AS bit_count({_A} & {_B})::DOUBLE / nullif(bit_count({_A} | {_B}), 0)",
}
"""Over the `bits` of two masks of one shape.

mask_kept(a)        number of open gates
mask_and(a, b)      the gates open in both, as bits
mask_hamming(a, b)  number of gates that differ (divide by `size` for the Hamming share)
mask_jaccard(a, b)  open in both / open in either; NULL where both masks are empty

Masks of different numbers of bytes are an error, as in DuckDB's own BIT functions.
"""

_ALLOWED = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
_LOCKED = {
    "enable_external_access": "false",
    "allow_community_extensions": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
}
_OF_THE_QUERY = (
    duckdb.ParserException,
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.ConversionException,
    duckdb.PermissionException,
    duckdb.OutOfMemoryException,
    duckdb.InterruptException,
)


class ScanError(QueryError):
    """The query failed while it ran: its own fault, or that of a file it read."""


def check_query(query: str) -> None:
    """Raises QueryError unless the query is one SELECT or EXPLAIN, as DuckDB's parser sees it."""
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise QueryError(_one_line(error)) from error
    if not statements:
        raise QueryError("the query is empty (write one SELECT)")
    if len(statements) != 1:
        raise QueryError(f"a query must be one statement, got {len(statements)}")
    if statements[0].type not in _ALLOWED:
        raise QueryError(
            f"a query must be a SELECT or EXPLAIN, got {statements[0].type.name} "
            f"(the database is read only)"
        )


def run_query(query: str, tables: Mapping[Table, ds.Dataset | pa.Table]) -> pa.Table:
    """The result of one SELECT or EXPLAIN over the given tables.

    Every query gets a connection of its own, in a read-only transaction, which reaches no file, no
    network, no extension, no Python variable and no setting.

    Raises ScanError if it fails while running, QueryError if it is not a valid query.
    """
    check_query(query)
    with duckdb.connect(":memory:", config=dict(_LOCKED)) as connection:
        for table, rows in tables.items():
            connection.register(table, rows)
        for name, body in MACROS.items():
            connection.execute(f"CREATE MACRO {name}{body}")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET lock_configuration = true")
        connection.execute("BEGIN TRANSACTION READ ONLY")
        try:
            return _interruptible(connection, query)
        except _OF_THE_QUERY as error:
            raise QueryError(_explained(error, query)) from error
        except duckdb.Error as error:
            raise ScanError(_explained(error, query)) from error


def _interruptible(connection: duckdb.DuckDBPyConnection, query: str) -> pa.Table:
    # DuckDB does not look at signals while it computes an Arrow table; this thread does.
    with ThreadPoolExecutor(1) as other:
        answer = other.submit(lambda: connection.sql(query).to_arrow_table())
        try:
            return answer.result()
        except KeyboardInterrupt:
            connection.interrupt()
            raise


def mentioned_tables(query: str) -> tuple[Table, ...]:
    """The tables whose name occurs in the query; all of them if none does.

    A table that is not mentioned cannot be read by the query, so its files need not be opened.
    """
    text = query.lower()
    found = tuple(table for table in SCHEMAS if table in text)
    return found or tuple(SCHEMAS)


_UNKNOWN_TABLE = re.compile(r"Table with name .+ does not exist")
_UNKNOWN_COLUMN = re.compile(
    r"Binder Error: Referenced column (?P<name>\".+\") not found in FROM clause!"
    r"(?: Candidate bindings: (?P<near>.+))?"
)
_UNKNOWN_COLUMN_OF = re.compile(r'Values list ".+" does not have a column named')
_UNEQUAL_BITS = re.compile(r"Invalid Input Error: Cannot (AND|OR|XOR) bit strings of different")


def _explained(error: duckdb.Error, query: str) -> str:
    """What DuckDB says on one line, with what the database has in place of what it lacks."""
    message = _one_line(error)
    if _UNKNOWN_TABLE.search(message):
        what, _, near = message.partition(" Did you mean ")
        own = near.strip('"?') in SCHEMAS  # DuckDB would as soon name one of its own tables
        return f"{message if own else what} (the views are {', '.join(SCHEMAS)})"
    if _UNEQUAL_BITS.match(message):
        return f"{message} (mask_* needs masks of the same layer: join on layer)"
    if found := _UNKNOWN_COLUMN.fullmatch(message):
        near = found["near"]
        message = f"Binder Error: there is no column {found['name']} in what the query selects from"
        return f"{message}{f'; nearest: {near}' if near else ''}{_columns(query)}"
    if _UNKNOWN_COLUMN_OF.search(message):
        return f"{message}{_columns(query)}"
    return message


def _columns(query: str) -> str:
    """The columns of the view that a query names, if it names but one."""
    named = mentioned_tables(query)
    if len(named) != 1:
        return ""
    return f" ({named[0]} has {', '.join(SCHEMAS[named[0]].names)})"


def _one_line(error: duckdb.Error) -> str:
    # DuckDB appends the query with a caret below it, after an empty line.
    message = str(error).split("\n\nLINE ")[0]
    return " ".join(message.split())
