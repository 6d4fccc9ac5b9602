"""SQL over the tables: DuckDB with everything but the tables locked away."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from ticketsweep.errors import QueryError, did_you_mean
from ticketsweep.store.pruning import without_ruled_out
from ticketsweep.store.scanning import Answer, ScanError
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

VIEWS: Mapping[str, tuple[Table, str]] = {
    "tickets": (
        "masks",
        "SELECT * FROM masks SEMI JOIN (SELECT sweep, trial_id, max(step) AS step FROM masks "
        "GROUP BY ALL) USING (sweep, trial_id, step)",
    ),
}
"""Views of one table each.

tickets             the masks of each trial at its last step: all of them, where there are no
                    snapshots of earlier steps
"""

_ALLOWED = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
_MEMORY_MIB = 1024  # of tables that the engine builds; what it scans comes on top
_LOCKED = {
    "allow_community_extensions": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "temp_directory": "",
    # Nothing is read from there, but an error would name the user's folder.
    "extension_directory": "none",
    "secret_directory": "none",
    "memory_limit": f"{_MEMORY_MIB}MiB",
    "threads": str(min(4, os.cpu_count() or 1)),
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
# The same errors of a query whose answer is being read: Arrow hands them on as texts.
_NAMED_OF_THE_QUERY = re.compile(
    r"(Parser|Binder|Catalog|Conversion|Permission|Out of Memory|INTERRUPT) Error"
)
_NO_MEMORY = re.compile(r"Out of Memory Error: ([^()]+ \([^()]+\))")
_ROWS = 2048  # of a batch at most: the engine's own vectors, which it does not join
_GRACE_SECONDS = 0.5  # what an interrupted query is given to end


class StuckQuery(KeyboardInterrupt):
    """An interrupted query has not ended yet: its thread computes on, for how long nobody knows.

    The interpreter cannot be shut down in order meanwhile; `os._exit` ends the process.
    """


def check_query(query: str, parameters: Mapping[str, object]) -> None:
    """Raises QueryError unless the query is one SELECT or EXPLAIN, as DuckDB's parser sees it.

    Each `$name` in it must have a value in `parameters`, which must have no others.
    """
    try:
        statements = duckdb.extract_statements(query)
        types = [statement.type for statement in statements]
    except duckdb.Error as error:
        raise QueryError(_one_line(error)) from error
    except ValueError as error:  # a kind of statement that the engine's Python side cannot name
        raise QueryError("a query must be a SELECT or EXPLAIN") from error
    if not statements:
        raise QueryError("the query is empty (write one SELECT)")
    if len(statements) != 1:
        raise QueryError(f"a query must be one statement, got {len(statements)}")
    if types[0] not in _ALLOWED:
        raise QueryError(
            f"a query must be a SELECT or EXPLAIN, got {types[0].name} (the database is read only)"
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
    consume: Callable[[pa.RecordBatchReader], Answer],
) -> Answer:
    """What `consume` makes of the answer to one SELECT or EXPLAIN over the given tables.

    Every query gets a connection of its own, in a read-only transaction, which reaches no file, no
    network, no extension, no Python variable and no setting. It runs, and its answer is consumed,
    in another thread, so that this one hears signals.

    Parameters
    ----------
    parameters: what is bound to the query's `$name`s.
    consume: is handed the rows in batches of as many as the engine holds anyway.

    Raises ScanError if it fails while running, QueryError if it is not a valid query, and within a
    second of Ctrl-C KeyboardInterrupt, which is a StuckQuery where the engine does not hear of it.
    """
    check_query(query, parameters)
    connection = _locked_connection()
    answer: Future[Answer] = Future()

    def work() -> None:
        try:
            with connection:
                found = _run(connection, query, tables, parameters, consume)
        except BaseException as error:
            answer.set_exception(error)
        else:  # once the engine has let go of all it held
            answer.set_result(found)

    # A daemon, and not joined: the engine looks for an interrupt between two functions, and one of
    # them may take minutes.
    threading.Thread(target=work, name="query", daemon=True).start()
    try:
        wait([answer])
    except KeyboardInterrupt as stop:
        with suppress(duckdb.Error):  # it has ended, and is closed
            connection.interrupt()
        if wait([answer], _GRACE_SECONDS).not_done:
            raise StuckQuery from stop
        raise
    return answer.result()


def _locked_connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:", config=dict(_LOCKED))
    # A connection that begins without external access may read and write the files of its own
    # database, which for one in memory are called `:memory:` and lie in the working folder.
    connection.execute("SET allowed_paths = []")
    # Where Python has no script (`-c`, a notebook), connecting turns it on, whatever `config` says,
    # and it writes to stdout.
    connection.execute("SET enable_progress_bar = false")
    connection.execute("SET enable_external_access = false")
    return connection


def _run(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    tables: Mapping[Table, ds.Dataset | pa.Table],
    parameters: Mapping[str, object],
    consume: Callable[[pa.RecordBatchReader], Answer],
) -> Answer:
    for table, rows in tables.items():
        connection.register(table, rows)
    for view, (table, select) in VIEWS.items():
        if table in tables and view in query.lower():
            connection.execute(f"CREATE TEMP VIEW {view} AS {select}")
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
        reader = connection.sql(query, params=dict(parameters) or None).to_arrow_reader(_ROWS)
    except _OF_THE_QUERY as error:
        raise QueryError(_explained(error, query)) from error
    except duckdb.Error as error:
        raise ScanError(_explained(error, query)) from error
    rows = pa.RecordBatchReader.from_batches(reader.schema, _batches(reader, query))
    return consume(rows)


def _batches(reader: pa.RecordBatchReader, query: str) -> Iterator[pa.RecordBatch]:
    try:
        yield from reader
    except (pa.ArrowException, OSError, MemoryError) as error:
        kind = QueryError if _NAMED_OF_THE_QUERY.search(str(error)) else ScanError
        raise kind(_explained(error, query)) from error


def mentioned_tables(query: str) -> tuple[Table, ...]:
    """The tables whose name occurs in the query; all of them if none does.

    A table that is not mentioned cannot be read by the query, so its files need not be opened.
    """
    text = query.lower()
    behind = {table for view, (table, _) in VIEWS.items() if view in text}
    found = tuple(table for table in SCHEMAS if table in text or table in behind)
    return found or tuple(SCHEMAS)


_UNKNOWN_TABLE = re.compile(r"Table with name .+ does not exist")
_UNKNOWN_COLUMN = re.compile(
    r"Binder Error: Referenced column (?P<name>\".+\") not found in FROM clause!"
    r"(?: Candidate bindings: (?P<near>.+))?"
)
_UNKNOWN_COLUMN_OF = re.compile(r'Values list ".+" does not have a column named')
_UNEQUAL_BITS = re.compile(r"Invalid Input Error: Cannot (AND|OR|XOR) bit strings of different")


def _explained(error: Exception, query: str) -> str:
    """What DuckDB says on one line, with what the database has in place of what it lacks."""
    message = _one_line(error)
    if found := _NO_MEMORY.search(message):
        return (
            f"the query needs too much memory: {found[1]} (select fewer columns or rows, and of "
            f"pairs of masks a layer or a trial at a time)"
        )
    if _UNKNOWN_TABLE.search(message):
        what, _, near = message.partition(" Did you mean ")
        own = near.strip('"?') in {
            *SCHEMAS,
            *VIEWS,
        }  # DuckDB would as soon name one of its own tables
        return f"{message if own else what} (the views are {', '.join((*SCHEMAS, *VIEWS))})"
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


def _one_line(error: Exception) -> str:
    # DuckDB appends the query with a caret below it, after an empty line.
    message = str(error).split("\n\nLINE ")[0]
    return " ".join(message.split())
