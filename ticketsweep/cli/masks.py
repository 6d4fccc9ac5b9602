"""The commands that maintain the mask database: `masks verify`."""

from __future__ import annotations

from typing import Annotated

import typer

from ticketsweep.cli.notes import note
from ticketsweep.cli.options import FormatOption, ResultFormat, StorageOption

DAMAGED = 1


def verify(
    sweep: Annotated[
        str | None, typer.Argument(metavar="SWEEP", help="A sweep.  [default: all of them]")
    ] = None,
    quarantine: Annotated[
        bool,
        typer.Option(
            "--quarantine",
            help="Move the files of damaged trials into the storage's folder quarantine; the "
            "database is sound without them, and running the sweep again trains them anew.",
        ),
    ] = False,
    storage: StorageOption = None,
    output: FormatOption = ResultFormat.TABLE,
) -> None:
    """Check every byte and row of the mask database, and that its tables agree.

    Exit code 0: sound; 1: damage was found (moved aside or not).
    """
    from datetime import UTC, datetime

    from ticketsweep.display.masks import counting, verification_parts, verification_record
    from ticketsweep.display.records import document
    from ticketsweep.display.terminal import emit, show, stderr_console, stdout_console
    from ticketsweep.store.paths import Storage, default_storage
    from ticketsweep.store.verify import quarantine as move_aside
    from ticketsweep.store.verify import verify as check

    opened = Storage.open(storage or default_storage(), create=False)
    with counting(stderr_console(), "checking") as report:
        found = check(opened, sweep, report=report)
    label = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    moved = move_aside(opened, found.losses, label=label) if quarantine else []
    if output is ResultFormat.JSON:
        record = verification_record(found, quarantined=moved)
        emit(document({"storage": opened.uri, **record}))
    else:
        show(stdout_console(), *verification_parts(found, quarantined=moved))
    if found.leftovers:
        note(
            f"{len(found.leftovers)} files belong to no finished trial (a writer is at work on "
            f"them, or was killed) and are of no effect: {', '.join(found.leftovers[:3])}"
            f"{', …' if len(found.leftovers) > 3 else ''}"
        )
    if found.unsealed:
        note(
            f"{found.unsealed} files were written before files had a digest: their pages, rows and "
            f"statistics were checked, but not every byte"
        )
    if not found.sound:
        raise typer.Exit(DAMAGED)
