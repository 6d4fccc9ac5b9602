"""The commands that delete: `delete` and `clean`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ticketsweep.cli.notes import note
from ticketsweep.cli.options import FormatOption, ResultFormat, StorageOption
from ticketsweep.errors import UserError

if TYPE_CHECKING:
    from ticketsweep.store.database import Database

DECLINED = 1
_DAY_SECONDS = 86_400.0

DryOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")
]


def delete(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep.")],
    trial: Annotated[
        list[str] | None,
        typer.Option(
            "--trial",
            metavar="ID",
            help="This trial alone, by the first digits of its id; may be repeated.",
        ),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Its failed trials alone.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry: DryOption = False,
    storage: StorageOption = None,
    output: FormatOption = ResultFormat.TABLE,
) -> None:
    """Delete a sweep, or some of its trials: rows, masks, comparisons, logs and checkpoints.

    With a whole sweep go its journal and what trackers wrote into the storage; what W&B's server
    has stays. Trials that another sweep has copied stay there. It may be interrupted at any moment;
    run again, it finishes. A sweep that is being run is left alone.
    """
    from ticketsweep.display.deleting import doomed_record, doomed_text
    from ticketsweep.display.masks import counting
    from ticketsweep.display.records import document
    from ticketsweep.display.terminal import emit, show, stderr_console, stdout_console
    from ticketsweep.store.database import Database
    from ticketsweep.store.deletion import (
        delete_sweep,
        delete_trials,
        doomed_sweep,
        doomed_trials,
    )
    from ticketsweep.store.paths import Storage, default_storage
    from ticketsweep.sweep.tracking import files_of, how_to_upload

    opened = Storage.open(storage or default_storage(), create=False)
    tracked = [] if trial or failed else files_of(opened, sweep)
    whole = doomed_sweep(opened, sweep, beside=tracked)
    some = _chosen(Database(opened), sweep, trial or [], failed=failed) if trial or failed else None
    doomed = whole if some is None else doomed_trials(opened, sweep, some)
    going = not dry and some != []
    if tracked and not yes and (upload := how_to_upload(opened, sweep)):
        note(f"W&B runs that were not uploaded go too (to keep them, first {upload})")
    if going and not yes:
        _ask(doomed_text(doomed))
    if going:
        with counting(stderr_console(), f"deleting {sweep}") as report:
            if some is None:
                delete_sweep(opened, sweep, beside=tracked, report=report)
            else:
                delete_trials(opened, sweep, some, report=report)
    if output is ResultFormat.JSON:
        emit(document({"storage": opened.uri, **doomed_record(doomed, deleted=going)}))
    else:
        what = "deleted" if going else "would be deleted" if dry else "nothing to delete"
        show(stdout_console(), f"{what}: {doomed_text(doomed)}")


def _chosen(database: Database, sweep: str, trials: list[str], *, failed: bool) -> list[str]:
    """The ids of the trials that are meant, each once."""
    from ticketsweep.results.finding import trial_with_id

    chosen = [str(trial_with_id(database, beginning)["trial_id"]) for beginning in trials]
    rows = {str(row["trial_id"]): row for row in database.trials(sweep).to_pylist()}
    for identity in chosen:
        if identity not in rows:
            raise UserError(f"sweep {sweep} has no trial {identity} (another sweep has it)")
    if failed:
        chosen += [identity for identity, row in rows.items() if row["status"] == "failed"]
    return list(dict.fromkeys(chosen))


def _ask(what: str) -> None:
    """Leave unless the user says yes; where nobody can be asked, say which option says it."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UserError(f"{what} would be deleted (give --yes where nobody can be asked)")
    if not typer.confirm(f"Delete {what}?", err=True):
        note("nothing was deleted")
        raise typer.Exit(DECLINED)


def clean(
    sweep: Annotated[
        str | None, typer.Argument(metavar="SWEEP", help="A sweep.  [default: all of them]")
    ] = None,
    older_than: Annotated[
        float,
        typer.Option(
            "--older-than",
            metavar="DAYS",
            min=0,
            help="Age from which checkpoints that no sweep goes on from, such as those of "
            "interrupted single trials, and rows never committed are deleted.",
        ),
    ] = 7,
    dry: DryOption = False,
    storage: StorageOption = None,
    output: FormatOption = ResultFormat.TABLE,
) -> None:
    """Delete what was left behind: checkpoints, unfinished files, claims of dead processes.

    What a running sweep uses stays, as does every trial that may go on. No mask and no result is
    deleted.
    """
    from ticketsweep.display.deleting import litter_parts, litter_record
    from ticketsweep.display.masks import counting
    from ticketsweep.display.records import document
    from ticketsweep.display.terminal import emit, show, stderr_console, stdout_console
    from ticketsweep.store.cleaning import clean as remove_all
    from ticketsweep.store.cleaning import find_litter
    from ticketsweep.store.paths import Storage, default_storage

    opened = Storage.open(storage or default_storage(), create=False)
    found = find_litter(opened, sweep, older_than=older_than * _DAY_SECONDS)
    if not dry:
        with counting(stderr_console(), "cleaning up") as report:
            remove_all(opened, found, report=report)
    if output is ResultFormat.JSON:
        record = litter_record(found, root=opened.root, deleted=not dry)
        emit(document({"storage": opened.uri, **record}))
    else:
        show(stdout_console(), *litter_parts(found, deleted=not dry))
