"""How the gates were learnt: loss, validation accuracy and expected density along the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from ticketsweep.display.figures import short
from ticketsweep.report.drawn import Cell, Drawn, Section
from ticketsweep.report.text import axis_label, file_name, label, named, percent, scaled
from ticketsweep.report.theme import BLUE, DASHES, HUES, panels
from ticketsweep.results.ranking import Ranked
from ticketsweep.results.report import CurvePoint, ReportData

_METRICS = ("loss", "val_accuracy", "expected_density")
_MOST = 6  # trials in one figure
_ALL = "the best together"

Curves = Mapping[str, Sequence[CurvePoint]]


def section(data: ReportData) -> Section:
    """The means of the best trials in one figure, then each of them with its spread."""
    known = [each for each in data.best if data.curves.get(str(each.row["trial_id"]))]
    figures = [_together(data, known[:_MOST])] if len(known) > 1 else []
    figures += [_single(each, data.curves[str(each.row["trial_id"])]) for each in known]
    return Section(
        "curves",
        "Along the training",
        "The soft gates while they learn. Validation accuracy is of the network as it then was; "
        "expected density is the mean probability that a gate is open.",
        figures,
        () if figures else ("No curves are stored of these trials.",),
    )


def _together(data: ReportData, trials: Sequence[Ranked]) -> Drawn:
    curves = [data.curves[str(each.row["trial_id"])] for each in trials]
    metrics = [name for name in _METRICS if any(name in each for each in curves)]
    figure = _panels(metrics)
    for at, (each, own) in enumerate(zip(trials, curves, strict=True)):
        hue, dash = HUES[at % len(HUES)], DASHES[at % len(DASHES)]
        for panel, metric in enumerate(metrics, start=1):
            points = own.get(metric, [])
            trace = _line(points, metric, named(each.rank, each.row), hue, dash)
            trace.update(legendgroup=str(at), showlegend=panel == 1)
            figure.add_trace(trace, row=panel, col=1)
    return Drawn(
        name="curves",
        title="Do the best trials learn alike?",
        caption=f"Means over the replicates of {len(trials)} of the best trials.",
        figure=figure,
        columns=("trial", "figure", "step", "mean", "least", "most", "replicates"),
        rows=[r for each, own in zip(trials, curves, strict=True) for r in _records(each, own)],
        choice={"Curves": _ALL},
    )


def _single(ranked: Ranked, curves: Curves) -> Drawn:
    metrics = [name for name in _METRICS if name in curves]
    figure = _panels(metrics)
    for panel, metric in enumerate(metrics, start=1):
        points = curves[metric]
        steps = [point.step for point in points]
        figure.add_trace(
            go.Scatter(
                x=[*steps, *reversed(steps)],
                y=[scaled(p.high, metric) for p in points]
                + [scaled(p.low, metric) for p in reversed(points)],
                fill="toself",
                mode="none",
                fillcolor="rgba(86,140,190,0.25)",
                hoverinfo="skip",
                showlegend=False,
            ),
            row=panel,
            col=1,
        )
        trace = _line(points, metric, label(metric), BLUE, "solid")
        trace.update(showlegend=False)
        figure.add_trace(trace, row=panel, col=1)
    replicates = max(point.n for points in curves.values() for point in points)
    return Drawn(
        name=file_name("curves", short(ranked.row["trial_id"])),
        title=_title(curves),
        caption=f"Mean of {replicates} replicate{'s' if replicates > 1 else ''}; the band runs "
        "from the least to the most of them.",
        figure=figure,
        columns=("trial", "figure", "step", "mean", "least", "most", "replicates"),
        rows=_records(ranked, curves),
        choice={"Curves": named(ranked.rank, ranked.row)},
    )


def _panels(metrics: Sequence[str]) -> go.Figure:
    figure = panels(len(metrics), 110 + 190 * len(metrics))
    for panel, metric in enumerate(metrics, start=1):
        figure.update_yaxes(title={"text": axis_label(metric)}, row=panel, col=1)
    figure.update_xaxes(title={"text": "step"}, row=len(metrics), col=1)
    return figure


def _line(
    points: Sequence[CurvePoint], metric: str, name: str, colour: str, dash: str
) -> go.Scatter:
    return go.Scatter(
        x=[point.step for point in points],
        y=[scaled(point.mean, metric) for point in points],
        mode="lines",
        name=name,
        line={"color": colour, "width": 2, "dash": dash},
        hovertemplate=f"step %{{x}}: {label(metric)} %{{y}}<extra>{name}</extra>",
    )


def _title(curves: Curves) -> str:
    density = curves.get("expected_density")
    if not density:
        return "How the gates were learnt"
    return (
        f"Expected density goes from {percent(density[0].mean)} to {percent(density[-1].mean)} in "
        f"{density[-1].step:,} steps"
    )


def _records(ranked: Ranked, curves: Curves) -> list[list[Cell]]:
    return [
        [short(ranked.row["trial_id"]), metric, p.step, p.mean, p.low, p.high, p.n]
        for metric, points in curves.items()
        for p in points
    ]
