"""Where along training the masks settle, of the trials that kept snapshots of them."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from ticketsweep.analysis.settling import SETTLED
from ticketsweep.display.figures import plural, short
from ticketsweep.report.drawn import Cell, Drawn, Section
from ticketsweep.report.text import file_name, named, scaled
from ticketsweep.report.theme import BLUE, GREEN, GREY, VERMILLION, panels
from ticketsweep.results.ranking import Ranked
from ticketsweep.results.report import ReportData
from ticketsweep.results.settling import Settling, SettlingPoint

_SHARE = "density"  # any share: they have one unit
_LINES = (
    ("in_common", "in common with the ticket", BLUE, "solid", "circle"),
    ("density", "kept", GREY, "dot", "square"),
    ("change", "moved since the point before", GREEN, "dash", "triangle-up"),
)


def section(data: ReportData) -> Section | None:
    """A figure for each of the best trials with snapshots; nothing where no trial has any."""
    ranked = {str(each.row["trial_id"]): each for each in data.best}
    figures = [
        _figure(ranked[str(each.group[0])], each)
        for each in data.settling.groups
        if str(each.group[0]) in ranked
    ]
    if not figures:
        return None
    without = data.settling.without
    notes = [f"{plural(without, 'trial')} of the best kept no snapshots."] if without else []
    return Section(
        "settling",
        "Where the masks settle",
        "The masks as they were along training, held against the ticket that they became.",
        figures,
        notes,
    )


def _figure(ranked: Ranked, settling: Settling) -> Drawn:
    points = settling.points
    has_seeds = any(point.between is not None for point in points)
    figure = panels(2 if has_seeds else 1, 520 if has_seeds else 330)
    for field, told, hue, dash, symbol in _LINES:
        if any(getattr(point, field) is not None for point in points):
            figure.add_trace(_line(points, field, told, hue, dash, symbol), row=1, col=1)
    if has_seeds:
        figure.add_trace(_seeds(points), row=2, col=1)
        figure.update_yaxes(title={"text": "seeds agree"}, row=2, col=1)
    if settling.settled_at is not None:
        figure.add_vline(x=settling.settled_at.mean, line={"color": GREY, "dash": "dash"})
    figure.update_yaxes(title={"text": "% of gates"}, rangemode="tozero", row=1, col=1)
    figure.update_xaxes(title={"text": "step"}, row=2 if has_seeds else 1, col=1)
    return Drawn(
        name=file_name("settling", short(ranked.row["trial_id"])),
        title=_title(settling),
        caption=f"Means of {plural(settling.replicates, 'replicate')} with their standard "
        "deviation; in common: of the gates that the larger of mask and ticket keeps; seeds "
        "agree: overlap beyond chance of replicates of the same initial weights at that step, "
        f"with its 95 % interval; dashed line: settled, with {100 * SETTLED:.0f} % in common.",
        figure=figure,
        columns=("step", "in_common", "density", "change", "hamming", "overlap", "seeds agree"),
        rows=[_record(point) for point in points],
        choice={"Trial": named(ranked.rank, ranked.row)},
    )


def _title(settling: Settling) -> str:
    last = settling.points[-1].step
    if settling.settled_at is None:
        return "No ticket keeps anything, so there is nothing to settle on"
    at = settling.settled_at
    spread = f" ± {at.sd:.0f}" if at.sd is not None else ""
    return f"The masks are settled at step {at.mean:.0f}{spread} of {last:,}"


def _line(
    points: Sequence[SettlingPoint], field: str, told: str, hue: str, dash: str, symbol: str
) -> go.Scatter:
    spreads = [getattr(point, field) for point in points]
    return go.Scatter(
        x=[point.step for point in points],
        y=[scaled(each.mean, _SHARE) if each else None for each in spreads],
        mode="lines+markers",
        name=told,
        line={"color": hue, "dash": dash, "width": 2},
        marker={"symbol": symbol, "size": 7},
        error_y={
            "type": "data",
            "array": [scaled(each.sd, _SHARE) if each and each.sd else 0 for each in spreads],
            "thickness": 1,
            "width": 2,
        },
        hovertemplate=f"step %{{x}}: %{{y:.1f}} % {told}<extra></extra>",
    )


def _seeds(points: Sequence[SettlingPoint]) -> go.Scatter:
    known = [(point.step, point.between) for point in points if point.between is not None]
    ends = [between.interval for _, between in known]
    return go.Scatter(
        x=[step for step, _ in known],
        y=[between.value for _, between in known],
        mode="lines+markers",
        name="seeds agree",
        line={"color": VERMILLION, "width": 2},
        marker={"symbol": "diamond", "size": 8},
        error_y={
            "type": "data",
            "array": [e.high - b.value if e else 0 for e, (_, b) in zip(ends, known, strict=True)],
            "arrayminus": [
                b.value - e.low if e else 0 for e, (_, b) in zip(ends, known, strict=True)
            ],
            "thickness": 1,
            "width": 3,
        },
        hovertemplate="step %{x}: overlap beyond chance %{y:.2f}<extra></extra>",
    )


def _record(point: SettlingPoint) -> list[Cell]:
    spreads = (point.in_common, point.density, point.change, point.hamming, point.overlap)
    means = [each.mean if each else None for each in spreads]
    return [point.step, *means, point.between.value if point.between else None]
