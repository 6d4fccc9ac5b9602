"""Tables of what tickets have in common in function: predictions, other weights, connectivity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, RenderableType
from rich.text import Text

from ticketsweep.display.agreement import key_columns
from ticketsweep.display.figures import NONE, plural
from ticketsweep.display.terminal import Column, paragraph, tables
from ticketsweep.results.function import (
    ALIGN,
    BARRIER,
    CONNECTIVITY,
    PREDICTIONS,
    STABLE,
    STABLE_BELOW,
    TRANSFER,
    FunctionRow,
    PairSpread,
)

Cell = Callable[[FunctionRow], str]


@dataclass(frozen=True)
class _Table:
    """How a kind is shown: its title, its columns, and how to read them."""

    title: str
    columns: Mapping[str, Cell]
    note: str


def function_parts(
    console: Console, rows: Sequence[FunctionRow], *, keys: Sequence[str]
) -> list[RenderableType]:
    """A table for each kind of comparison that there is, and how to read it."""
    parts: list[RenderableType] = []
    for kind, how in _TABLES.items():
        shown = [row for row in rows if row.kind == kind]
        if shown:
            parts += ["", Text(how.title, style="bold"), ""]
            parts += [
                _drawn(console, shown, how, keys),
                "",
                paragraph(" ".join([how.note, *made_from(shown)])),
            ]
    return parts


def _drawn(
    console: Console, rows: Sequence[FunctionRow], how: _Table, keys: Sequence[str]
) -> RenderableType:
    key = key_columns(keys, [row.group for row in rows])
    seeds = [row.differs or "none" for row in rows]
    key.append(Column("seeds that\ndiffer", seeds, right=False))
    columns = [Column(header, [cell(row) for row in rows]) for header, cell in how.columns.items()]
    columns.append(Column("pairs", [str(row.pairs) for row in rows]))
    if {row.trials for row in rows} != {1}:
        columns.append(Column("trials", [str(row.trials) for row in rows]))
    return tables(console, key, columns)


def made_from(rows: Sequence[FunctionRow]) -> list[str]:
    """How comparisons of one kind were made, and what is not in them, a sentence each."""
    parts = []
    steps = sorted({s["steps"] for row in rows for s in row.settings if "steps" in s})
    if steps:
        parts.append(f"Retrained for {' or '.join(map(str, steps))} steps.")
    samples = {
        (s["pairs"], s["possible_pairs"])
        for row in rows
        for s in row.settings
        if s["pairs"] < s["possible_pairs"]
    }
    parts += [
        f"A sample of {pairs} of {possible} pairs of a trial, as many of each two initial weights."
        for pairs, possible in sorted(samples)
    ]
    without = sum(row.without for row in rows)
    if without:
        parts.append(
            f"{plural(without, 'pair')} without figures: outputs that are not finite, or a model "
            "whose units cannot be matched."
        )
    return parts


def _cell(name: str, shown: Callable[[float], str]) -> Cell:
    """The mean of a measure with its interval, else the least and the most of any pair."""

    def cell(row: FunctionRow) -> str:
        return _with_range(row.figures.get(name), shown)

    return cell


def _with_range(spread: PairSpread | None, shown: Callable[[float], str]) -> str:
    if spread is None:
        return NONE
    mean, least, most = (shown(value) for value in (spread.mean, spread.least, spread.most))
    if spread.low is not None and spread.high is not None:
        return f"{mean} [{shown(spread.low)}, {shown(spread.high)}]"
    return mean if least == most else f"{mean} ({least} to {most})"


def _mean(name: str, shown: Callable[[float], str]) -> Cell:
    def cell(row: FunctionRow) -> str:
        spread = row.figures.get(name)
        return NONE if spread is None else shown(spread.mean)

    return cell


def _against(name: str, chance: str, shown: Callable[[float], str]) -> Cell:
    """`0.42 (0.08)`: a mean, and what chance gives."""

    def cell(row: FunctionRow) -> str:
        return f"{_mean(name, shown)(row)} ({_mean(chance, shown)(row)})"

    return cell


def _percent(share: float) -> str:
    return f"{100 * share:z.2f}"


def _two(value: float) -> str:
    return f"{value:z.2f}"


def _stable(row: FunctionRow) -> str:
    share = row.figures.get(STABLE)
    return NONE if share is None else f"{round(share.mean * 100)} %"


_BRACKETS = (
    "Square brackets: a 95 % interval over seeds; round ones, for too few, the pairs' range."
)


_TABLES: Mapping[str, _Table] = {
    PREDICTIONS: _Table(
        "Do the tickets predict the same?",
        {
            "same class\n%": _cell("agreement", _percent),
            "error overlap\n(chance)": _against("error_overlap", "error_overlap_chance", _two),
            "disagreement\n/ error": _mean("normalised_disagreement", _two),
        },
        "Test split, tickets on their frozen weights. Error overlap: images that both get wrong, "
        "of those that either does; chance: of two that are wrong as often, but independently. "
        "Disagreement over mean error: 0 for the same predictions, 2 where no error is shared. "
        f"{_BRACKETS}",
    ),
    TRANSFER: _Table(
        "Does a ticket's mask work on other initial weights?",
        {
            "mask's own\nweights %": _mean("source_accuracy", _percent),
            "other\nweights %": _cell("accuracy", _percent),
            "units\nmatched %": _cell("matched_accuracy", _percent),
            "mask\nshuffled %": _cell("shuffled_accuracy", _percent),
            "their own\nticket %": _mean("own_accuracy", _percent),
        },
        "Test accuracy of a mask on the weights that it was found on, and on those of a replicate "
        "with other initial weights: as it is; with its units relabelled like that replicate's, "
        "by the weights alone; shuffled within each layer (the control); and that replicate's own "
        f"ticket. {_BRACKETS}",
    ),
    CONNECTIVITY: _Table(
        "Do retrained tickets lie in one basin?",
        {
            "test error\nbarrier %": _cell(BARRIER, _percent),
            "training error\nbarrier %": _mean("train_barrier", _percent),
            "stable": _stable,
            "test error\nat the ends %": _mean("test_error", _percent),
        },
        "Largest error on the straight line between two retrained networks, less the mean of the "
        "two (Frankle et al. 2020; 30 points, batch norm estimated anew at each). No seed differs: "
        "one ticket retrained in two orders of the data. Else each ticket is retrained once, in "
        "its own order and under its own mask, and what lies between them is open where either "
        f"mask is. Stable: a test barrier below {100 * STABLE_BELOW:.0f} %. "
        f"{_BRACKETS}",
    ),
    ALIGN: _Table(
        "Are tickets of other initial weights the same, relabelled?",
        {
            "overlap\n(chance)": _against("overlap", "overlap_chance", _two),
            "beyond\nchance": _mean("corrected", _two),
            "units matched\n(chance)": _against("matched_overlap", "matched_overlap_chance", _two),
            "beyond\nmatched chance": _cell("matched_corrected", _two),
            "beyond the\ninputs' too": _mean("inputs_matched_corrected", _two),
        },
        "Overlap: shared gates, of those of the smaller mask. Units are matched by the weights "
        "that the tickets keep (weight matching, Ainsworth et al. 2023). Matching finds likeness "
        "in anything, so its chance level is that of random masks matched alike, which keep as "
        "many gates of each layer, or also of each input: 0 is chance, 1 the same ticket. "
        f"{_BRACKETS}",
    ),
}
