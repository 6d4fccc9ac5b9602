"""What the search made of the settings: their importance, and every trial as one line."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import plotly.graph_objects as go

from ticketsweep.display.figures import short
from ticketsweep.report.drawn import Cell, Drawn, Section
from ticketsweep.report.text import file_name, label, percent, rounded, safe, value_of
from ticketsweep.report.theme import (
    BLUE,
    DASHES,
    GREEN,
    GREY,
    OCHRE,
    PURPLE,
    VERMILLION,
    blank,
    filled,
)
from ticketsweep.results.report import Importance, ReportData
from ticketsweep.results.rows import Row, figure_of, finite_number

_METRICS = ("val_accuracy", "sparsity", "stability")
_MOST_AXES = 9
_WIDE = 20
_MOST_OTHERS = 300  # lines of trials that are not of rank 1
_HUES = (BLUE, VERMILLION, GREEN, PURPLE, OCHRE)


def section(data: ReportData) -> Section:
    """Importance for each objective, and parallel coordinates."""
    objectives = dict.fromkeys(each.objective for each in data.importance)
    figures = [_importance(data, objective) for objective in objectives]
    notes = []
    if not figures:
        notes.append(
            "Importance is not estimated: it needs at least 10 complete trials of a search, that "
            "differ in their settings and objectives."
        )
    else:
        known = set().union(*(each.shares for each in data.importance))
        unknown = [
            setting.key
            for setting in data.settings
            if setting.key not in known and setting.key in data.view.searched
        ]
        if unknown:
            notes.append(
                "Not all trials have these settings, so their importance is not estimated: "
                f"{', '.join(unknown)}."
            )
        notes += _unexplained(data)
        trials = min(each.trials for each in data.importance)
        if trials < 30:
            notes.append(f"{trials} trials are few: take the order, not the numbers.")
    return Section(
        "importance",
        "Which settings matter",
        "Optuna's estimates of how much of an objective's variance over the trials each setting "
        "explains. fANOVA looks at all trials, PED-ANOVA at what the best have in common.",
        figures,
        notes,
    )


def _unexplained(data: ReportData) -> Iterator[str]:
    """Of which objectives there is no estimate, while there is of others."""
    known = {each.objective for each in data.importance}
    for objective in data.view.objectives:
        if objective not in known:
            yield (
                f"No estimate for {label(objective)}: it is the same in all trials but for "
                "rounding, or every setting is."
            )


def lines_section(data: ReportData) -> Section:
    """Every trial as a line through its settings and figures."""
    drawn = _parallel(data)
    return Section(
        "parallel",
        "Every trial at once",
        "A line is a trial; it crosses each axis at its setting or figure. Point at a line for its "
        "values; a press on an entry of the legend hides its trials.",
        [drawn] if drawn else [],
        () if drawn else ("Fewer than two complete trials, or no setting that differs.",),
    )


def _importance(data: ReportData, objective: str) -> Drawn:
    found = [each for each in data.importance if each.objective == objective]
    keys = sorted(found[0].shares, key=lambda key: found[0].shares[key])
    figure = blank(120 + 46 * len(keys), barmode="group")
    for each, colour, pattern in zip(found, (BLUE, OCHRE), ("", "/"), strict=False):
        figure.add_trace(
            go.Bar(
                orientation="h",
                y=[safe(key) for key in keys],
                x=[rounded(each.shares.get(key)) for key in keys],
                name=each.evaluator.partition(" (")[0],
                marker=filled(colour, pattern),
                hovertemplate="%{y}: %{x:.2f}<extra>%{fullData.name}</extra>",
            )
        )
    figure.update_xaxes(title={"text": "share of the variance explained"}, range=[0, 1])
    return Drawn(
        name=file_name("importance", objective),
        title=_importance_title(found, objective),
        caption=f"{'; '.join(e.evaluator for e in found)}; {found[0].trials} complete trials.",
        figure=figure,
        columns=("setting", *(each.evaluator for each in found)),
        rows=[[key, *(each.shares.get(key) for each in found)] for key in reversed(keys)],
        choice={"Objective": label(objective)},
    )


def _importance_title(found: Sequence[Importance], objective: str) -> str:
    first = {max(each.shares.items(), key=lambda item: item[1])[0] for each in found}
    if len(first) == 1:
        return f"{first.pop()} matters most for {label(objective)}"
    return f"The two estimates for {label(objective)} do not agree on what matters most"


class _Axis:
    """One vertical axis: where values lie between 0 and 1, and its ticks."""

    def __init__(self, name: str, values: Sequence[object]) -> None:
        self.name = name
        numbers = [finite_number(value) for value in values if value is not None]
        known_values = {value_of(v) for v in values if v is not None}
        self._words = sorted(known_values) if None in numbers else []
        known = [number for number in numbers if number is not None] or [0.0]
        self._log = min(known) > 0 and max(known) / min(known) > _WIDE
        low, high = min(map(self._scale, known)), max(map(self._scale, known))
        self._low, self._span = low, high - low

    def at(self, value: object) -> float | None:
        """The height of a value; None where a trial has none."""
        if value is None:
            return None
        if self._words:
            return self._words.index(value_of(value)) / max(len(self._words) - 1, 1)
        number = finite_number(value)
        if number is None:
            return None
        return (self._scale(number) - self._low) / self._span if self._span else 0.5

    def ends(self) -> list[tuple[float, str]]:
        """Heights and labels of its ends, or of all its words."""
        if self._words:
            return [(self.at(word) or 0.0, word[:14]) for word in self._words]
        values = [self._low, self._low + self._span] if self._span else [self._low]
        return [
            (float(at), f"{float(f'{10**value if self._log else value:.3g}'):g}")
            for at, value in enumerate(values)
        ]

    def _scale(self, value: float) -> float:
        return math.log10(value) if self._log else value


def _parallel(data: ReportData) -> Drawn | None:
    rows = list(data.complete)
    searched = [setting for setting in data.settings if setting.key in data.view.searched]
    metrics = [m for m in _METRICS if any(figure_of(row, m) is not None for row in rows)]
    settings = searched[: _MOST_AXES - len(metrics)]
    if len(rows) < 2 or not settings or not metrics:
        return None
    axes = [
        _Axis(setting.key, [setting.values.get(str(row["trial_id"])) for row in rows])
        for setting in settings
    ]
    axes += [_Axis(label(m), [figure_of(row, m) for row in rows]) for m in metrics]
    values = {
        str(row["trial_id"]): [
            *(setting.values.get(str(row["trial_id"])) for setting in settings),
            *(figure_of(row, m) for m in metrics),
        ]
        for row in rows
    }
    ranks = {str(each.row["trial_id"]): each.rank for each in data.summary.ranked}
    figure = blank(470, margin={"b": 60, "l": 30, "r": 30}, meta={"narrow": {"tickangle": 60}})
    front = [row for row in rows if ranks.get(str(row["trial_id"])) == 1]
    others = [row for row in rows if ranks.get(str(row["trial_id"])) != 1][:_MOST_OTHERS]
    if others:
        figure.add_trace(_lines("other trials", others, axes, values, GREY, 1.0, 0))
    for at, part in enumerate(_in_groups(front, metrics[0])):
        ends = dict.fromkeys(_told(metrics[0], figure_of(part[i], metrics[0])) for i in (0, -1))
        name = f"rank 1, {label(metrics[0])} {' to '.join(ends)}"
        figure.add_trace(_lines(name, part, axes, values, _HUES[at % len(_HUES)], 2.2, at))
    for at, axis in enumerate(axes):
        figure.add_vline(x=at, line={"color": GREY, "width": 1})
        for height, text in axis.ends():
            figure.add_annotation(
                x=at,
                y=height,
                text=safe(text),
                showarrow=False,
                font={"size": 11},
                yshift=9 if height > 0.98 else -9 if height < 0.02 else 0,
                bgcolor="rgba(0,0,0,0)",
            )
    figure.update_xaxes(
        tickvals=list(range(len(axes))),
        ticktext=[_short_key(axis.name) for axis in axes],
        tickangle=0,
        range=[-0.3, len(axes) - 0.7],
        showgrid=False,
        showline=False,
        ticks="",
    )
    figure.update_yaxes(visible=False, range=[-0.08, 1.08])
    shown = len(front) + len(others)
    return Drawn(
        name="parallel",
        title=f"{len(front)} of {len(rows)} trials are of rank 1: what do they have in common?",
        caption="Coloured lines are the trials of rank 1, in groups by their "
        f"{label(metrics[0])}, each with its own dash; grey ones the rest"
        f"{f' ({shown} of {len(rows)} drawn)' if shown < len(rows) else ''}. Axes run from the "
        "least to the most of the values found; a trial without a setting has a gap there.",
        figure=figure,
        columns=("trial", "rank", *(setting.key for setting in settings), *metrics),
        rows=[
            [short(trial_id), ranks.get(trial_id), *(_cell(value) for value in each)]
            for trial_id, each in values.items()
        ],
    )


def _lines(
    name: str,
    rows: Sequence[Row],
    axes: Sequence[_Axis],
    values: dict[str, list[object]],
    colour: str,
    width: float,
    dash: int,
) -> go.Scatter:
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str | None] = []
    for row in rows:
        trial_id = str(row["trial_id"])
        for at, (axis, value) in enumerate(zip(axes, values[trial_id], strict=True)):
            x.append(at)
            y.append(rounded(axis.at(value)))
            told = value_of(rounded(value) if isinstance(value, float) else value)
            text.append(f"{short(trial_id)}: {safe(axis.name)} {safe(told)}")
        x.append(None)
        y.append(None)
        text.append(None)
    return go.Scatter(
        x=x,
        y=y,
        text=text,
        mode="lines+markers",
        name=name,
        line={"color": colour, "width": width, "dash": DASHES[dash % len(DASHES)]},
        marker={"size": 5},
        opacity=0.35 if width < 2 else 0.9,
        hovertemplate="trial %{text}<extra></extra>",
    )


def _in_groups(rows: Sequence[Row], metric: str) -> list[list[Row]]:
    """The rows by one figure, in at most four groups of like size."""
    ordered = sorted(rows, key=lambda row: figure_of(row, metric) or 0.0)
    count = min(4, len(ordered))
    edges = [round(i * len(ordered) / count) for i in range(count + 1)] if count else []
    return [ordered[a:b] for a, b in itertools.pairwise(edges)]


def _told(metric: str, value: float | None) -> str:
    return percent(value) if metric != "stability" else value_of(value)


def _short_key(key: str) -> str:
    """`gate.temperature_end` over two lines."""
    return safe(key.rpartition(".")[2]).replace(" ", "<br>").replace("_", "<br>")


def _cell(value: object) -> Cell:
    return value if value is None or isinstance(value, (int, float)) else str(value)
