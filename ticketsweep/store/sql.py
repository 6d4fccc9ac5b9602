"""SQL over the tables: DuckDB with everything but the tables locked away."""

from __future__ import annotations

import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from ticketsweep.errors import QueryError, did_you_mean
from ticketsweep.store.pruning import without_ruled_out
from ticketsweep.store.schema import SCHEMAS, Table

# DuckDB counts and combines the bits of a BLOB cast to BIT, but refuses to cast an empty one (of a
# layer without gates), and evaluates constants whatever CASE says: hence nullif.
_A, _B, _NONE = "nullif(a::BLOB, ''::BLOB)::BIT", "nullif(b::BLOB, ''::BLOB)::BIT", "''::BLOB"
_BOTH_EMPTY = f"a::BLOB = {_NONE} AND b::BLOB = {_NONE}"
MACROS: Mapping[str, str] = {
    "mask_kept": f"(a) AS CASE WHEN a::BLOB = {_NONE} THEN 0 ELSE bit_count({_A}) END",
    "mask_and": f"(a, b) AS CASE WHEN {_BOTH_EMPTY} THEN {_NONE} ELSE ({_A} & {_B})::BLOB END",
    "mask_or": f"(a, b) AS CASE WHEN {_BOTH_EMPTY} THEN {_NONE} ELSE ({_A} | {_B})::BLOB END",
    "mask_hamming": f"(a, b) AS CASE WHEN {_BOTH_EMPTY} THEN 0 ELSE bit_count(xor({_A}, {_B})) END",
    "mask_jaccard": f"(a, b) AS bit_count({_A} & {_B})::DOUBLE / nullif(bit_count({_A} | {_B}), 0)",
    "mask_overlap_chance": "(a, b, n) AS mask_kept(a)::DOUBLE * mask_kept(b) / nullif(n, 0)",
    # DuckDB writes the bits of each byte with the highest first.
    "mask_bits": f"(a) AS CASE WHEN a::BLOB = {_NONE} THEN []::UTINYINT[] ELSE list_select("
    f"string_split({_A}::VARCHAR, ''), list_transform(range(8 * octet_length(a::BLOB)), "
    f"lambda i: (i // 8) * 8 + 8 - i % 8))::UTINYINT[] END",
}
"""Over the `bits` of two masks of one shape.

mask_kept(a)        number of open gates
mask_and(a, b)      the gates open in both, as bits
mask_or(a, b)       the gates open in either, as bits
mask_hamming(a, b)  number of gates that differ (divide by `size` for the Hamming share)
mask_jaccard(a, b)  open in both / open in either; NULL where both masks are empty
mask_overlap_chance(a, b, n)
                    how many of `n` gates (the column `size`) two masks that keep as many as these,
                    but at random, have in common on average: kept(a) * kept(b) / n
mask_bits(a)        a list of UTINYINT, 1 for an open gate and 0 for a shut one, in C order; the
                    last byte's padding is part of it: `mask_bits(bits)[:size]` is without

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


def check_query(query: str, parameters: Mapping[str, object]) -> None:
    """Raises QueryError unless the query is one SELECT or EXPLAIN, as DuckDB's parser sees it.

    Each `$name` in it must have a value in `parameters`, which must have no others.
    """
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
    named = statements[0].named_parameters
    if missing := sorted(named - parameters.keys()):
        raise QueryError(f"the query's parameter ${missing[0]} has no value")
    if unknown := sorted(parameters.keys() - named):
        hint = did_you_mean(unknown[0], named) if named else "it has no parameter"
        raise QueryError(f"the query has no parameter ${unknown[0]} ({hint})")


def run_query(
    query: str,
    tables: Mapping[Table, ds.Dataset | pa.Table],
    parameters: Mapping[str, object],
) -> pa.Table:
    """The result of one SELECT or EXPLAIN over the given tables, `parameters` bound to its `$name`.

    Every query gets a connection of its own, in a read-only transaction, which reaches no file, no
    network, no extension, no Python variable and no setting.

    Raises ScanError if it fails while running, QueryError if it is not a valid query.
    """
    check_query(query, parameters)
    with duckdb.connect(":memory:", config=dict(_LOCKED)) as connection:
        for table, rows in tables.items():
            connection.register(table, rows)
        for name, body in MACROS.items():
            connection.execute(f"CREATE MACRO {name}{body}")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET lock_configuration = true")
        masks = tables.get("masks")
        if isinstance(masks, ds.FileSystemDataset) and len(tables) == 1:
            connection.execute("BEGIN TRANSACTION READ ONLY")
            less = without_ruled_out(connection, query, parameters, masks)
            connection.execute("ROLLBACK")
            connection.register("masks", less)
        connection.execute("BEGIN TRANSACTION READ ONLY")
        try:
            return _interruptible(connection, query, parameters)
        except _OF_THE_QUERY as error:
            raise QueryError(_explained(error, query)) from error
        except duckdb.Error as error:
            raise ScanError(_explained(error, query)) from error


def _interruptible(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: Mapping[str, object]
) -> pa.Table:
    # DuckDB does not look at signals while it computes an Arrow table; this thread does.
    with ThreadPoolExecutor(1) as other:
        bound = dict(parameters) or None
        answer = other.submit(lambda: connection.sql(query, params=bound).to_arrow_table())
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
