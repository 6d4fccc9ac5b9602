"""Layer by layer: what is kept, what agrees, and what chance alone would give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from ticketsweep.analysis.layers import ALL_LAYERS
from ticketsweep.analysis.stability import OTHER_INIT, SAME_INIT, Stability, StabilityRow
from ticketsweep.display.figures import short
from ticketsweep.report.drawn import Drawn, Section
from ticketsweep.report.text import file_name, named, rounded, row_of, safe, scaled
from ticketsweep.report.theme import BLUE, GREEN, GREY, OCHRE, PURPLE, VERMILLION, panels
from ticketsweep.results.report import ReportData

_COLUMNS = ("layer", "differs", "density", "jaccard", "expected_jaccard", "corrected", "low",
            "high", "inputs_given", "units_given", "inputs_alive", "units_alive")  # fmt: skip
_GIVEN = (("inputs", GREEN, "triangle-up"), ("units", OCHRE, "triangle-down"))
_KINDS = ((SAME_INIT, BLUE, "circle"), (OTHER_INIT, VERMILLION, "square"))


def section(data: ReportData) -> Section:
    """All compared trials together, then each of the best."""
    figures = []
    if data.together is not None and len(data.stability) > 1:
        trials = max(row.trials for row in data.together.rows)
        figures.append(_figure("together", f"mean of {trials} trials", data.together))
    for ranked in data.best:
        stability = data.stability.get(str(ranked.row["trial_id"]))
        if stability is not None:
            name = short(ranked.row["trial_id"])
            figures.append(_figure(name, named(ranked.rank, ranked.row), stability))
    return Section(
        "layers",
        "Layer by layer",
        "Raw overlap misleads: two random masks that keep 55 % of a layer share a Jaccard of 0.38. "
        "So chance stands beside it, and below it what is left once chance is taken out.",
        figures,
        () if figures else ("No masks of two replicates to compare.",),
    )


def _figure(name: str, entry: str, stability: Stability) -> Drawn:
    kinds = [kind for kind in _KINDS if any(row.differs == kind[0] for row in stability.rows)]
    first, widest = kinds[0][0], kinds[-1][0]
    layers = [row for row in stability.rows if row.differs == first and row.layer != ALL_LAYERS]
    names = [safe(row.layer) for row in layers]
    figure = panels(3, 640)
    figure.add_trace(_kept(names, layers), row=1, col=1)
    figure.add_traces([_gap(layers), *_jaccards(names, layers)], rows=[2] * 3, cols=[1] * 3)
    marks = [
        _Mark(
            differs,
            "corrected",
            colour,
            symbol,
            [row_of(stability, differs, row.layer) for row in layers],
        )
        for differs, colour, symbol in kinds
    ]
    given = [row_of(stability, widest, row.layer) for row in layers]
    marks += [
        _Mark(f"{widest}, given {what}", f"{what}_given", colour, f"{symbol}-open", given)
        for what, colour, symbol in _GIVEN
        if any(row is not None and getattr(row, f"{what}_given") is not None for row in given)
    ]
    for at, mark in enumerate(marks):
        shift = 0.12 * (at - (len(marks) - 1) / 2)
        figure.add_trace(mark.trace(names, shift), row=3, col=1)
    figure.update_yaxes(title={"text": "kept, %"}, rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title={"text": "Jaccard"}, rangemode="tozero", row=2, col=1)
    figure.update_yaxes(title={"text": "overlap"}, row=3, col=1)
    figure.add_hline(y=0, line={"color": GREY, "width": 1}, row=3, col=1)
    places = list(range(len(names)))
    figure.update_xaxes(tickvals=places, ticktext=names, range=[-0.6, len(names) - 0.4])
    gates = "units" if all(row.units_alive is None for row in layers) else "weights"
    records = [row for row in stability.rows if row.differs in (SAME_INIT, OTHER_INIT)]
    return Drawn(
        name=file_name("layers", name),
        title=_title(layers, first),
        caption=f"Top: share of {gates} kept. Middle: raw Jaccard of tickets with {first}, and "
        "what independent masks of the same densities share. Bottom: overlap beyond chance with "
        f"95 % intervals over seeds; given inputs (units): of pairs with {widest}, beyond a "
        "chance that keeps how much of each input (unit) is kept.",
        figure=figure,
        columns=_COLUMNS,
        rows=[[getattr(row, column) for column in _COLUMNS] for row in records],
        choice={"Trial": entry},
    )


def _kept(names: Sequence[str], rows: Sequence[StabilityRow]) -> go.Bar:
    return go.Bar(
        x=list(range(len(names))),
        y=[scaled(row.density, "density") for row in rows],
        width=0.5,
        text=names,
        textposition="none",
        marker={"color": GREY},
        showlegend=False,
        hovertemplate="%{text}: %{y:.1f} % kept<extra></extra>",
    )


def _gap(rows: Sequence[StabilityRow]) -> go.Scatter:
    """Lines from what chance gives to what was found."""
    x: list[int | None] = []
    y: list[float | None] = []
    for at, row in enumerate(rows):
        if row.jaccard is not None and row.expected_jaccard is not None:
            x += [at, at, None]
            y += [rounded(row.expected_jaccard), rounded(row.jaccard), None]
    line = {"color": GREY, "width": 2}
    return go.Scatter(x=x, y=y, mode="lines", line=line, showlegend=False, hoverinfo="skip")


def _jaccards(names: Sequence[str], rows: Sequence[StabilityRow]) -> list[go.Scatter]:
    return [
        go.Scatter(
            x=list(range(len(names))),
            y=[rounded(getattr(row, field)) for row in rows],
            mode="markers",
            name=told,
            text=names,
            marker={
                "color": PURPLE,
                "symbol": symbol,
                "size": 10,
                "line": {"width": 2, "color": PURPLE},
            },
            hovertemplate=f"%{{text}}: {told} %{{y:.3f}}<extra></extra>",
        )
        for told, field, symbol in (
            ("Jaccard by chance", "expected_jaccard", "circle-open"),
            ("raw Jaccard", "jaccard", "diamond"),
        )
    ]


@dataclass(frozen=True)
class _Mark:
    """One figure of every layer, with its interval if it is the overlap itself."""

    told: str
    field: str
    colour: str
    symbol: str
    rows: Sequence[StabilityRow | None]

    def _ends(self, row: StabilityRow | None) -> tuple[float, float]:
        """How far the interval reaches down and up; 0 where there is none."""
        if self.field != "corrected" or row is None or row.corrected is None:
            return 0.0, 0.0
        low = row.corrected if row.low is None else row.low
        high = row.corrected if row.high is None else row.high
        return row.corrected - low, high - row.corrected

    def trace(self, names: Sequence[str], shift: float) -> go.Scatter:
        values = [getattr(row, self.field) if row else None for row in self.rows]
        ends = [self._ends(row) for row in self.rows]
        up, down = [rounded(high) for _, high in ends], [rounded(low) for low, _ in ends]
        return go.Scatter(
            x=[at + shift for at in range(len(names))],
            y=[rounded(value) for value in values],
            mode="markers",
            name=self.told,
            text=names,
            marker={
                "color": self.colour,
                "symbol": self.symbol,
                "size": 10,
                "line": {"width": 2, "color": self.colour},
            },
            error_y={"type": "data", "array": up, "arrayminus": down, "thickness": 1.5, "width": 4},
            hovertemplate=f"%{{text}}: {self.told} %{{y:.3f}}<extra></extra>",
        )


def _title(rows: Sequence[StabilityRow], differs: str) -> str:
    known = [(row.corrected, row.layer) for row in rows if row.corrected is not None]
    if not known:
        return "No layer has an overlap: its masks keep all gates or none"
    if len(known) == 1:
        return f"Tickets with {differs} overlap by {known[0][0]:z.2f} beyond chance"
    (most, top), (least, bottom) = max(known), min(known)
    return (
        f"Tickets with {differs} agree most in {top} ({most:z.2f}) and least in {bottom} "
        f"({least:z.2f})"
    )
