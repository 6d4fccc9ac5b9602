"""Which stored trial is meant by the first digits of its id."""

from __future__ import annotations

from collections.abc import Sequence

from ticketsweep.errors import ExchangeError, did_you_mean
from ticketsweep.results.rows import Row
from ticketsweep.store.database import Database

_FEW = 5  # ids that a message names


def trial_with_id(database: Database, beginning: str) -> Row:
    """The trial whose id begins so, as the sweep has it in which it has come furthest.

    Raises ExchangeError where there is no such trial, or several.
    """
    rows = database.trials().to_pylist()
    found: dict[str, Row] = {}
    for row in rows:
        identity = str(row["trial_id"])
        is_better = identity not in found or _come(row) > _come(found[identity])
        if beginning and identity.startswith(beginning) and is_better:
            found[identity] = row
    if len(found) > 1:
        raise ExchangeError(
            f"trial {beginning!r} begins the ids of several ({some(sorted(found))}): add a digit"
        )
    if not found:
        raise ExchangeError(
            f"no trial of storage {database.storage.uri} has an id that begins with {beginning!r} "
            f"({_nearest(beginning, rows)})"
        )
    return next(iter(found.values()))


def _come(row: Row) -> tuple[bool, bool, int]:
    """How far a trial has come in one sweep: a scheduler may have stopped it early in another."""
    return row["status"] != "failed", row["status"] == "complete", row["steps_done"] or 0


def _nearest(beginning: str, rows: Sequence[Row]) -> str:
    ids = sorted({str(row["trial_id"]) for row in rows})
    near = did_you_mean(beginning, [identity[: max(len(beginning), 1)] for identity in ids])
    if near.startswith("did"):
        return near
    return f"it has {some(ids)}" if ids else "it has no trial yet"


def some(values: Sequence[object]) -> str:
    """The first few, for a message: `1, 2, 3, 4, 5, … 8 in all`."""
    rest = f", … {len(values)} in all" if len(values) > _FEW else ""
    return f"{', '.join(map(str, values[:_FEW]))}{rest}"
