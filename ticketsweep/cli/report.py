"""The command that writes a sweep's report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ticketsweep.cli.notes import note, notes, waiting
from ticketsweep.cli.options import StorageOption
from ticketsweep.errors import UserError


def report(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A sweep.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write.  [default: NAME.html, here]"),
    ] = None,
    storage: StorageOption = None,
) -> None:
    """Write one HTML file that shows what a sweep has found; it needs no network."""
    target = out or Path(f"{name}.html")
    check_writable(target)
    from datetime import UTC, datetime

    from ticketsweep.results.report import report_data
    from ticketsweep.results.sweeps import sweep_named, sweep_views
    from ticketsweep.store.database import open_database
    from ticketsweep.store.paths import default_storage

    database = open_database(storage or default_storage())
    views = sweep_views(database.sweeps().to_pylist(), database.trials().to_pylist())
    view = sweep_named(views, name, storage=database.storage.uri)
    with waiting("comparing masks and drawing"):
        from ticketsweep.report.page import report_page
        from ticketsweep.sweep.importance import importances

        data = report_data(
            database,
            view,
            importance=importances(view.trials, view.objectives),
            storage=storage,
        )
        page = report_page(data, made=datetime.now(UTC))
    notes(database.warnings)
    write_whole(target, page)
    note(f"report of sweep {name} written to {target} ({len(page.encode()) / 1e6:.1f} MB)")


def check_writable(target: Path) -> None:
    """Raises UserError where a file cannot be meant: a folder, or one in a folder that is not."""
    if target.is_dir():
        raise UserError(f"--out must be a file, got {target} (a folder; name a file in it)")
    if not target.parent.is_dir():
        raise UserError(f"--out {target}: there is no folder {target.parent} (make it first)")


def write_whole(target: Path, text: str) -> None:
    """Write to a temporary name beside the target, then rename: no reader sees half a page.

    Raises
    ------
    UserError: the folder takes no file, or the disk is full.
    """
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        draft.write_text(text, encoding="utf-8", newline="\n")
        draft.replace(target)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise UserError(f"--out {target} cannot be written: {error.strerror or error}") from None
