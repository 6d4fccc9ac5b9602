"""Tables of stability: how far tickets agree, and which seed makes the difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from rich.console import Console, RenderableType
from rich.console import Group as Lines

from ticketsweep.analysis.layers import ALL_LAYERS
from ticketsweep.analysis.stability import (
    OTHER_INIT,
    SAME_INIT,
    Stability,
    StabilityRow,
)
from ticketsweep.display.attribution import (
    layer_record,
    layers_table,
    seeds_records,
    seeds_table,
)
from ticketsweep.display.figures import NONE, plural, setting
from ticketsweep.display.terminal import Column, paragraph, tables
from ticketsweep.results.comparison import figures_of_agreement, gates_of
from ticketsweep.results.grouping import Group, plain_group
from ticketsweep.results.rows import Row

HOW_TO_READ = (
    "overlap beyond chance is (|A∩B| - ab/n) / (min(a, b) - ab/n), where A and B keep a and b of n "
    "gates: 1 is the same ticket (or one within the other), 0 what independent masks share; "
    "[ ] is a 95 % interval over seeds, and two seeds allow none."
)


def stability_table(
    console: Console,
    groups: Mapping[Group, Stability],
    *,
    keys: Sequence[str],
    gates: str,
    only: Sequence[str] = (),
) -> RenderableType:
    """One row a group of trials, layer and kind of pair, and how to read it.

    Where the console is too narrow for all figures, further tables go on with them.

    Parameters
    ----------
    groups: the values of `keys` -> the stability of the trials that have them.
    gates: what a gate stands for, "weights", "units", or "gates" where that differs.
    only: kinds of pairs to show; all of them if none is named.
    """
    rows = [
        (group, row)
        for group, stability in groups.items()
        for row in (_only(stability.rows, only) if only else _without_repeats(stability.rows))
    ]
    shown = [row for _, row in rows]
    key = key_columns(keys, [group for group, _ in rows])
    key += [
        Column("layer", [row.layer for row in shown], right=False, wrap=True),
        Column("seeds that\ndiffer", [row.differs for row in shown], right=False),
    ]
    columns = [
        Column("overlap beyond\nchance", [overlap(row) for row in shown], right=False),
        Column("Jaccard\n(chance)", [_jaccard(row) for row in shown]),
        Column(
            "kept %" if gates == "weights" else f"{gates}\nkept %",
            [_percent(row.density) for row in shown],
        ),
        Column("pairs", [str(row.pairs) for row in shown]),
    ]
    seeds = [_seeds(row) for row in shown]
    if len(set(seeds)) > 1:
        columns.append(Column("seeds", seeds))
        note = "seeds: init/data/gate; "
    else:
        counts = ", ".join(f"{count} {factor}" for factor, count in shown[0].seeds.items())
        note = f"seeds: {counts}; "
    trials = {row.trials for row in shown}
    if len(trials) > 1:
        columns.append(Column("trials", [str(row.trials) for row in shown]))
    elif trials != {1}:
        note += f"means of {plural(max(trials), 'trial')}; "
    styles = ["bold" if row.layer == ALL_LAYERS else "" for row in shown]
    if gates == "units":
        note += "each gate is one unit or input, so what is kept counts units, not weights; "
    drawn = tables(console, key, columns, styles=styles)
    return Lines(drawn, "", paragraph(f"{note}{HOW_TO_READ}"))


def stability_answer(
    console: Console,
    groups: Mapping[Group, Stability],
    *,
    keys: Sequence[str],
    trials: Sequence[Row],
) -> RenderableType:
    """The tables, or why there are none: complete `trials` with nothing to compare."""
    if not any(stability.rows for stability in groups.values()):
        replicates = ", but no two replicates with other seeds" if trials else ""
        return f"nothing to compare: {plural(len(trials), 'complete trial')}{replicates}"

    gathered = (SAME_INIT, OTHER_INIT) if len(groups) > 1 else ()  # else hundreds of rows
    parts: list[RenderableType] = [
        stability_table(console, groups, keys=keys, gates=gates_of(trials), only=gathered)
    ]
    if gathered:
        parts.append(paragraph("Each kind of pair by itself: one group, or --format json or csv."))
    for table in (seeds_table, layers_table):
        drawn = table(console, groups, key_columns=partial(key_columns, keys))
        parts += [] if drawn is None else ["", drawn]
    return Lines(*parts)


def stability_records(
    groups: Mapping[Group, Stability], *, keys: Sequence[str]
) -> list[dict[str, object]]:
    """Every row with all its figures, and the values of `keys`, as flat records."""
    records = []
    for group, stability in groups.items():
        for row in stability.rows:
            figures = figures_of_agreement(row)
            del figures["seeds"]
            counts = {f"{factor}_seeds": count for factor, count in row.seeds.items()}
            records.append({**plain_group(keys, group), **figures, **counts})
    return records


def stability_document(
    groups: Mapping[Group, Stability], *, keys: Sequence[str]
) -> dict[str, list[dict[str, object]]]:
    """All there is: the records of pairs, of seeds and of what all masks have in common."""
    named = [(plain_group(keys, group), found) for group, found in groups.items()]
    return {
        "pairs": stability_records(groups, keys=keys),
        "seeds": [
            {**key, **record}
            for key, found in named
            for attribution in found.attribution
            for record in seeds_records(attribution)
        ],
        "layers": [
            {**key, **layer_record(each)} for key, found in named for each in found.consensus
        ],
    }


def overlap(row: StabilityRow) -> str:
    """`0.28 [0.21, 0.35]`, without an interval where there is none."""
    if row.corrected is None:
        return NONE
    if row.low is None or row.high is None:
        return f"{row.corrected:z.2f}"
    return f"{row.corrected:z.2f} [{row.low:z.2f}, {row.high:z.2f}]"


def score(stability: Stability) -> str:
    """The trial metric `stability` with its interval, `–` where the trial has none."""
    rows = {(row.layer, row.differs): row for row in stability.rows}
    row = rows.get((ALL_LAYERS, SAME_INIT))
    return overlap(row) if row else NONE


def key_columns(keys: Sequence[str], groups: Sequence[Group]) -> list[Column]:
    """A column of each key, whose values are those of the rows' groups."""
    return [
        _key_column(name, [group[index] for group in groups]) for index, name in enumerate(keys)
    ]


def _key_column(name: str, values: Sequence[object]) -> Column:
    """The values of a key; numbers stay in one piece however narrow the console is."""
    numbers = all(isinstance(value, (int, float)) for value in values)
    header = name.replace(".", ".\n")
    return Column(header, [setting(value) for value in values], right=False, wrap=not numbers)


def _only(rows: Sequence[StabilityRow], kinds: Sequence[str]) -> list[StabilityRow]:
    return [row for row in rows if row.differs in kinds]


def _without_repeats(rows: Sequence[StabilityRow]) -> list[StabilityRow]:
    """Leaves out a kind that gathers others where it gathers only one: it says the same again."""
    kinds = {row.differs for row in rows}
    other = {kind for kind in kinds if "init" in kind.split("+")}
    same = kinds - other - {SAME_INIT, OTHER_INIT}
    repeated = {OTHER_INIT: len(other) == 1, SAME_INIT: len(same) == 1}
    return [row for row in rows if not repeated.get(row.differs, False)]


def _jaccard(row: StabilityRow) -> str:
    if row.jaccard is None or row.expected_jaccard is None:
        return NONE
    return f"{row.jaccard:.2f} ({row.expected_jaccard:.2f})"


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f}"


def _seeds(row: StabilityRow) -> str:
    return "/".join(str(count) for count in row.seeds.values())
