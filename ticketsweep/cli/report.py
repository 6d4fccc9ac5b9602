"""The command that writes a sweep's report."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ticketsweep.cli.notes import note, notes, waiting
from ticketsweep.cli.options import FigureFormat, StorageOption, Tracking
from ticketsweep.errors import UserError

if TYPE_CHECKING:
    from ticketsweep.results.report import ReportData
    from ticketsweep.store.paths import Storage


def report(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A sweep.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write.  [default: NAME.html, here]"),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A folder for its figures too, made for papers, each with its table as CSV and "
            "LaTeX. Needs Chrome or Chromium.",
        ),
    ] = None,
    figure_format: Annotated[
        list[FigureFormat] | None,
        typer.Option(
            metavar="png|svg|pdf", help="Of the figures; may be repeated.  [default: all three]"
        ),
    ] = None,
    all_figures: Annotated[
        bool,
        typer.Option(
            "--all-figures", help="Those behind menus too, not only what the page shows first."
        ),
    ] = False,
    wandb: Annotated[
        Tracking | None,
        typer.Option(
            metavar="online|offline", help="Attach the page to the sweep's run at W&B too."
        ),
    ] = None,
    storage: StorageOption = None,
) -> None:
    """Write one HTML file that shows what a sweep has found; it needs no network."""
    target = out or Path(f"{name}.html")
    check_writable(target)
    if figures is None and (figure_format or all_figures):
        raise UserError("--figure-format and --all-figures go with --figures DIR")
    browser = _browser(figures) if figures is not None else ""
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
    if wandb is not None and wandb is not Tracking.OFF:
        _attach(target, database.storage, name, wandb)
    if figures is not None:
        formats = list(dict.fromkeys(figure_format or FigureFormat))
        _write_figures(figures, data, formats, every=all_figures, browser=browser)


def _attach(page: Path, storage: Storage, sweep: str, mode: Tracking) -> None:
    from ticketsweep.sweep.tracking import attach_report, how_to_upload

    attach_report(storage, sweep, page, mode=mode.value, warn=note)
    if left := how_to_upload(storage, sweep):
        note(f"attached to the sweep's run, which is offline; to upload it: {left}")
    else:
        note("attached to the sweep's run at W&B")


def _browser(folder: Path) -> str:
    """What draws the figures. Raises UserError where it or the folder is not as it must be."""
    from ticketsweep.report.files import check_folder, find_chrome

    check_folder(folder)
    return find_chrome()


def _write_figures(
    folder: Path, data: ReportData, formats: Sequence[str], *, every: bool, browser: str
) -> None:
    from rich.progress import Progress

    from ticketsweep.display.figures import plural
    from ticketsweep.display.terminal import stderr_console
    from ticketsweep.report.contents import drawn, sections
    from ticketsweep.report.files import shown_first, write_figures

    chosen = drawn(data) if every else shown_first(sections(data))
    if not chosen:
        note(f"sweep {data.name} has no figure yet, so nothing is written to {folder}")
        return
    told = f"{plural(len(chosen), 'figure')} as {', '.join(formats)}"
    note(f"drawing {told} …")
    console = stderr_console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("drawing", total=len(chosen) * len(formats))
        write_figures(
            folder,
            chosen,
            sweep=data.name,
            formats=formats,
            browser=browser,
            drawn=lambda: progress.advance(task),
        )
    note(f"{told}, with their tables as csv and tex, written to {folder}")


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
