"""Writing what comparisons of a stored trial's replicates have found, one kind beside the other.

Each trial has a file of its own, put in place whole. It is no part of what commits the trial, and
readers see its rows while the trial is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ticketsweep.store.contents import plain_rows
from ticketsweep.store.encoding import encode
from ticketsweep.store.files import UnreadableFile, put, read_file
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import arrow_table

Pair: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class ComparedPair:
    """What one kind of comparison has found of an ordered pair of replicates.

    Parameters
    ----------
    first, second: numbers of the replicates; the same twice for a ticket with itself.
    differs: the seeds in which they differ, as "init+data"; "" for none.
    measures: name -> a finite number; none where nothing could be measured.
    """

    first: int
    second: int
    differs: str
    measures: Mapping[str, float]


def write_comparisons(
    storage: Storage,
    sweep: str,
    trial_id: str,
    kind: str,
    found: Sequence[ComparedPair],
    *,
    settings: Mapping[str, Any],
) -> None:
    """Store the comparisons of one kind in the place of all earlier ones of that kind.

    Those of other kinds stay. Of two processes that write to one trial at the same moment, the
    later one may undo what the other has added, which is then computed again.

    Parameters
    ----------
    kind: a word; the measures are stored as `KIND.NAME`.
    settings: what was asked, as JSON has it.

    Raises
    ------
    StorageError: the storage cannot be written to.
    ValueError: a measure is NaN or infinite, or a pair occurs twice.
    """
    rows = {
        pair: stripped
        for pair, row in _stored(storage, sweep, trial_id).items()
        if (stripped := _without(row, kind))["settings"]
    }
    seen: set[Pair] = set()
    for each in found:
        pair = (each.first, each.second)
        if pair in seen:
            raise ValueError(f"{kind}: replicates {pair} are compared twice")
        seen.add(pair)
        row = rows.setdefault(pair, {"measures": {}, "settings": {}})
        row |= {"first": each.first, "second": each.second, "differs": each.differs}
        row["measures"] |= {f"{kind}.{name}": value for name, value in each.measures.items()}
        row["settings"] |= {kind: dict(settings)}
    complete = [
        {**rows[pair], "settings": json.dumps(rows[pair]["settings"], sort_keys=True)}
        for pair in sorted(rows)
    ]
    table = arrow_table("comparisons", complete, sweep=sweep, trial_id=trial_id)
    put(storage, storage.trial_file("comparisons", sweep, trial_id), encode("comparisons", table))


def _stored(storage: Storage, sweep: str, trial_id: str) -> dict[Pair, dict[str, Any]]:
    """What is there already; nothing of a file that is damaged, which is replaced."""
    file = storage.file("comparisons", sweep, trial_id)
    if file is None:
        return {}
    try:
        rows = plain_rows(read_file(storage, file))
        return {
            (row["first"], row["second"]): row | {"settings": json.loads(row["settings"])}
            for row in rows
        }
    except (UnreadableFile, FileNotFoundError, ValueError):
        return {}


def _without(row: Mapping[str, Any], kind: str) -> dict[str, Any]:
    measures = {k: v for k, v in row["measures"].items() if not k.startswith(f"{kind}.")}
    settings = {k: v for k, v in row["settings"].items() if k != kind}
    return {**row, "measures": measures, "settings": settings}
