"""The command `status`: how far sweeps have come, once or as long as they run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from ticketsweep.cli.notes import note, notes
from ticketsweep.cli.options import FormatOption, ResultFormat, StorageOption
from ticketsweep.errors import StorageError, UserError

if TYPE_CHECKING:
    from datetime import datetime

    from ticketsweep.results.standing import Standing
    from ticketsweep.store.database import Database
    from ticketsweep.store.paths import Storage

INTERRUPTED = 130
MOST_ROWS = 40  # of a table of trials; a query has the rest


def status(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="A sweep.  [default: all of them]")
    ] = None,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Look again and again until the sweep is done; Ctrl-C ends it, and the sweep "
            "goes on.",
        ),
    ] = False,
    every: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.5, help="With --watch: between two looks.")
    ] = 5.0,
    storage: StorageOption = None,
    output: FormatOption = ResultFormat.TABLE,
) -> None:
    """Show how far the sweeps of a storage have come; of one sweep, every trial.

    Any machine that reaches the storage will do, also while the sweep runs elsewhere.
    """
    from ticketsweep.store.database import Database
    from ticketsweep.store.paths import Storage, default_storage

    if watch and name is None:
        raise UserError("--watch needs NAME: one sweep is watched at a time")
    if watch and output is ResultFormat.JSON:
        raise UserError("--watch is for reading: --format json goes without it (ask again)")
    opened = Storage.open(storage or default_storage(), create=False)
    if watch:
        assert name is not None
        _watch(opened, name, every)
        return
    database = Database(opened)
    found = _standings(database, name)
    if output is ResultFormat.JSON:
        from ticketsweep.display.records import document
        from ticketsweep.display.standing import standing_record
        from ticketsweep.display.terminal import emit

        records = [standing_record(each, trials=name is not None) for each in found]
        emit(document({"storage": opened.uri, "sweeps": records}))
    elif name is None:
        from ticketsweep.display.sweeps import status_table
        from ticketsweep.display.terminal import show, stdout_console

        console = stdout_console()
        show(console, status_table(console, found))
    else:
        _show_one(found[0])
    notes(database.warnings)


def _now() -> datetime:
    from datetime import UTC, datetime

    return datetime.now(UTC)


def _standings(database: Database, name: str | None) -> list[Standing]:
    from ticketsweep.results.standing import standing_of, standings, stored_views
    from ticketsweep.store.live import live_runs
    from ticketsweep.store.under_way import trials_under_way

    views = stored_views(database, name, whole=0 if name is None else MOST_ROWS)
    begun = trials_under_way(database.storage, name)
    found = standings(views, live_runs(database.storage, name), now=_now(), begun=begun)
    return found if name is None else [standing_of(found, name, database)]


def _show_one(standing: Standing) -> None:
    from ticketsweep.display.fronts import front_text
    from ticketsweep.display.standing import driver_lines, note_line, trials_under_way
    from ticketsweep.display.sweeps import status_table
    from ticketsweep.display.terminal import paragraph, show, stdout_console
    from ticketsweep.display.trials import trials_of_sweep
    from ticketsweep.results.fronts import fronts

    console = stdout_console()
    show(console, status_table(console, [standing]))
    if lines := driver_lines(standing):
        show(console, "", *map(note_line, lines))
    if standing.trials:
        show(console, "", trials_under_way(console, standing))
    show(console, "", *trials_of_sweep(console, standing.view, limit=MOST_ROWS))
    if (front := front_text(fronts(standing.view.trials, ranks=1))) is not None:
        show(console, "", paragraph(front))


def _watch(storage: Storage, name: str, every: float) -> None:
    """Look until the sweep is done, or the run that was seen has ended."""
    from ticketsweep.display.terminal import stdout_console

    console = stdout_console()
    try:
        if console.is_terminal and not console.is_dumb_terminal:
            _watch_live(storage, name, every)
        else:
            _watch_lines(storage, name, every)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _watch_live(storage: Storage, name: str, every: float) -> None:
    from dataclasses import replace

    from rich.console import RenderableType
    from rich.live import Live

    from ticketsweep.display.terminal import stdout_console
    from ticketsweep.display.watching import picture
    from ticketsweep.results.following import Following

    console, following = stdout_console(), Following(storage, name)
    standing, trouble = following.look(_now()), ""
    was_driven = standing.is_driven

    def draw() -> RenderableType:
        return picture(console, replace(standing, now=_now()), trouble=trouble)

    with Live(console=console, get_renderable=draw, refresh_per_second=2, redirect_stdout=False):
        while not _is_over(standing, was_driven=was_driven):
            time.sleep(every)
            try:
                standing, trouble = following.look(_now()), ""
            except StorageError as error:
                trouble = f"not up to date: {error}"
            was_driven |= standing.is_driven


def _watch_lines(storage: Storage, name: str, every: float) -> None:
    from ticketsweep.display.terminal import emit
    from ticketsweep.display.watching import ChangeLines
    from ticketsweep.results.following import Following

    following, changes = Following(storage, name), ChangeLines()
    standing, trouble = following.look(_now()), ""
    was_driven = standing.is_driven
    while True:
        for line in changes.of(standing, seconds=time.monotonic()):
            emit(f"{_now().astimezone():%H:%M:%S} {line}\n")
        if _is_over(standing, was_driven=was_driven):
            return
        time.sleep(every)
        try:
            standing, trouble = following.look(_now()), ""
        except StorageError as error:
            if not trouble:
                note(f"not up to date: {error}")
            trouble = str(error)
        was_driven |= standing.is_driven


def _is_over(standing: Standing, *, was_driven: bool) -> bool:
    """Whether there is nothing to wait for: a run that was killed may be begun again."""
    driver = standing.driver
    return standing.is_done or (was_driven and driver is not None and driver.ended is not None)
