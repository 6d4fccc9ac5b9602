"""Where along training masks settle: step by step, or group by group where there are several."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console, RenderableType
from rich.console import Group as Lines

from ticketsweep.analysis.settling import SETTLED, Between
from ticketsweep.display.figures import NONE, plural
from ticketsweep.display.terminal import Column, paragraph, tables
from ticketsweep.results.grouping import Group, plain_group
from ticketsweep.results.settling import Settling, SettlingPoint, SweepSettling
from ticketsweep.results.spread import Spread

KeyColumns = Callable[[Sequence[Group]], list[Column]]

HOW_TO_READ = (
    f"settled: from that logged step on, mask and ticket have {100 * SETTLED:.0f} % in common (of "
    "the gates that the larger of the two keeps). ±: standard deviation over replicates; seeds "
    "agree: overlap beyond chance of replicates of the same initial weights at that step."
)
STEP_BY_STEP = (
    "moved: gates hardened otherwise than at the step before; not yet: gates that the ticket has "
    "otherwise; overlap: of mask and ticket beyond chance, 1 also where the mask holds the ticket "
    "and more besides, as gates that begin open do. "
)


def settling_table(
    console: Console, settling: SweepSettling, *, key_columns: KeyColumns
) -> RenderableType | None:
    """Step by step for one group, a row a group for several; None where there are no snapshots."""
    groups = settling.groups
    if not groups:
        return None
    if len(groups) == 1:
        (only,) = groups
        parts = [_steps(console, only.points), "", _settled(only)]
        note = STEP_BY_STEP + HOW_TO_READ
    else:
        parts, note = [_groups(console, groups, key_columns)], HOW_TO_READ
    if settling.without:
        verb = "has" if settling.without == 1 else "have"
        note += f" {plural(settling.without, 'trial')} of the sweep {verb} no snapshots."
    return Lines(*parts, "", paragraph(note))


def settling_records(settling: SweepSettling, *, keys: Sequence[str]) -> list[dict[str, object]]:
    """Every group and step with all its figures, as flat records."""
    return [
        {
            **plain_group(keys, each.group),
            "trials": each.trials,
            "replicates": each.replicates,
            **_flat("settled_at", each.settled_at),
            "step": point.step,
            **_flat("change", point.change),
            **_flat("hamming", point.hamming),
            **_flat("overlap", point.overlap),
            **_flat("in_common", point.in_common),
            **_flat("density", point.density),
            "between": point.between and point.between.value,
            "between_low": _end(point.between, "low"),
            "between_high": _end(point.between, "high"),
            "between_pairs": point.between.pairs if point.between else 0,
        }
        for each in settling.groups
        for point in each.points
    ]


def _steps(console: Console, points: Sequence[SettlingPoint]) -> RenderableType:
    return tables(
        console,
        [Column("step", [str(point.step) for point in points])],
        [
            Column("moved %", [_percent(point.change) for point in points]),
            Column("not yet %", [_percent(point.hamming) for point in points]),
            Column("overlap with\nticket", [_plain(point.overlap) for point in points]),
            Column("in common\nwith ticket %", [_percent(point.in_common) for point in points]),
            Column("kept %", [_percent(point.density) for point in points]),
            Column("seeds agree", [_between(point.between) for point in points], right=False),
        ],
    )


def _groups(
    console: Console, groups: Sequence[Settling], key_columns: KeyColumns
) -> RenderableType:
    half = [_halfway(each.points) for each in groups]
    columns = [
        Column("settled\nat step", [_step(each.settled_at) for each in groups]),
        Column("of\nsteps", [str(each.points[-1].step) for each in groups]),
        Column("halfway: in\ncommon with\nticket %", [_percent(of.in_common) for of in half]),
        Column("seeds agree\nhalfway", [_between(of.between) for of in half], right=False),
        Column(
            "seeds agree\nin the end", [_between(of.points[-1].between) for of in groups], False
        ),
        Column("replicates", [str(each.replicates) for each in groups]),
    ]
    return tables(console, key_columns([each.group for each in groups]), columns)


def _settled(settling: Settling) -> str:
    steps, of = settling.points[-1].step, plural(settling.replicates, "replicate")
    if settling.settled_at is None:
        return f"no ticket of {of} keeps anything, so there is nothing for the masks to settle on"
    return f"settled at step {_step(settling.settled_at)} of {steps} ({of})"


def _halfway(points: Sequence[SettlingPoint]) -> SettlingPoint:
    """The last point that is not beyond half of the steps; the first if all are."""
    before = [point for point in points if 2 * point.step <= points[-1].step]
    return before[-1] if before else points[0]


def _step(spread: Spread | None) -> str:
    if spread is None:
        return NONE
    return f"{spread.mean:.0f}" + (f" ±{spread.sd:.0f}" if spread.sd is not None else "")


def _percent(spread: Spread | None) -> str:
    if spread is None:
        return NONE
    shown = f"{100 * spread.mean:.1f}"
    return shown if spread.sd is None else f"{shown} ±{100 * spread.sd:.1f}"


def _plain(spread: Spread | None) -> str:
    if spread is None:
        return NONE
    shown = f"{spread.mean:z.2f}"
    return shown if spread.sd is None else f"{shown} ±{spread.sd:.2f}"


def _between(between: Between | None) -> str:
    if between is None:
        return NONE
    return f"{between.value:z.2f}" + (f" {between.interval}" if between.interval else "")


def _end(between: Between | None, name: str) -> float | None:
    if between is None or between.interval is None:
        return None
    return between.interval.low if name == "low" else between.interval.high


def _flat(name: str, spread: Spread | None) -> dict[str, float | None]:
    return {name: spread.mean if spread else None, f"{name}_sd": spread.sd if spread else None}
