"""Accuracy against sparsity: trials, their controls, the dense network, what others published."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import plotly.graph_objects as go

from ticketsweep.report.drawn import Cell, Drawn, Section
from ticketsweep.report.published import Published, published_for
from ticketsweep.report.text import (
    axis_label,
    file_name,
    label,
    percent,
    rounded,
    safe,
    scaled,
    short,
)
from ticketsweep.report.theme import GREY, INK, SCALE, SYMBOLS, VERMILLION, blank
from ticketsweep.results.networks import NETWORKS, STRONG
from ticketsweep.results.ranking import domination_ranks
from ticketsweep.results.report import ReportData
from ticketsweep.results.rows import Row, figure_of, finite_number

_HEIGHT = 520
_MOST_COLOURS = 7  # entries of the menu
_SYMBOLS_OF_CONTROLS = ("x-thin-open", "triangle-down-open", "cross-thin-open")
_CONTROLS = [
    network
    for network in NETWORKS
    if network.test in ("shuffled_mask_accuracy", "reinitialized_accuracy", "random_mask_accuracy")
]
_DENSE = next(network for network in NETWORKS if network.test == "dense_accuracy")


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
    return found[:_MOST_COLOURS] or ["sparsity"]


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
    if metric == "strong_accuracy":
        figure.add_traces(list(_controls(data, points)))
        _add_dense(figure, data)
        for published in _published(data):
            figure.add_trace(_star(published))
    figure.update_layout(
        xaxis={"title": {"text": "sparsity, % of weights removed"}},
        yaxis={"title": {"text": axis_label(metric)}},
        coloraxis=_colour_axis([p.colour for p in points], colour, log=log),
        margin={"b": 110},
    )
    lead, end = front[0], front[-1]
    title = f"{percent(lead.accuracy)} {label(metric)} at {percent(lead.sparsity)} sparsity"
    if end is not lead:
        title = f"From {title} to {percent(end.accuracy)} at {percent(end.sparsity)}"
    return Drawn(
        name=file_name("pareto", metric, colour),
        title=title,
        caption=f"Colour{' and size are' if colour == 'stability' else ' is'} {label(colour)}; the "
        "shape is the gate family; a dark outline marks rank 1 by the sweep's objectives; the "
        f"stepped line joins the trials that no other beats in both figures ({len(front)} of "
        f"{len(points)}){_of_controls(data) if metric == 'strong_accuracy' else ''}.",
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
    hue: dict[str, object] = {"color": GREY, "opacity": 0.6}
    name = f"{family}, no {safe(label(colour))}"
    if points[0].colour is not None:
        values = [_on_scale(point.colour, log=log) for point in points]
        hue, name = {"color": values, "coloraxis": "coloraxis"}, family
    shown = label(colour)
    sizes: list[float] | int = 10
    if colour == "stability":
        sizes = [round(8 + 10 * max(0.0, min(1.0, point.colour or 0.0)), 1) for point in points]
    return go.Scatter(
        x=[scaled(point.sparsity, "sparsity") for point in points],
        y=[scaled(point.accuracy, "val_accuracy") for point in points],
        mode="markers",
        name=name,
        text=[short(point.row["trial_id"]) for point in points],
        customdata=[_told(point.colour) for point in points],
        marker={
            "symbol": symbol,
            "size": sizes,
            **hue,
            "line": {
                "color": [INK if point.rank == 1 else GREY for point in points],
                "width": [2 if point.rank == 1 else 0.5 for point in points],
            },
        },
        hovertemplate=f"<b>trial %{{text}}</b><br>sparsity %{{x:.2f}} %<br>{label(metric)} "
        f"%{{y:.2f}} %<br>{safe(shown)} %{{customdata}}<extra>{family}</extra>",
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
        "y": -0.16,
        "yanchor": "top",
        "title": {"text": label(colour), "side": "top"},
        "outlinewidth": 0,
    }
    if log:
        ticks = [10.0**power for power in range(-9, 10)]
        ticks = [at for at in ticks if min(known) / 3 <= at <= max(known) * 3]
        bar |= {"tickvals": [math.log10(at) for at in ticks], "ticktext": [f"{t:g}" for t in ticks]}
    return {"colorscale": SCALE, "colorbar": bar}


def _controls(data: ReportData, points: Sequence[_Point]) -> Iterator[go.Scatter]:
    for control, symbol in zip(_CONTROLS, _SYMBOLS_OF_CONTROLS, strict=True):
        known = [
            (point, mean)
            for point in points
            if (mean := data.mean_accuracy(point.row, control.label)) is not None
        ]
        if known:
            yield go.Scatter(
                x=[scaled(point.sparsity, "sparsity") for point, _ in known],
                y=[scaled(mean, control.test) for _, mean in known],
                mode="markers",
                name=f"control: {control.label}",
                text=[short(point.row["trial_id"]) for point, _ in known],
                marker={"symbol": symbol, "size": 8, "color": GREY, "line": {"width": 1.5}},
                hovertemplate="<b>trial %{text}</b><br>%{y:.2f} % at %{x:.2f} % sparsity"
                f"<extra>{control.label}</extra>",
            )


def _of_controls(data: ReportData) -> str:
    has = any(data.mean_accuracy(row, each.label) for row in data.complete for each in _CONTROLS)
    return "; grey signs are each ticket's controls" if has else ""


def _add_dense(figure: go.Figure, data: ReportData) -> None:
    means = [data.mean_accuracy(row, _DENSE.label) for row in data.complete]
    known = [mean for mean in means if mean is not None]
    if known and len(data.problems) == 1:
        figure.add_hline(
            y=scaled(fmean(known), _DENSE.test),
            line={"color": VERMILLION, "width": 1.5, "dash": "dash"},
            annotation={
                "text": f"dense network, trained: {percent(fmean(known))}",
                "font": {"color": VERMILLION, "size": 12},
            },
            annotation_position="bottom left",
        )


def _published(data: ReportData) -> list[Published]:
    """What may be shown beside these trials: of the same network, data set and kind of gate."""
    if len(data.problems) != 1:
        return []
    (model, dataset), row = data.problems[0], data.complete[0]
    if figure_of(row, "strong_accuracy") is None or row.get("weights") != "frozen":
        return []
    return list(published_for(model, dataset, structured=row.get("granularity") == "neuron"))


def _star(published: Published) -> go.Scatter:
    return go.Scatter(
        x=[scaled(published.sparsity, "sparsity")],
        y=[scaled(published.accuracy, STRONG.test)],
        mode="markers+text",
        name=f"published: {published.method}",
        text=["published"],
        textposition="bottom center",
        marker={"symbol": "star", "size": 15, "color": VERMILLION},
        hovertemplate=f"<b>{published.method}</b><br>%{{y:.1f}} % at %{{x:.1f}} % sparsity"
        f"<br>{published.source}<extra></extra>",
    )
