"""The command `stability`: how far the tickets of a sweep agree, in form and in function."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ticketsweep.cli.notes import note, notes
from ticketsweep.cli.options import PlacesOption, StorageOption, TableFormat
from ticketsweep.cli.reading import INTERRUPTED
from ticketsweep.cli.running import say_how_to_go_on
from ticketsweep.errors import TrialFailure, UserError

if TYPE_CHECKING:
    from ticketsweep.results.rows import Row
    from ticketsweep.revisit.jobs import Asked
    from ticketsweep.store.database import Database


def stability(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A sweep.")],
    by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY",
            help="Average over the trials that share a setting (rewind_step, gate.temperature, …), "
            "in place of all; quarters of the trials where it has many values. May be repeated.",
        ),
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Look at one layer alone.")] = None,
    trial: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Look at one trial; the first digits will do."),
    ] = None,
    predictions: Annotated[
        bool,
        typer.Option("--predictions", help="Compare what the tickets predict on the test split."),
    ] = False,
    transfer: Annotated[
        bool,
        typer.Option("--transfer", help="Test each ticket's mask on other initial weights."),
    ] = False,
    connectivity: Annotated[
        bool,
        typer.Option(
            "--connectivity",
            help="Retrain each ticket in two orders of the data, and look for an error barrier "
            "between the two, and between tickets of the same initial weights.",
        ),
    ] = False,
    align: Annotated[
        bool,
        typer.Option(
            "--align",
            help="Match the units of tickets of different initial weights before their masks are "
            "compared.",
        ),
    ] = False,
    retrain_steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Of --connectivity.  [default: the trials' own retrain.steps]",
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="auto|HOST:PORT",
            help="A running Ray cluster for comparisons of several trials.  [default: a local Ray]",
        ),
    ] = None,
    settings: PlacesOption = None,
    storage: StorageOption = None,
    output: Annotated[
        TableFormat, typer.Option("--format", help="Format of the result.")
    ] = TableFormat.TABLE,
) -> None:
    """Show how far the tickets of a sweep agree, by layer and by which seed differs.

    Comparisons in function (--predictions, --transfer, --connectivity, --align) make the tickets
    again. They are computed where the storage lacks them, stored, and shown from then on; with
    --format csv, those asked for stand in the place of the overlaps.
    """
    from ticketsweep.display.agreement import stability_records
    from ticketsweep.display.comparison import comparison_answer, comparison_document
    from ticketsweep.display.figures import plural
    from ticketsweep.display.function import function_parts
    from ticketsweep.display.records import as_csv, document
    from ticketsweep.display.terminal import emit, emit_all, show, stdout_console
    from ticketsweep.results.comparison import compare_by, trial_named
    from ticketsweep.results.function import KINDS, function_records, stored_function
    from ticketsweep.results.sweeps import sweep_named, sweep_views
    from ticketsweep.revisit.jobs import Asked
    from ticketsweep.store.database import open_database
    from ticketsweep.store.paths import default_storage

    flags = (predictions, transfer, connectivity, align)  # in the order of KINDS
    kinds = tuple(itertools.compress(KINDS, flags))
    asked = Asked(kinds, retrain_steps, tuple(settings or ()))
    _check_options(asked, address)
    keys = by or []
    database = open_database(storage or default_storage())
    views = sweep_views(database.sweeps().to_pylist(), database.trials().to_pylist())
    view = sweep_named(views, name, storage=database.storage.uri)
    rows = view.complete if trial is None else [trial_named(view.complete, trial)]
    found = compare_by(database, rows, keys=keys, layer=layer, warn=note)
    lost = _compare(database, rows, asked, address=address)
    compared = stored_function(database, rows, keys=keys)
    notes(database.warnings)
    if output is TableFormat.TABLE:
        console = stdout_console()
        parts = function_parts(console, compared, keys=keys)
        show(console, comparison_answer(console, found, trials=rows), *parts)
    elif output is TableFormat.JSON:
        records = function_records(compared, keys=keys)
        emit(document({**comparison_document(found), "comparisons": records}))
    else:  # of one kind of rows: what the tickets have in common, or what was compared
        records = stability_records(found.stability, keys=keys)
        if kinds:
            of_kinds = [row for row in compared if row.kind in kinds]
            records = function_records(of_kinds, keys=keys)
        emit_all(as_csv(list(records[0]) if records else keys, records))
    if lost:
        why = f": {lost[0]}" if len(set(lost)) == 1 else ""
        raise TrialFailure(
            f"the tickets of {len(lost)} of {plural(len(rows), 'trial')} could not be compared{why}"
        )


def _check_options(asked: Asked, address: str | None) -> None:
    """Refuse what is of no effect without a comparison."""
    if asked.retrain_steps is not None and "connectivity" not in asked.kinds:
        raise UserError("--retrain-steps goes with --connectivity, which retrains tickets")
    for option, value in (("--address", address), ("--set", asked.settings)):
        if value and not asked.kinds:
            raise UserError(
                f"{option} goes with a comparison that is to be computed: --predictions, "
                "--transfer, --connectivity or --align"
            )


def _compare(
    database: Database,
    rows: Sequence[Row],
    asked: Asked,
    *,
    address: str | None,
) -> list[str]:
    """Compute and store what is lacking; returns why trials could not be compared, one each."""
    from ticketsweep.revisit.jobs import jobs_of

    jobs = jobs_of(database, rows, asked, warn=note)
    if not jobs:
        return []
    from ticketsweep.display.comparing import ComparingDisplay
    from ticketsweep.display.terminal import stderr_console

    display = ComparingDisplay(stderr_console())
    try:
        # What libraries print goes to stderr: stdout is for the result alone.
        with display, contextlib.redirect_stdout(sys.stderr):
            display.phase("loading libraries")
            from ticketsweep.sweep.comparing import compare_trials

            ended = compare_trials(
                jobs,
                storage=database.storage,
                settings=asked.settings,
                address=address,
                observer=display,
            )
    except KeyboardInterrupt:
        say_how_to_go_on(finished=display.done)
        raise typer.Exit(INTERRUPTED) from None
    return [each.error for each in ended if each.error is not None]
