"""The commands that read the mask database: `list` and `query`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ticketsweep.cli.notes import note, notes, waiting
from ticketsweep.cli.options import Listing, QueryFormat, StorageOption
from ticketsweep.errors import UserError

INTERRUPTED = 130  # the exit code of a command that Ctrl-C has ended


def list_(
    what: Annotated[Listing, typer.Argument(help="What to list.")],
    storage: StorageOption = None,
) -> None:
    """List sweeps of a storage, search spaces of ./search_spaces, or what settings may name."""
    from ticketsweep.display.catalogue import names_table, spaces_table
    from ticketsweep.display.sweeps import list_table
    from ticketsweep.display.terminal import show, stdout_console
    from ticketsweep.names import CONTROLS, DATASETS, GATES, MODELS

    console = stdout_console()
    known = {
        Listing.MODELS: MODELS,
        Listing.DATASETS: DATASETS,
        Listing.GATES: GATES,
        Listing.CONTROLS: CONTROLS,
    }
    if what in known:
        show(console, names_table(known[what]))
    elif what is Listing.SPACES:
        show(console, spaces_table(console, Path("search_spaces")))
    else:
        from ticketsweep.results.sweeps import sweep_views
        from ticketsweep.store.database import open_database
        from ticketsweep.store.paths import default_storage

        database = open_database(storage or default_storage())
        views = sweep_views(database.sweeps().to_pylist(), database.trials().to_pylist())
        show(console, list_table(console, views))
        notes(database.warnings)


def query(
    sql: Annotated[
        str,
        typer.Argument(
            metavar="SQL",
            help="One SELECT over sweeps, trials, replicates, masks, tickets (the masks at each "
            "trial's last step), curves and comparisons; besides DuckDB's functions there are "
            "mask_kept, mask_and, mask_or, mask_hamming, mask_jaccard, mask_overlap_chance and "
            "mask_bits.",
        ),
    ],
    parameters: Annotated[
        list[str] | None,
        typer.Option(
            "--param",
            metavar="NAME=VALUE",
            help="What $NAME stands for in the query; may be repeated.",
        ),
    ] = None,
    output: Annotated[
        QueryFormat | None,
        typer.Option("--format", help="Format of the answer.  [default: as --out ends, or table]"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write to a file instead of stdout.")
    ] = None,
    storage: StorageOption = None,
) -> None:
    """Ask the mask database in SQL."""
    wanted = query_format(output, out)
    bound = query_parameters(parameters or [])
    import pyarrow as pa

    from ticketsweep.display.records import (
        Head,
        as_table,
        as_text,
        head_of,
        with_distinct_names,
        write_answer,
    )
    from ticketsweep.display.terminal import emit_all, show, stdout_console
    from ticketsweep.store.database import open_database
    from ticketsweep.store.paths import default_storage
    from ticketsweep.store.sql import StuckQuery

    database = open_database(storage or default_storage())
    with tempfile.TemporaryFile("w+", encoding="utf-8", newline="") as text:

        def consume(answer: pa.RecordBatchReader) -> Head | int:
            rows = with_distinct_names(answer)
            if out is not None:
                return write_answer(rows, out, wanted.value)
            if wanted is QueryFormat.TABLE:
                return head_of(rows)
            try:
                text.seek(0)  # what a damaged file has broken off is written anew
                text.truncate()
                text.writelines(as_text(rows, wanted.value))
                text.flush()
            except OSError as error:
                raise UserError(
                    f"the answer cannot be kept in {tempfile.gettempdir()} until it is whole: "
                    f"{error.strerror or error} (free some space there, set TMPDIR, or write to a "
                    f"file with --out)"
                ) from None
            return text.tell()

        try:
            with waiting("querying, Ctrl-C ends it"):
                found = database.sql_stream(sql, bound, consume)
        except StuckQuery:
            os._exit(INTERRUPTED)
        notes(database.warnings)
        for name in database.crowded:
            note(
                f"sweep {name} has many small files: `ticketsweep masks compact {name}` merges them"
            )
        if isinstance(found, Head):
            console = stdout_console()
            show(console, as_table(console, found))
        elif out is not None:
            note(f"{found:,} rows written to {out}")
        else:
            text.seek(0)
            emit_all(text)


def query_parameters(assignments: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` as name -> value; SQL makes a number of a text that is compared with one."""
    bound: dict[str, str] = {}
    for each in assignments:
        name, equals, value = each.partition("=")
        if not (name.isidentifier() and equals):
            raise UserError(f"--param must be NAME=VALUE, got {each!r} (for $NAME in the query)")
        if name in bound:
            raise UserError(f"--param {name} is given twice")
        bound[name] = value
    return bound


def query_format(asked: QueryFormat | None, out: Path | None) -> QueryFormat:
    """The format asked for, or the one that the file's name says; refuses what does not go."""
    files = [QueryFormat.CSV, QueryFormat.JSON, QueryFormat.PARQUET]
    if out is None:
        if asked is QueryFormat.PARQUET:
            raise UserError("--format parquet needs --out FILE: it is not text")
        return asked or QueryFormat.TABLE
    ending = out.suffix.removeprefix(".")
    wanted = asked or (QueryFormat(ending) if ending in files else None)
    if wanted not in files:
        raise UserError(f"--out {out} needs --format csv, json or parquet (a table is for reading)")
    return wanted
