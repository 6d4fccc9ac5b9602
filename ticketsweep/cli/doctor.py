"""`ticketsweep doctor`: what this machine has for a sweep, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer

from ticketsweep.cli.findings import Finding, guarded
from ticketsweep.cli.options import FormatOption, ResultFormat, StorageOption

_FAULTS = 1  # exit code


def doctor(
    storage: StorageOption = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Start a local Ray too, and end it: some ten seconds.")
    ] = False,
    online: Annotated[
        bool, typer.Option("--online", help="Ask too whether W&B's server answers.")
    ] = False,
    output: FormatOption = ResultFormat.TABLE,
) -> None:
    """Look at this machine: versions, GPUs, compilers, Ray, tracking, room, data, storage.

    Exit code 0: nothing is in the way of a sweep; 1: something is, and stands there with its
    remedy.
    """
    from ticketsweep.display.records import document
    from ticketsweep.display.terminal import Column, emit, show, stdout_console, table

    findings = list(examine(storage, ray=ray, online=online))
    if output is ResultFormat.JSON:
        emit(document({"findings": [asdict(finding) for finding in findings]}))
    else:
        words = [
            f"{each.found} ({each.remedy})" if each.remedy else each.found for each in findings
        ]
        parts = table(
            [
                Column("", [each.state for each in findings], right=False),
                Column("what", [each.what for each in findings], right=False),
                Column("found", words, right=False, wrap=True),
            ]
        )
        show(stdout_console(), parts)
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(_FAULTS)


def examine(storage: str | None, *, ray: bool = False, online: bool = False) -> Iterator[Finding]:
    """Every finding, of a storage by its URI or of the default one.

    Parameters
    ----------
    ray: whether a local Ray is started and ended.
    online: whether W&B's server is asked for an answer.
    """
    from ticketsweep.cli import machine, software
    from ticketsweep.store.paths import default_storage

    place = storage or default_storage()
    checks: dict[str, Callable[[], Finding]] = {
        "python": software.python,
        "packages": software.packages,
        "torch": software.torch,
        "torchvision": software.torchvision,
        "gates": software.gates,
        "overlaps": software.overlaps,
        "compilers": software.compilers,
        "processors": machine.processors,
        "memory": machine.memory,
        "room": partial(machine.room, place),
        "clock": machine.clock,
        "ray": software.ray,
        **({"local ray": software.local_ray} if ray else {}),
        "tracking": software.tracking,
        **({"server": software.server} if online else {}),
        "browser": software.browser,
        "data": machine.data,
        "storage": partial(machine.storage, place),
    }
    for what, check in checks.items():
        yield guarded(what, check)
