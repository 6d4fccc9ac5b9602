"""What a check of the mask database has found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ticketsweep.display.figures import plural
from ticketsweep.display.terminal import Column, table
from ticketsweep.store.verify import Loss, Verification

_SHOWN = 100  # rows of the table; --format json has all


@contextmanager
def counting(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, which the function yielded moves to `done` of `total`; else nothing."""
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    shown = console.is_terminal and not console.is_dumb_terminal
    with Progress(*columns, console=console, transient=True, disable=not shown) as progress:
        task = progress.add_task(what, total=None)

        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield report


def verification_parts(
    found: Verification, *, quarantined: Sequence[str]
) -> Iterator[RenderableType]:
    """Each damaged file with what is wrong, what is lost by it, and what to do."""
    size = f"{found.bytes / 1e6:,.1f} MB"
    checked = f"{plural(found.files, 'file')} of {plural(found.trials, 'trial')} checked ({size})"
    if found.sound:
        yield f"{checked}: sound"
        return
    rows = [(each.file, each.reason) for loss in found.losses for each in loss.damage]
    yield table(
        [
            Column("damaged file", [file for file, _ in rows[:_SHOWN]], right=False, wrap=True),
            Column("what is wrong", [why for _, why in rows[:_SHOWN]], right=False, wrap=True),
        ]
    )
    if len(rows) > _SHOWN:
        yield f"({_SHOWN} of {len(rows)} shown; --format json has all)"
    yield f"{checked}: {plural(len(rows), 'fault')}"
    yield f"Lost: {_named(found.losses)}."
    if quarantined:
        folder = "/".join(quarantined[0].split("/")[:2])
        yield f"Moved aside, to {folder} of the storage: {plural(len(quarantined), 'file')}."
        yield "Run the sweep again to train what was lost anew."
    else:
        yield "With --quarantine their files are moved aside; running the sweep again then trains"
        yield "what was lost anew."


def _named(losses: Sequence[Loss]) -> str:
    names = [
        f"the row of sweep {loss.sweep}"
        if loss.trial_id is None
        else f"trial {loss.trial_id} of sweep {loss.sweep}"
        for loss in losses
    ]
    return f"{', '.join(names[:_SHOWN])}{', …' if len(names) > _SHOWN else ''}"


def verification_record(found: Verification, *, quarantined: Sequence[str]) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "sound": found.sound,
        "trials": found.trials,
        "files": found.files,
        "bytes": found.bytes,
        "files_without_digest": found.unsealed,
        "lost": [
            {
                "sweep": loss.sweep,
                "trial_id": loss.trial_id,
                "damage": [{"file": each.file, "reason": each.reason} for each in loss.damage],
            }
            for loss in found.losses
        ],
        "leftovers": list(found.leftovers),
        "quarantined": list(quarantined),
    }
