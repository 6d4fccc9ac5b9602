"""What a check or a compaction of the mask database has come to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ticketsweep.display.figures import plural
from ticketsweep.display.terminal import Column, table
from ticketsweep.store.compaction import Compaction
from ticketsweep.store.verify import Damage, Verification

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
    rows = [(each.file, each.reason) for each in _all_damage(found)]
    yield table(
        [
            Column("damaged file", [file for file, _ in rows[:_SHOWN]], right=False, wrap=True),
            Column("what is wrong", [why for _, why in rows[:_SHOWN]], right=False, wrap=True),
        ]
    )
    if len(rows) > _SHOWN:
        yield f"({_SHOWN} of {len(rows)} shown; --format json has all)"
    yield f"{checked}: {plural(len(rows), 'fault')}"
    names = _lost(found)
    yield f"Lost: {', '.join(names[:_SHOWN]) or 'nothing'}{', …' if names[_SHOWN:] else ''}."
    for part in found.parts:
        kept = f"{plural(len(part.sound), 'other trial')} of it {_are(len(part.sound))} whole"
        yield f"The part {part.name} of sweep {part.sweep} is damaged; {kept}."
    if quarantined:
        folder = "/".join(quarantined[0].split("/")[:2])
        yield f"Moved aside, to {folder} of the storage: {plural(len(quarantined), 'file')}."
        yield "Run the sweep again to train what was lost anew."
    else:
        yield "With --quarantine their files are moved aside; running the sweep again then trains"
        yield "what was lost anew."
    if any(loss.trial_id is not None and not loss.is_of_trial for loss in found.losses):
        yield "Comparisons are no part of a trial: `ticketsweep stability` computes them again."


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _all_damage(found: Verification) -> list[Damage]:
    of_trials = [each for loss in found.losses for each in loss.damage]
    return of_trials + [each for part in found.parts for each in part.damage]


def _lost(found: Verification) -> list[str]:
    names = [
        f"the row of sweep {loss.sweep}"
        if loss.trial_id is None
        else f"{'' if loss.is_of_trial else 'comparisons of '}trial {loss.trial_id} "
        f"of sweep {loss.sweep}"
        for loss in found.losses
    ]
    return names + [
        f"trial {trial} of sweep {part.sweep}"
        for part in found.parts
        for trial in sorted(part.lost)
    ]


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
        "damaged_parts": [
            {
                "sweep": part.sweep,
                "part": part.name,
                "damage": [{"file": each.file, "reason": each.reason} for each in part.damage],
                "lost": sorted(part.lost),
                "sound": sorted(part.sound),
            }
            for part in found.parts
        ],
        "leftovers": list(found.leftovers),
        "quarantined": list(quarantined),
    }


def compaction_line(done: Compaction) -> str:
    """`lenet: 40 trials merged: 160 files of 13.2 MB are 4 of 9.1 MB now`."""
    if not done.trials:
        return f"{done.sweep}: nothing to merge ({plural(done.files_after, 'file')})"
    before = f"{plural(done.files_before, 'file')} of {done.bytes_before / 1e6:,.1f} MB"
    after = f"{done.files_after:,} of {done.bytes_after / 1e6:,.1f} MB"
    return f"{done.sweep}: {plural(done.trials, 'trial')} merged: {before} are {after} now"


def compaction_record(done: Compaction) -> dict[str, Any]:
    """The same as plain values."""
    return asdict(done)
