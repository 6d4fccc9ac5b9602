"""What a sweep's tickets are seen beside: their controls, the dense network, published figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

import plotly.graph_objects as go

from ticketsweep.display.figures import short
from ticketsweep.report.published import published_for
from ticketsweep.report.text import percent, scaled
from ticketsweep.report.theme import GREY, VERMILLION
from ticketsweep.results.networks import NETWORKS
from ticketsweep.results.report import ReportData
from ticketsweep.results.rows import Row, config_of, figure_of

_SYMBOLS = {
    "shuffled_mask_accuracy": "x-thin",
    "reinitialized_accuracy": "triangle-down-open",
    "random_mask_accuracy": "cross-thin",
}
_CONTROLS = [network for network in NETWORKS if network.test in _SYMBOLS]
_DENSE = next(network for network in NETWORKS if network.test == "dense_accuracy")
_TEST = "strong_accuracy"
_AS_PUBLISHED = {"width": 1.0, "activation": "relu"}  # what a trial without the setting has too


def controls(data: ReportData, rows: Sequence[Row]) -> Iterator[go.Scatter]:
    """A trace a control, on the second vertical axis: each trial's mean."""
    for control in _CONTROLS:
        known = [
            (row, sparsity, mean)
            for row in rows
            if (mean := data.mean_accuracy(row, control.label)) is not None
            and (sparsity := figure_of(row, "sparsity")) is not None
        ]
        if known:
            yield go.Scatter(
                x=[scaled(sparsity, "sparsity") for _, sparsity, _ in known],
                y=[scaled(mean, control.test) for *_, mean in known],
                yaxis="y2",
                mode="markers",
                name=f"control: {control.label}",
                text=[short(row["trial_id"]) for row, *_ in known],
                marker={
                    "symbol": _SYMBOLS[control.test],
                    "size": 8,
                    "color": GREY,
                    "line": {"width": 1.5, "color": GREY},
                },
                hovertemplate="<b>trial %{text}</b><br>%{y:.2f} % at %{x:.2f} % sparsity"
                f"<extra>{control.label}</extra>",
            )


def dense_line(data: ReportData) -> Iterator[go.Scatter]:
    """The mean accuracy of the dense networks that were trained beside the tickets."""
    means = [data.mean_accuracy(row, _DENSE.label) for row in data.complete]
    known = [mean for mean in means if mean is not None]
    spans = [figure_of(row, "sparsity") for row in data.complete]
    ends = [value for value in spans if value is not None]
    if known and ends and len(data.problems) == 1:
        height = scaled(fmean(known), _TEST)
        yield go.Scatter(
            x=[scaled(min(ends), "sparsity"), scaled(max(ends), "sparsity")],
            y=[height, height],
            mode="lines",
            name=f"dense network, trained: {percent(fmean(known))}",
            line={"color": VERMILLION, "width": 1.5, "dash": "dash"},
            hovertemplate="dense network, trained: %{y:.2f} %<extra></extra>",
        )


def stars(data: ReportData) -> Iterator[go.Scatter]:
    """What was published of the same network, data set and kind of gate, on frozen weights.

    Nothing where the complete trials are not all of that one kind: a star beside them would be
    read as of them all.
    """
    if len(data.problems) != 1:
        return
    (model, dataset), row = data.problems[0], data.complete[0]
    if figure_of(row, _TEST) is None or row.get("weights") != "frozen":
        return
    if len({_kind(each) for each in data.complete}) > 1 or not _is_as_published(row):
        return
    is_structured = row.get("granularity") == "neuron"
    for each in published_for(model, dataset, structured=is_structured):
        yield go.Scatter(
            x=[scaled(each.sparsity, "sparsity")],
            y=[scaled(each.accuracy, _TEST)],
            mode="markers",
            name=f"published: {each.method}",
            marker={"symbol": "star", "size": 15, "color": VERMILLION},
            hovertemplate=f"<b>{each.method}</b><br>%{{y:.1f}} % at %{{x:.1f}} % sparsity"
            f"<br>{each.source}<extra></extra>",
        )


def _kind(row: Row) -> tuple[object, ...]:
    config = config_of(row)
    sizes = [config.get(key, default) for key, default in _AS_PUBLISHED.items()]
    return (row.get("granularity"), row.get("weights"), *sizes)


def _is_as_published(row: Row) -> bool:
    config = config_of(row)
    return all(config.get(key, default) == default for key, default in _AS_PUBLISHED.items())
