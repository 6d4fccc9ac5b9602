"""The commands that come after a search: `best` and `confirm`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ticketsweep.cli.notes import note, notes
from ticketsweep.cli.options import (
    RetryOption,
    StorageOption,
    TableFormat,
    TimeOption,
    TrackerOption,
    Tracking,
    chosen_trackers,
)
from ticketsweep.cli.reading import INTERRUPTED
from ticketsweep.cli.running import say_how_to_go_on
from ticketsweep.errors import TrialFailure

if TYPE_CHECKING:
    from ticketsweep.results.rows import Row

_TOP = 5  # settings that are confirmed

ByOption = Annotated[
    str | None,
    typer.Option(
        "--by",
        metavar="METRIC",
        help="Choose by this figure; test figures are refused.",
    ),
]


def best(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A sweep.")],
    at_sparsity: Annotated[
        str | None,
        typer.Option(
            metavar="SHARES",
            help="Least shares of the weights that are left out, such as 0.9,0.95.  "
            "[default: those of 0.5,0.8,0.9,0.95,0.98,0.99 that there are]",
        ),
    ] = None,
    by: ByOption = None,
    top: Annotated[
        int, typer.Option(min=1, metavar="N", help="How many trials at each sparsity.")
    ] = 1,
    storage: StorageOption = None,
    output: Annotated[
        TableFormat, typer.Option("--format", help="Format of the result.")
    ] = TableFormat.TABLE,
) -> None:
    """Show the best accuracy that a sweep has found at each of several sparsities.

    It is chosen by validation accuracy, or --by; test accuracy is shown beside it. CSV and JSON
    have the command line too that runs each trial again.
    """
    from ticketsweep.display.choosing import best_answer
    from ticketsweep.display.hints import next_lines
    from ticketsweep.display.records import as_csv, document
    from ticketsweep.display.terminal import emit, emit_all, show, stdout_console
    from ticketsweep.report.commands import run_again
    from ticketsweep.results.best import best_of
    from ticketsweep.results.choosing import sparsities_of, view_of
    from ticketsweep.store.database import open_database
    from ticketsweep.store.paths import default_storage

    sparsities = None if at_sparsity is None else sparsities_of(at_sparsity)
    database = open_database(storage or default_storage())
    view = view_of(database, name, by=by)
    found = best_of(database, view, sparsities, by=by, top=top)
    notes(database.warnings)
    rows = [each.row for each in found.trials]
    if output is TableFormat.TABLE:
        console = stdout_console()
        show(console, *best_answer(console, found, trials=len(view.complete)))
        show(console, *next_lines(_after_best(name, at_sparsity, rows), storage=storage))
        return
    commands = [row and run_again(row, storage=storage) for row in rows]
    records = [
        record | {"command": command}
        for record, command in zip(found.records(), commands, strict=True)
    ]
    if output is TableFormat.JSON:
        emit(document({"sweep": name, "by": found.by, "best": records}))
    else:
        emit_all(as_csv(list(records[0]), records))


def _after_best(name: str, at_sparsity: str | None, rows: Sequence[Row | None]) -> list[str]:
    """What one may want to type next."""
    known = [str(row["trial_id"])[:8] for row in rows if row is not None]
    if not known:
        return [f"status {name}"]
    at = "" if at_sparsity is None else f" --at-sparsity {at_sparsity}"
    return [f"confirm {name}{at}", f"masks export {known[-1]} --out ticket.safetensors"]


def confirm(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A sweep.")],
    top: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="How many settings; with --at-sparsity, how many at each.  [default: 5, or 1]",
        ),
    ] = None,
    by: ByOption = None,
    at_sparsity: Annotated[
        str | None,
        typer.Option(
            metavar="SHARES",
            help="The best settings at each of these least shares of the weights that are left "
            "out, such as 0.9,0.95.",
        ),
    ] = None,
    replicates: Annotated[
        str | None,
        typer.Option(
            metavar="COUNTS",
            help="Seeds of each kind, such as init=8,data=1.  [default: as many as in the search]",
        ),
    ] = None,
    as_: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="Of the sweep that they become.  [default: …-confirmed]"
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="auto|HOST:PORT", help="A running Ray cluster.  [default: a local Ray]"
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Where things are now, and what a trial is given: data_root=DIR, device=cpu, "
            "sweep.resources.gpus=1.",
        ),
    ] = None,
    wandb: Annotated[
        Tracking | None,
        typer.Option(help="Weights & Biases.  [default: online with a key, else offline]"),
    ] = None,
    trackers: TrackerOption = None,
    seconds: TimeOption = None,
    retry_failed: RetryOption = False,
    storage: StorageOption = None,
    output: Annotated[
        TableFormat, typer.Option("--format", help="Format of the result.")
    ] = TableFormat.TABLE,
) -> None:
    """Run the best settings of a sweep again with fresh seeds, and compare the figures.

    The best of many trials is partly the luckiest. Settings are chosen by the sweep's objectives
    (of a longer Pareto front, some of it from end to end), or --by; the same line again runs only
    what is missing.
    """
    from ticketsweep.display.choosing import confirmed_answer, confirmed_records
    from ticketsweep.display.hints import next_lines
    from ticketsweep.display.records import as_csv, document
    from ticketsweep.display.terminal import emit, emit_all, show, stdout_console
    from ticketsweep.report.commands import run_again
    from ticketsweep.results.choosing import sparsities_of, view_of
    from ticketsweep.results.confirming import (
        confirmed,
        confirming_name,
        confirming_spec,
        mean_shrinkage,
        replicates_of,
        wanted_of,
    )
    from ticketsweep.store.database import open_database
    from ticketsweep.store.paths import default_storage

    counts = {} if replicates is None else replicates_of(replicates)
    sparsities = [] if at_sparsity is None else sparsities_of(at_sparsity)
    asked = top or (1 if sparsities else _TOP)
    database = open_database(storage or default_storage())
    view = view_of(database, name, by=by)
    wanted = wanted_of(view, sparsities=sparsities, by=by, top=asked)
    if not sparsities and len(wanted.rows) < asked:
        note(f"sweep {name} has complete trials of {len(wanted.rows)} settings: all are confirmed")
    own = as_ or confirming_name(name)
    spec = confirming_spec(
        view,
        wanted.rows,
        database.trials(sweep=own).to_pylist(),
        name=own,
        replicates=counts,
        settings=settings or [],
    )
    from ticketsweep.api import follow

    try:
        outcome = follow(
            spec,
            database.storage,
            address=address,
            tracking=wandb.value if wandb else None,
            trackers=chosen_trackers(trackers, wandb),
            seconds=seconds,
            retry_failed=retry_failed,
        )
        interrupted = outcome.interrupted
    except KeyboardInterrupt:
        interrupted = True
    if interrupted:
        say_how_to_go_on(finished=len(database.trials(sweep=own)))
        raise typer.Exit(INTERRUPTED)
    if outcome.to_upload:
        note(f"to upload what W&B has recorded offline: {outcome.to_upload}")
    found = confirmed(database, wanted.rows, name=own, metrics=wanted.metrics)
    notes(database.warnings)
    if output is TableFormat.TABLE:
        console = stdout_console()
        show(console, *confirmed_answer(console, found, wanted, searched=view.searched))
        commands = [f"stability {own}", f"report {own}"]
        show(console, *next_lines(commands, storage=storage))
    else:
        records = confirmed_records(
            found,
            wanted,
            searched=view.searched,
            command=lambda row: run_again(row, storage=storage),
        )
        if output is TableFormat.JSON:
            mean = mean_shrinkage(found, wanted.metrics[0])
            told = {"sweep": name, "confirmed_as": own, "mean_shrinkage": mean}
            emit(document({**told, "confirmed": records}))
        else:
            emit_all(as_csv(list(records[0]), records))
    if outcome.out_of_time:
        say_how_to_go_on(finished=len(outcome.rows), why="the time is up")
        return
    if lost := sum(each.again is None for each in found):
        raise TrialFailure(
            f"{lost} of {len(found)} settings could not be run to their end with fresh seeds "
            f"(`ticketsweep status {own}` says why)"
        )
