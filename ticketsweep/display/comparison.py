"""What `stability` shows: groups of trials, how far their tickets agree, and since when."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from rich.console import Console, RenderableType
from rich.console import Group as Lines

from ticketsweep.display.agreement import (
    key_columns,
    score,
    stability_answer,
    stability_document,
)
from ticketsweep.display.figures import NONE, with_spread
from ticketsweep.display.settling import settling_records, settling_table
from ticketsweep.display.terminal import Column, paragraph, tables
from ticketsweep.results.comparison import COMPARED, Comparison, SweepComparison
from ticketsweep.results.grouping import plain_group
from ticketsweep.results.rows import Row

_HEADERS = {
    "val_accuracy": "validation\naccuracy %",
    "strong_accuracy": "test\naccuracy %",
    "sparsity": "sparsity %",
}
GROUPS_NOTE = (
    "±: standard deviation over the replicates of all trials of a group; stability: overlap beyond "
    "chance of tickets with the same initial weights, with its 95 % interval over seeds. A setting "
    "with more than eight values is cut into quarters of the trials."
)


def comparison_answer(
    console: Console, comparison: SweepComparison, *, trials: Sequence[Row]
) -> RenderableType:
    """The groups side by side if there are keys, then stability, then where masks settle."""
    keys = list(comparison.keys)
    parts: list[RenderableType] = []
    if keys and comparison.groups:
        parts += [_groups_table(console, comparison), "", paragraph(GROUPS_NOTE), ""]
    parts.append(stability_answer(console, comparison.stability, keys=keys, trials=trials))
    settled = settling_table(console, comparison.settling, key_columns=partial(key_columns, keys))
    parts += [] if settled is None else ["", settled]
    return Lines(*parts)


def comparison_document(comparison: SweepComparison) -> dict[str, list[dict[str, Any]]]:
    """All there is: groups, the records of stability, and each step of the masks."""
    return {
        "groups": [
            {**plain_group(comparison.keys, group), **_record(of)}
            for group, of in comparison.groups.items()
        ],
        **stability_document(comparison.stability, keys=comparison.keys),
        "settling": settling_records(comparison.settling, keys=comparison.keys),
    }


def _groups_table(console: Console, comparison: SweepComparison) -> RenderableType:
    groups = comparison.groups.values()
    columns = [Column("trials", [str(of.trials) for of in groups])]
    columns += [Column(_HEADERS[name], [_figure(of, name) for of in groups]) for name in COMPARED]
    columns.append(
        Column("stability", [score(of.stability) if of.stability else NONE for of in groups], False)
    )
    return tables(console, key_columns(comparison.keys, list(comparison.groups)), columns)


def _figure(of: Comparison, name: str) -> str:
    spread = of.figures.get(name)
    return with_spread(spread.mean, spread.sd, name) if spread else NONE


def _record(of: Comparison) -> dict[str, Any]:
    record: dict[str, Any] = {"trials": of.trials}
    for name in COMPARED:
        spread = of.figures.get(name)
        record |= {name: spread and spread.mean, f"{name}_sd": spread and spread.sd}
        record[f"{name}_n"] = spread.n if spread else 0
    return record | {"stability": of.stability.score if of.stability else None}
