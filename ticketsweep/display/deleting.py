"""What is deleted, of a sweep or of what was left behind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType

from ticketsweep.display.figures import plural
from ticketsweep.display.terminal import Column, table
from ticketsweep.store.cleaning import Litter
from ticketsweep.store.deletion import Doomed


def doomed_text(doomed: Doomed) -> str:
    """`sweep lenet: 40 trials with 1,280 masks (166 files, 13.2 MB)`."""
    masks = f"{doomed.masks:,} {'mask' if doomed.masks == 1 else 'masks'}"
    files = f"{plural(doomed.files, 'file')}, {_size(doomed.bytes)}"
    return f"sweep {doomed.sweep}: {plural(doomed.trials, 'trial')} with {masks} ({files})"


def doomed_record(doomed: Doomed, *, deleted: bool) -> dict[str, Any]:
    """The same as plain values."""
    return {**asdict(doomed), "deleted": deleted}


def litter_parts(found: Sequence[Litter], *, deleted: bool) -> Iterator[RenderableType]:
    """How much there is of each kind."""
    if not found:
        yield "nothing to clean up"
        return
    kinds: dict[str, list[int]] = defaultdict(list)
    for each in found:
        kinds[each.kind].append(each.bytes)
    yield table(
        [
            Column("left behind", list(kinds), right=False, wrap=True),
            Column("files", [f"{len(sizes):,}" for sizes in kinds.values()]),
            Column("size", [_size(sum(sizes)) for sizes in kinds.values()]),
        ]
    )
    total = f"{plural(len(found), 'file')}, {_size(sum(each.bytes for each in found))}"
    yield f"{total}: {'deleted' if deleted else 'to be deleted (nothing is with --dry-run)'}"


def litter_record(found: Sequence[Litter], *, root: str, deleted: bool) -> dict[str, Any]:
    """Every file, as plain values; paths are below the storage's root."""
    files = [{**asdict(each), "path": each.path.removeprefix(f"{root}/")} for each in found]
    return {"deleted": deleted, "bytes": sum(each.bytes for each in found), "files": files}


def _size(bytes_: int) -> str:
    return f"{bytes_ / 1e6:,.1f} MB" if bytes_ >= 50_000 else f"{bytes_ / 1e3:,.1f} kB"
