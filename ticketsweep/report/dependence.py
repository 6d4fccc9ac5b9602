"""How stability, accuracy and sparsity move with each setting that was searched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

import plotly.graph_objects as go
from scipy.special import stdtrit

from ticketsweep.analysis.intervals import CONFIDENCE, MIN_SEEDS
from ticketsweep.analysis.layers import ALL_LAYERS
from ticketsweep.analysis.trends import Trend, rank_correlation
from ticketsweep.display.figures import short
from ticketsweep.report.drawn import Cell, Drawn, Section
from ticketsweep.report.text import (
    axis_label,
    file_name,
    label,
    listed,
    overlap,
    rounded,
    safe,
    same_init,
    scaled,
    value_of,
)
from ticketsweep.report.theme import BLUE, GREY, HUES, SYMBOLS, VERMILLION, blank, panels
from ticketsweep.results.report import ReportData, Setting
from ticketsweep.results.rows import Row, figure_of, finite_number

_METRICS = ("stability", "strong_accuracy", "sparsity")
_MOST_SETTINGS = 12
_MOST_LAYERS = 6
_WIDE = 20  # a range of numbers that asks for a logarithmic axis


def section(data: ReportData) -> Section:
    """A figure a setting; another with the layers kept apart."""
    settings = data.settings[:_MOST_SETTINGS]
    figures = [drawn for setting in settings if (drawn := _figure(data, setting)) is not None]
    figures += [drawn for setting in settings if (drawn := _by_layer(data, setting)) is not None]
    notes = []
    if not figures:
        notes.append("No setting differs between complete trials, so there is nothing to compare.")
    if len(data.settings) > _MOST_SETTINGS:
        rest = ", ".join(setting.key for setting in data.settings[_MOST_SETTINGS:])
        notes.append(f"Not drawn, for there are many: {rest}.")
    return Section(
        "settings",
        "What each setting does",
        "The search varies all settings at once, and tries more of what did well, so a trend shows "
        "what went together, not what caused it.",
        figures,
        notes,
    )


def _figure(data: ReportData, setting: Setting) -> Drawn | None:
    rows = [row for row in data.complete if row["trial_id"] in setting.values]
    metrics = [m for m in _METRICS if any(figure_of(row, m) is not None for row in rows)]
    if not metrics:
        return None
    place = _Axis(setting)
    figure = panels(len(metrics), 120 + 190 * len(metrics), showlegend=False)
    is_averaged = False
    for at, metric in enumerate(metrics, start=1):
        figure.add_trace(_points(data, rows, setting, place, metric), row=at, col=1)
        means = _means(rows, setting, place, metric)
        if means is not None:
            is_averaged = True
            figure.add_trace(means, row=at, col=1)
        text = "stability" if metric == "stability" else axis_label(metric)
        figure.update_yaxes(title={"text": text}, row=at, col=1)
    figure.update_xaxes(**place.axis)
    figure.update_xaxes(title={"text": safe(setting.key)}, row=len(metrics), col=1)
    trends = {metric: _trend(rows, setting, metric) for metric in metrics}
    return Drawn(
        name=file_name("setting", setting.key),
        title=_title(setting, trends),
        caption=_caption(setting, trends, rows, is_averaged=is_averaged),
        figure=figure,
        columns=("trial", setting.key, *metrics, "stability_low", "stability_high"),
        rows=[_record(data, row, setting, metrics) for row in rows],
        choice={"Setting": setting.key, "Layers": "all layers"},
    )


class _Axis:
    """Where the values of a setting lie: on an axis of numbers, or in columns."""

    def __init__(self, setting: Setting) -> None:
        values = setting.distinct
        self.columns = values if setting.has_few_values or not setting.is_number else []
        self.is_log = False
        if not self.columns:
            numbers = [float(str(value)) for value in values]
            self.is_log = min(numbers) > 0 and max(numbers) / min(numbers) > _WIDE

    @property
    def axis(self) -> dict[str, object]:
        """Of the figure's layout."""
        if self.columns:
            ticks = [_shortened(value) for value in self.columns]
            at = list(range(len(ticks)))
            return {"tickvals": at, "ticktext": ticks, "range": [-0.5, len(ticks) - 0.5]}
        return {"type": "log"} if self.is_log else {}

    def at(self, value: object, turn: int) -> float | None:
        """The place of a value; points of one column lie beside each other by `turn`."""
        if self.columns:
            return self.columns.index(value) + 0.24 * ((turn * 0.618034) % 1 - 0.5)
        return finite_number(value)


def _shortened(value: object) -> str:
    told = value_of(value)
    return safe(told if len(told) <= 24 else f"{told[:23]}…")


def _points(
    data: ReportData, rows: Sequence[Row], setting: Setting, place: _Axis, metric: str
) -> go.Scatter:
    """Every trial, with its interval over seeds or its spread over replicates."""
    known = [row for row in rows if figure_of(row, metric) is not None]
    means = [figure_of(row, metric) or 0.0 for row in known]
    up, down = [], []
    for row, mean in zip(known, means, strict=True):
        low, high = _spread(data, row, metric, mean)
        up.append(scaled(high - mean, metric))
        down.append(scaled(mean - low, metric))
    return go.Scatter(
        x=[place.at(setting.values[row["trial_id"]], turn) for turn, row in enumerate(known)],
        y=[scaled(mean, metric) for mean in means],
        mode="markers",
        text=[short(row["trial_id"]) for row in known],
        customdata=[value_of(setting.values[row["trial_id"]]) for row in known],
        error_y={"type": "data", "array": up, "arrayminus": down, "color": GREY, "width": 0,
                 "thickness": 1},
        marker={"color": BLUE, "size": 8, "line": {"width": 0}},
        hovertemplate=f"<b>trial %{{text}}</b><br>{safe(setting.key)} %{{customdata}}<br>"
        f"{label(metric)} %{{y}}<extra></extra>",
    )  # fmt: skip


def _spread(data: ReportData, row: Row, metric: str, mean: float) -> tuple[float, float]:
    """The interval of stability; mean less and plus the standard deviation of other figures."""
    if metric == "stability":
        found = same_init(data.stability.get(str(row["trial_id"])))
        if found is None or found.low is None or found.high is None:
            return mean, mean
        return found.low, found.high
    spread = data.summary.spread(row, metric)
    sd = spread.sd if spread and spread.sd else 0.0
    return mean - sd, mean + sd


def _means(rows: Sequence[Row], setting: Setting, place: _Axis, metric: str) -> go.Scatter | None:
    """The mean of each value's trials with a 95 % interval, where a setting has few values."""
    found = []
    for value in place.columns:
        own = [
            row
            for row in rows
            if setting.values[row["trial_id"]] == value and row["trial_id"] in setting.averaged
        ]
        known = [v for row in own if (v := figure_of(row, metric)) is not None]
        if not known:
            continue
        row = same_init(setting.by_value.get(value)) if metric == "stability" else None
        if row is not None and row.corrected is not None:
            mean, low, high, n = row.corrected, row.low, row.high, row.trials
        else:
            mean, n = fmean(known), len(known)
            half = _half_width(known)
            low, high = (None, None) if half is None else (mean - half, mean + half)
        found.append((value, mean, low, high, n))
    if not found:
        return None
    return go.Scatter(
        x=[place.columns.index(value) + 0.32 for value, *_ in found],
        y=[scaled(mean, metric) for _, mean, *_ in found],
        mode="markers",
        customdata=[n for *_, n in found],
        error_y={
            "type": "data",
            "array": [scaled(high - mean, metric) if high else 0 for _, mean, _, high, _ in found],
            "arrayminus": [
                scaled(mean - low, metric) if low is not None else 0 for _, mean, low, _, _ in found
            ],
            "color": VERMILLION,
            "thickness": 2,
            "width": 5,
        },
        marker={"symbol": "diamond", "size": 11, "color": VERMILLION},
        hovertemplate=f"mean of %{{customdata}} trials<br>{label(metric)} %{{y}}<extra></extra>",
    )


def _half_width(values: Sequence[float]) -> float | None:
    """Of Student's interval for the mean; None of fewer than three."""
    n = len(values)
    if n < MIN_SEEDS:
        return None
    return float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * stdev(values) / math.sqrt(n)


def _trend(rows: Sequence[Row], setting: Setting, metric: str) -> Trend | None:
    if not setting.is_number:
        return None
    known = [
        (float(str(setting.values[row["trial_id"]])), value)
        for row in rows
        if (value := figure_of(row, metric)) is not None
    ]
    return rank_correlation([x for x, _ in known], [y for _, y in known])


def _title(setting: Setting, trends: dict[str, Trend | None]) -> str:
    clear = {metric: trend for metric, trend in trends.items() if trend and trend.is_clear}
    ways = []
    for verb, sign in (("rise", 1), ("fall", -1)):
        names = [label(metric) for metric, trend in clear.items() if sign * trend.value > 0]
        if names:
            ways.append(f"{listed(names)} {verb}{'' if len(names) > 1 else 's'}")
    if ways:
        told = "; ".join(ways)
        return f"{told[0].upper()}{told[1:]} with {setting.key}"
    if any(trends.values()):
        return f"No clear trend with {setting.key}"
    return f"What difference does {setting.key} make?"


def _caption(
    setting: Setting, trends: dict[str, Trend | None], rows: Sequence[Row], *, is_averaged: bool
) -> str:
    ranks = "; ".join(f"{label(m)} {trend}" for m, trend in trends.items() if trend is not None)
    shown = f"Blue points are {len(rows)} trials with their 95 % interval over seeds (stability) "
    shown += "or the standard deviation over replicates"
    if is_averaged:
        shown += "; diamonds are the mean of each value's trials with a 95 % interval (stability: "
        shown += "over seeds, else over trials)"
        averaged = [row for row in rows if row["trial_id"] in setting.averaged]
        if len(averaged) < len(rows):
            first = averaged[0]
            shown += f", of the {len(averaged)} trials of {first['model']} on {first['dataset']} "
            shown += f"with {first['granularity']} gates alone"
    return f"{shown}. Rank correlation: {ranks}." if ranks else f"{shown}."


def _record(data: ReportData, row: Row, setting: Setting, metrics: Sequence[str]) -> list[Cell]:
    found = same_init(data.stability.get(str(row["trial_id"])))
    value = setting.values[row["trial_id"]]
    return [
        short(row["trial_id"]),
        value if isinstance(value, (int, float)) else str(value),
        *(figure_of(row, metric) for metric in metrics),
        found.low if found else None,
        found.high if found else None,
    ]


def _by_layer(data: ReportData, setting: Setting) -> Drawn | None:
    """Stability of each layer against the setting: a sign and a colour a layer."""
    place = _Axis(setting)
    rows = [
        row
        for row in data.complete
        if row["trial_id"] in setting.values and str(row["trial_id"]) in data.stability
    ]
    names = dict.fromkeys(
        each.layer
        for row in rows
        for each in data.stability[str(row["trial_id"])].rows
        if each.layer != ALL_LAYERS
    )
    shown = list(names)[:_MOST_LAYERS]
    figure = blank(420)
    records: list[list[Cell]] = []
    for at, layer in enumerate(shown):
        x, y, text = [], [], []
        for turn, row in enumerate(rows):
            value = setting.values[row["trial_id"]]
            found = same_init(data.stability[str(row["trial_id"])], layer)
            if found is None or found.corrected is None:
                continue
            shift = 0.1 * (at - (len(shown) - 1) / 2) if place.columns else 0.0
            x.append((place.at(value, turn) or 0.0) + shift)
            y.append(rounded(found.corrected))
            text.append(f"{short(row['trial_id'])}: {overlap(found)}")
            told = value if isinstance(value, (int, float)) else str(value)
            records.append(
                [short(row["trial_id"]), told, layer, found.corrected, found.low, found.high]
            )
        if x:
            hue, symbol = HUES[at % len(HUES)], SYMBOLS[at % len(SYMBOLS)]
            figure.add_trace(
                go.Scatter(
                    x=x,
                    y=y,
                    text=text,
                    mode="markers",
                    name=safe(layer),
                    marker={"color": hue, "symbol": symbol, "size": 8},
                    hovertemplate=f"trial %{{text}}<extra>{safe(layer)}</extra>",
                )
            )
    if not records:
        return None
    figure.update_xaxes(**place.axis, title={"text": safe(setting.key)})
    figure.update_yaxes(title={"text": axis_label("stability")})
    rest = len(names) - len(shown)
    return Drawn(
        name=file_name("setting", setting.key, "layers"),
        title=f"Does {setting.key} move all layers alike?",
        caption="Overlap beyond chance of tickets with the same initial weights, a sign a trial "
        f"and layer{f'; {rest} further layers are not drawn' if rest else ''}.",
        figure=figure,
        columns=("trial", setting.key, "layer", "stability", "low", "high"),
        rows=records,
        choice={"Setting": setting.key, "Layers": "layer by layer"},
    )
