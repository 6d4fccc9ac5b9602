"""Accuracy against sparsity: trials, their controls, the dense network, what others published."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from ticketsweep.display.figures import short
from ticketsweep.report.beside import controls, dense_line, stars
from ticketsweep.report.drawn import Cell, Drawn, Section
from ticketsweep.report.text import axis_label, file_name, label, percent, rounded, safe, scaled
from ticketsweep.report.theme import GREY, INK, SCALE, SYMBOLS, blank
from ticketsweep.results.ranking import domination_ranks
from ticketsweep.results.report import ReportData
from ticketsweep.results.rows import Row, figure_of, finite_number

_HEIGHT, _COLOUR_BAR = 520, 58  # pixels: of the figure; of its foot, where the colours are told
_MOST_COLOURS = 7  # entries of the menu
_MOST_POINTS = 2_000  # trials times entries: the page of a thousand trials stays small


@dataclass(frozen=True)
class _Point:
    """A trial: sparsity and accuracy are fractions of 1."""

    row: Row
    rank: int | None
    sparsity: float
    accuracy: float
    colour: float | None

    @property
    def family(self) -> str:
        return str(self.row.get("gate_family") or "imported")


def section(data: ReportData) -> Section:
    """The figure for each accuracy and each figure that colour may show."""
    notes = []
    if len(data.problems) > 1:
        told = "; ".join(f"{model} on {dataset}" for model, dataset in data.problems[:5])
        notes.append(
            f"The trials do not all solve the same problem ({told}): compare points of one kind "
            "alone. Nothing published is shown beside them."
        )
    figures = [
        drawn
        for metric in ("strong_accuracy", "val_accuracy")
        for colour in _colours(data)
        if (drawn := _figure(data, metric, colour)) is not None
    ]
    if not figures:
        notes.append("No complete trial has both an accuracy and a sparsity.")
    return Section(
        "pareto",
        "Accuracy and sparsity",
        "Each point is one trial, the mean of its replicates. Up and to the right is better. Test "
        "accuracy is of the hardened ticket on its own, untouched weights, and was not looked at "
        "by the search.",
        figures,
        notes,
    )


def _colours(data: ReportData) -> list[str]:
    """What may be the third axis: figures first, then settings that are numbers."""
    found = [
        name
        for name in ("stability", "undecided", "loss")
        if any(figure_of(row, name) is not None for row in data.complete)
    ]
    found += [setting.key for setting in data.settings if setting.is_number]
    most = min(_MOST_COLOURS, max(1, _MOST_POINTS // len(data.complete))) if data.complete else 1
    return found[:most] or ["sparsity"]


def _points(data: ReportData, metric: str, colour: str) -> list[_Point]:
    settings = {setting.key: setting.values for setting in data.settings}
    ranks = {each.row["trial_id"]: each.rank for each in data.summary.ranked}
    found = []
    for row in data.complete:
        trial_id = str(row["trial_id"])
        sparsity, accuracy = figure_of(row, "sparsity"), figure_of(row, metric)
        if sparsity is None or accuracy is None:
            continue
        third = figure_of(row, colour)
        if colour in settings:
            third = finite_number(settings[colour].get(trial_id))
        found.append(_Point(row, ranks.get(trial_id), sparsity, accuracy, third))
    return found


def _figure(data: ReportData, metric: str, colour: str) -> Drawn | None:
    points = _points(data, metric, colour)
    if not points:
        return None
    figure = blank(_HEIGHT)
    front = [
        point
        for point, rank in zip(
            points, domination_ranks([(p.sparsity, p.accuracy) for p in points]), strict=True
        )
        if rank == 1
    ]
    front.sort(key=lambda point: point.sparsity)
    figure.add_trace(_front_line(front))
    log = _is_wide([p.colour for p in points if p.colour is not None])
    families = sorted({point.family for point in points})
    for at, family in enumerate(families):
        symbol = SYMBOLS[at % len(SYMBOLS)]
        for has in (True, False):
            own = [p for p in points if p.family == family and (p.colour is not None) is has]
            if own:
                figure.add_trace(_trials(own, metric, colour, safe(family), symbol, log=log))
        figure.add_trace(_legend(safe(family), symbol))
    below = []
    if metric == "strong_accuracy":
        below = list(controls(data, [point.row for point in points]))
        figure.add_traces([*below, *dense_line(data), *stars(data)])
    figure.update_layout(
        xaxis={
            "title": {"text": "sparsity, % of weights removed"},
            "anchor": "y2" if below else "y",
        },
        yaxis={"title": {"text": axis_label(metric)}, "domain": [0.36, 1] if below else [0, 1]},
        coloraxis=_colour_axis([p.colour for p in points], colour, log=log),
        margin={"b": 110},
    )
    if below:
        figure.update_layout(yaxis2={"title": {"text": "controls, %"}, "domain": [0, 0.3]})
    lead, end = front[0], front[-1]
    title = f"{percent(lead.accuracy)} {label(metric)} at {percent(lead.sparsity)} sparsity"
    if end is lead:
        title = f"The best: {title}"
    else:
        title = f"From {title} to {percent(end.accuracy)} at {percent(end.sparsity)}"
    return Drawn(
        name=file_name("pareto", metric, colour),
        title=title,
        caption=f"Colour{' and size are' if colour == 'stability' else ' is'} {label(colour)}; the "
        "shape is the gate family; a dark outline marks rank 1 by the sweep's objectives; the "
        f"stepped line joins the trials that no other beats in both figures ({len(front)} of "
        f"{len(points)}){'; below, on an axis of their own, the controls' if below else ''}.",
        figure=figure,
        columns=("trial", "rank", "gate family", "sparsity", metric, *_third(colour)),
        rows=[_record(point, colour) for point in points],
        choice={"Accuracy": label(metric), "Colour": label(colour)},
    )


def _third(colour: str) -> tuple[str, ...]:
    return () if colour == "sparsity" else (colour,)


def _record(point: _Point, colour: str) -> list[Cell]:
    third = [] if colour == "sparsity" else [point.colour]
    known = [short(point.row["trial_id"]), point.rank, point.family]
    return [*known, point.sparsity, point.accuracy, *third]


def _front_line(front: Sequence[_Point]) -> go.Scatter:
    return go.Scatter(
        x=[scaled(point.sparsity, "sparsity") for point in front],
        y=[scaled(point.accuracy, "val_accuracy") for point in front],
        mode="lines",
        line={"shape": "vh", "color": GREY, "width": 1.5, "dash": "dot"},
        name="best trade-off",
        hoverinfo="skip",
    )


def _trials(
    points: Sequence[_Point], metric: str, colour: str, family: str, symbol: str, *, log: bool
) -> go.Scatter:
    """Trials of one family, all with a colour or all without."""
    hue: dict[str, object] = {"color": GREY, "opacity": 0.5}
    if points[0].colour is not None:
        values = [_on_scale(point.colour, log=log) for point in points]
        hue = {"color": values, "coloraxis": "coloraxis", "opacity": 0.95}
    shown = label(colour)
    sizes: list[float] | int = 10
    if colour == "stability":
        sizes = [round(8 + 10 * max(0.0, min(1.0, point.colour or 0.0)), 1) for point in points]
    return go.Scatter(
        x=[scaled(point.sparsity, "sparsity") for point in points],
        y=[scaled(point.accuracy, "val_accuracy") for point in points],
        mode="markers",
        name=family,
        legendgroup=family,
        showlegend=False,
        text=[short(point.row["trial_id"]) for point in points],
        customdata=[_told(point.colour) for point in points],
        marker={
            "symbol": symbol,
            "size": sizes,
            **hue,
            "line": {
                "color": [INK if point.rank == 1 else GREY for point in points],
                "width": [2.5 if point.rank == 1 else 1 for point in points],
            },
        },
        hovertemplate=f"<b>trial %{{text}}</b><br>sparsity %{{x:.2f}} %<br>{label(metric)} "
        f"%{{y:.2f}} %<br>{safe(shown)} %{{customdata}}<extra>{family}</extra>",
    )


def _legend(family: str, symbol: str) -> go.Scatter:
    """The entry of the legend: the shape alone, for trials of a family have many colours."""
    return go.Scatter(
        x=[None],
        y=[None],
        mode="markers",
        name=family,
        legendgroup=family,
        marker={"symbol": symbol, "size": 10, "color": GREY, "line": {"color": INK, "width": 1}},
    )


def _told(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _is_wide(values: Sequence[float]) -> bool:
    """Whether a logarithmic scale shows more."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > 20


def _on_scale(value: float | None, *, log: bool) -> float | None:
    if value is None:
        return None
    return rounded(math.log10(value) if log else value)


def _colour_axis(values: Sequence[float | None], colour: str, *, log: bool) -> dict[str, object]:
    known = [value for value in values if value is not None]
    if not known:
        return {"showscale": False}
    bar: dict[str, object] = {
        "orientation": "h",
        "thickness": 10,
        "len": 0.6,
        "x": 0,
        "xanchor": "left",
        "y": _COLOUR_BAR / _HEIGHT,
        "yref": "container",
        "yanchor": "top",
        "title": {"text": safe(label(colour)), "side": "bottom", "font": {"size": 12}},
        "outlinewidth": 0,
    }
    if log:
        ticks = [10.0**power for power in range(-9, 10)]
        ticks = [at for at in ticks if min(known) / 3 <= at <= max(known) * 3]
        bar |= {"tickvals": [math.log10(at) for at in ticks], "ticktext": [f"{t:g}" for t in ticks]}
    # Given, since a legend that hides all trials would leave the axis without ends of its own.
    low, high = (_on_scale(value, log=log) or 0.0 for value in (min(known), max(known)))
    around = 0.0 if low < high else 0.5
    return {"colorscale": SCALE, "cmin": low - around, "cmax": high + around, "colorbar": bar}
