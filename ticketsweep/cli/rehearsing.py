"""`ticketsweep run SPACE --dry-run`: everything that a run does before its first trial."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from ticketsweep.cli.options import ResultFormat
from ticketsweep.errors import MissingStorage, StorageError

if TYPE_CHECKING:
    from ticketsweep.space import SweepSpec


def dry_run(
    spec: SweepSpec,
    *,
    storage: str,
    address: str | None,
    retry_failed: bool,
    output: ResultFormat,
) -> None:
    """Check the sweep, train a few steps, and print what its run would be.

    Parameters
    ----------
    storage: URI of the mask database, which is read alone.
    """
    from ticketsweep.cli.machine import storage as storage_finding
    from ticketsweep.display.progress import sweep_display
    from ticketsweep.display.records import document
    from ticketsweep.display.rehearsal import rehearsal_parts
    from ticketsweep.display.terminal import emit, show, stderr_console, stdout_console
    from ticketsweep.store.paths import Storage

    settings = spec.settings
    opened = None
    try:
        opened = Storage.open(storage, create=False)
    except MissingStorage:
        found_there = storage_finding(storage)
        if found_there.state == "fault":
            raise StorageError(f"storage {found_there.found} ({found_there.remedy})") from None
    display = sweep_display(stderr_console(), settings.objectives, possible=settings.samples)
    # What libraries print goes to stderr: stdout is for the result alone.
    with display as observer, contextlib.redirect_stdout(sys.stderr):
        observer.phase("loading libraries")
        from ticketsweep.sweep.rehearsal import rehearse

        found = rehearse(
            spec, storage=opened, address=address, retry_failed=retry_failed, observer=observer
        )
    told = {
        "storage": storage,
        "address": address,
        "sampler": settings.sampler,
        "cpus": settings.resources.cpus,
        "gpus": settings.resources.gpus,
        "searched": list(spec.distributions()),
        **found.as_plain(),
    }
    if output is ResultFormat.JSON:
        emit(document(told))
    else:
        console = stdout_console()
        show(console, *rehearsal_parts(console, told))
