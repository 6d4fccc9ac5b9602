"""Tables of trials: rows of the database in, things that Rich can print out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.text import Text

from ticketsweep.display.figures import (
    duration,
    figure,
    first_line,
    is_share,
    plural,
    setting,
    short,
    with_spread,
)
from ticketsweep.display.terminal import Column, table, tables
from ticketsweep.results.ranking import metrics_told
from ticketsweep.results.rows import Row, config_of, figure_of, finite_number, setting_of, state_of
from ticketsweep.results.sweeps import SweepView

if TYPE_CHECKING:
    from ticketsweep.results.summary import Summary

_HEADERS = {
    "val_accuracy": "validation\naccuracy %",
    "strong_accuracy": "test\naccuracy %",
    "joint_val_accuracy": "joint\nvalidation\naccuracy %",
    "retrained_val_accuracy": "retrained\nvalidation\naccuracy %",
    "undecided": "undecided\n%",
}
_WITHOUT_SPREAD = frozenset({"undecided"})  # in a table of many trials: it is a caution, no result
_NAMES = {"val_accuracy": "validation accuracy", "strong_accuracy": "test accuracy"}
_NAMES_OF_UNITS = {"sparsity": "sparsity of weights", "undecided": "undecided units"}


def best_trials(console: Console, summary: Summary) -> RenderableType:
    """The best trials: their figures with spread, and the settings that were searched.

    The number of replicates has a column only where it is not the same for all.
    """
    rows = [each.row for each in summary.best]
    key = [
        Column("rank", [str(each.rank) for each in summary.best]),
        Column("trial", [short(row["trial_id"]) for row in rows], right=False),
    ]
    figures = [
        Column(header(name), [_cell(summary, row, name) for row in rows])
        for name in summary.metrics
    ]
    counts = [summary.spread(row, "val_accuracy") for row in rows]
    if summary.replicates is None:
        figures.append(Column("n", [setting(spread and spread.n) for spread in counts]))
    styles = ["" if each.rank == 1 else "dim" for each in summary.best]
    return tables(console, key, figures, settings_columns(rows, summary.searched), styles=styles)


def one_trial(summary: Summary) -> RenderableType:
    """Every figure of the only trial of a summary, one below the other."""
    row = summary.rows[0]
    metrics = list(dict.fromkeys([*summary.metrics, "loss"]))
    told = _NAMES | (_NAMES_OF_UNITS if row.get("granularity") == "neuron" else {})
    names = [f"{told.get(name, name)}{' %' if is_share(name) else ''}" for name in metrics]
    return table(
        [
            Column("figure", names, right=False),
            Column("value", [_figure(summary, row, name) for name in metrics]),
        ]
    )


def trials_of_sweep(console: Console, view: SweepView, *, limit: int) -> list[RenderableType]:
    """Its trials, at most the latest `limit`, one a row; then the failed ones with their errors."""
    rows = view.trials[-limit:]
    if not rows:
        return ["no trial is stored yet"]
    key = [Column("trial", [short(row["trial_id"]) for row in rows], right=False)]
    figures = [Column("state", [state_of(row).replace("_", " ") for row in rows], right=False)]
    figures += [
        Column(header(name), [figure(figure_of(row, name), name) for row in rows])
        for name in metrics_told(view.objectives)
    ]
    times = [duration(finite_number(row.get("wall_seconds"))) for row in rows]
    figures.append(Column("time", times))
    parts: list[RenderableType] = [
        tables(console, key, figures, settings_columns(rows, view.searched))
    ]
    if len(rows) < len(view.trials):
        of = plural(len(view.trials), "trial")
        parts.append(Text(f"(the latest {len(rows)} of {of}; a query has all)", style="dim"))
    failed = [row for row in rows if row["status"] == "failed"]
    return [*parts, "", _failures(failed)] if failed else parts


def _failures(rows: Sequence[Row]) -> RenderableType:
    return table(
        [
            Column("failed", [short(row["trial_id"]) for row in rows], right=False),
            Column("error", [first_line(row.get("error")) for row in rows], right=False, wrap=True),
        ]
    )


def setting_names(keys: Sequence[str]) -> list[str]:
    """Short names of dotted keys: the last part, where no other key ends in it too."""
    last = [key.rpartition(".")[2] for key in keys]
    count = Counter(last)
    return [name if count[name] == 1 else key for key, name in zip(keys, last, strict=True)]


def settings_columns(rows: Sequence[Row], searched: Sequence[str]) -> list[Column]:
    """The searched settings of trials, a column each; of an empty row, without a value."""
    configs = [config_of(row) for row in rows]
    return [
        Column(name, [setting(_told(setting_of(config, key))) for config in configs])
        for key, name in zip(searched, setting_names(searched), strict=True)
    ]


def _told(value: object) -> object:
    """A gate by its family; those of its settings that were searched have columns of their own."""
    return value["family"] if isinstance(value, Mapping) and "family" in value else value


def _cell(summary: Summary, row: Row, name: str) -> str:
    return (
        figure(figure_of(row, name), name)
        if name in _WITHOUT_SPREAD
        else _figure(summary, row, name)
    )


def _figure(summary: Summary, row: Row, name: str) -> str:
    stability = summary.stability.get(row["trial_id"])
    if name == "stability" and stability is not None:
        # Not at the top: it takes a second to be imported, and `status` needs none of it.
        from ticketsweep.display.agreement import score

        return score(stability)
    spread = summary.spread(row, name)
    return with_spread(figure_of(row, name), spread.sd if spread else None, name)


def header(metric: str) -> str:
    """A metric's name and unit, as the head of a column."""
    return _HEADERS.get(metric, f"{metric} %" if is_share(metric) else metric)
