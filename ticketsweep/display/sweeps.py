"""Tables of sweeps: what is in a storage, and how many trials of each are in which state."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from rich.console import Console, RenderableType

from ticketsweep.display.figures import NONE, duration, named_figure, setting
from ticketsweep.display.terminal import Column, tables
from ticketsweep.progress import UNDER_WAY
from ticketsweep.results.ranking import Objectives, best_trial
from ticketsweep.results.rows import figure_of
from ticketsweep.results.standing import STATES, Standing
from ticketsweep.results.sweeps import SweepView


def status_table(console: Console, sweeps: Sequence[Standing]) -> RenderableType:
    """One row a sweep: its trials by state, the best of each objective, when it last moved."""
    heads = {UNDER_WAY: "under\nway"}
    return tables(
        console,
        [_names([each.view for each in sweeps])],
        [
            Column("asked\nfor", [setting(each.samples) for each in sweeps]),
            *(
                Column(heads.get(state, state), [f"{each.counts[state]:,}" for each in sweeps])
                for state in STATES
            ),
            Column("best", ["\n".join(best_lines(each.view)) for each in sweeps], right=False),
            Column("last\nactivity", [_last_activity(each) for each in sweeps]),
        ],
    )


def list_table(console: Console, sweeps: Sequence[SweepView]) -> RenderableType:
    """One row a sweep: when it was begun, what it is after, how much of it is there."""
    return tables(
        console,
        [_names(sweeps)],
        [
            Column("begun", [_begun(view) for view in sweeps], right=False),
            Column("complete\ntrials", [_complete(view) for view in sweeps], right=False),
            Column("objectives", [objectives_text(v.objectives) for v in sweeps], right=False),
        ],
        [Column("searches over", [", ".join(v.searched) or NONE for v in sweeps], False, True)],
    )


def objectives_text(objectives: Objectives) -> str:
    """`val_accuracy max, sparsity max`."""
    return ", ".join(f"{name} {direction}" for name, direction in objectives.items())


def best_lines(view: SweepView) -> list[str]:
    """The best value of each objective; one line each, none where no trial has it."""
    found = [
        (name, best_trial(view.trials, name, direction))
        for name, direction in view.objectives.items()
    ]
    lines = [named_figure(figure_of(row, name), name) for name, row in found if row is not None]
    return lines or [NONE]


def ago(moment: datetime | None, now: datetime) -> str:
    """`2:05 ago`, and the date where that is more than two days."""
    if moment is None:
        return NONE
    if now - moment > timedelta(days=2):
        return f"{moment.astimezone(UTC):%Y-%m-%d}"
    return f"{duration(max(0.0, (now - moment).total_seconds()))} ago"


def _names(sweeps: Sequence[SweepView]) -> Column:
    return Column("sweep", [view.name for view in sweeps], right=False, wrap=True)


def _last_activity(standing: Standing) -> str:
    if standing.alive:
        return "running"
    begun = standing.view.trials or standing.runs
    return ago(standing.last_activity, standing.now) if begun else "not begun"


def _complete(view: SweepView) -> str:
    """`7 of 12`, `7` where no number was asked for, and `4 (2 asked for)` where fewer were."""
    count, asked = view.count("complete"), view.row.get("samples") if view.row else None
    if asked is None:
        return str(count)
    return f"{count} ({asked} asked for)" if count > asked else f"{count} of {asked}"


def _begun(view: SweepView) -> str:
    created = view.row.get("created_at") if view.row else None
    return f"{created:%Y-%m-%d %H:%M}" if isinstance(created, datetime) else NONE
