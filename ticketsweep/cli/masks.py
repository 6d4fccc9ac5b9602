"""The commands that maintain the mask database: `masks verify` and `masks compact`."""

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
    from ticketsweep.store.quarantine import quarantine as move_aside
    from ticketsweep.store.verify import verify as check

    opened = Storage.open(storage or default_storage(), create=False)
    with counting(stderr_console(), "checking") as report:
        found = check(opened, sweep, report=report)
    label = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    moved = move_aside(opened, found, label=label) if quarantine else []
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


def compact(
    sweep: Annotated[
        str | None, typer.Argument(metavar="SWEEP", help="A sweep.  [default: all of them]")
    ] = None,
    storage: StorageOption = None,
    output: FormatOption = ResultFormat.TABLE,
) -> None:
    """Merge the many small files of a sweep's complete trials into few, packed harder.

    Sweeps may run and queries be asked meanwhile. It may be interrupted at any moment; run again,
    it goes on.
    """
    from ticketsweep.display.masks import compaction_line, compaction_record, counting
    from ticketsweep.display.records import document
    from ticketsweep.display.terminal import emit, show, stderr_console, stdout_console
    from ticketsweep.store.compaction import compact as merge
    from ticketsweep.store.paths import Storage, default_storage

    opened = Storage.open(storage or default_storage(), create=False)
    names = opened.sweeps_with_trials() if sweep is None else [sweep]
    every = []
    for name in names:
        with counting(stderr_console(), f"compacting {name}") as report:
            done = merge(opened, name, report=report)
        every.append(done)
        for line in done.left:
            note(f"left as it is: {line} (`ticketsweep masks verify` says more)")
        if output is not ResultFormat.JSON:
            show(stdout_console(), compaction_line(done))
    if output is ResultFormat.JSON:
        emit(document({"storage": opened.uri, "sweeps": [compaction_record(d) for d in every]}))
