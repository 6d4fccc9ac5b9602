"""What the ticket is worth: its accuracy beside that of the networks it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev

import plotly.graph_objects as go

from ticketsweep.display.figures import short
from ticketsweep.report.drawn import Cell, Drawn, Section
from ticketsweep.report.text import file_name, named, percent, scaled, with_sd
from ticketsweep.report.theme import BLUE, GREEN, GREY, VERMILLION, blank
from ticketsweep.results.networks import NETWORKS, Difference
from ticketsweep.results.ranking import Ranked
from ticketsweep.results.report import ReportData

_TEST = "strong_accuracy"  # any accuracy: they share an axis


def section(data: ReportData) -> Section:
    """A figure for each of the best trials that was tested."""
    figures = [
        _figure(data, ranked)
        for ranked in data.best
        if data.accuracies(str(ranked.row["trial_id"]))
    ]
    notes = []
    if not figures:
        notes.append("No trial has an accuracy on the test split.")
    elif max(len(data.accuracies(str(e.row["trial_id"]))) for e in data.best) < 2:
        notes.append(
            "Nothing to compare the tickets with: `controls: [shuffled_mask, reinitialized, "
            "random_mask]` and `retrain: {steps: …}` would train what tells a ticket from a lucky "
            "density."
        )
    return Section(
        "accuracies",
        "What the ticket is worth",
        "A ticket that does no better than its own mask shuffled, or than the same mask on other "
        "weights, has found how many weights each layer needs, and no ticket.",
        figures,
        notes,
    )


def _figure(data: ReportData, ranked: Ranked) -> Drawn:
    trial_id = str(ranked.row["trial_id"])
    found = data.accuracies(trial_id)
    labels = [network.label for network in NETWORKS if network.label in found]
    figure = blank(110 + 52 * len(labels), showlegend=False)
    for at, label in enumerate(labels):
        values = found[label]
        hue, symbol = _look(label)
        count = len(values)
        figure.add_trace(
            go.Scatter(
                x=[scaled(value, _TEST) for value in values],
                y=[at + 0.3 * (i / max(count - 1, 1) - 0.5) for i in range(count)],
                mode="markers",
                marker={"color": hue, "size": 6, "opacity": 0.5},
                text=[str(i) for i in range(count)],
                hovertemplate=f"{label}, replicate %{{text}}: %{{x:.2f}} %<extra></extra>",
            )
        )
        figure.add_trace(
            go.Scatter(
                x=[scaled(fmean(values), _TEST)],
                y=[at],
                mode="markers",
                marker={"color": hue, "size": 13, "symbol": symbol},
                error_x={
                    "type": "data",
                    "array": [scaled(stdev(values), _TEST) if count > 1 else 0],
                    "thickness": 2,
                    "width": 6,
                },
                hovertemplate=f"{label}: {with_sd(values)}, n = {count}<extra></extra>",
            )
        )
    figure.update_yaxes(
        tickvals=list(range(len(labels))),
        ticktext=[label.replace(": ", ":<br>").replace(", ", ",<br>") for label in labels],
        range=[len(labels) - 0.5, -0.5],
        showgrid=False,
    )
    figure.update_xaxes(title={"text": "test accuracy, %"})
    differences = data.summary.differences.get(trial_id, [])
    return Drawn(
        name=file_name("accuracies", short(trial_id)),
        title=_title(found[labels[0]], labels[0], ranked, differences),
        caption="Small points are replicates, the large sign their mean with ± one standard "
        f"deviation (n = {len(found[labels[0]])}). {_told(differences)}".strip(),
        figure=figure,
        columns=("network", "replicates", "mean", "sd", "least", "most"),
        rows=[_record(label, found[label]) for label in labels],
        choice={"Trial": named(ranked.rank, ranked.row)},
    )


def _look(label: str) -> tuple[str, str]:
    if label.startswith("strong"):
        return BLUE, "diamond"
    if label.startswith("dense"):
        return VERMILLION, "square"
    return (GREEN, "triangle-up") if label.startswith(("retrained", "joint")) else (GREY, "cross")


def _record(label: str, values: list[float]) -> list[Cell]:
    sd = stdev(values) if len(values) > 1 else None
    return [label, len(values), fmean(values), sd, min(values), max(values)]


def _title(
    values: list[float], label: str, ranked: Ranked, differences: Sequence[Difference]
) -> str:
    first = differences[0] if differences else None
    if first is not None and first.of.label == label:
        points = 100 * first.mean
        side = "above" if points >= 0 else "below"
        return (
            f"The {label} lies {abs(points):.1f} points {side} its best control "
            f"({first.less.label})"
        )
    sparsity = ranked.row.get("sparsity")
    return f"{label[0].upper()}{label[1:]}: {with_sd(values)} at {percent(sparsity)} sparsity"


def _told(differences: Sequence[Difference]) -> str:
    parts = [
        f"{each.of.label} less {each.less.label} {100 * each.mean:+.1f} points "
        f"({100 * each.low:+.1f} to {100 * each.high:+.1f})"
        for each in differences
    ]
    return f"Replicate by replicate, mean (least to most): {'; '.join(parts)}." if parts else ""
