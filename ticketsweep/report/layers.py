"""Layer by layer: what is kept, what agrees, and what chance alone would give."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ticketsweep.analysis.layers import ALL_LAYERS
from ticketsweep.analysis.stability import OTHER_INIT, SAME_INIT, Stability, StabilityRow
from ticketsweep.report.drawn import Drawn, Section
from ticketsweep.report.text import file_name, named, rounded, row_of, safe, short
from ticketsweep.report.theme import BLUE, GREEN, GREY, OCHRE, PURPLE, TEMPLATE, VERMILLION
from ticketsweep.results.report import ReportData

_COLUMNS = ("layer", "differs", "density", "jaccard", "expected_jaccard", "corrected", "low",
            "high", "inputs_given", "units_given", "inputs_alive", "units_alive")  # fmt: skip
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
    first = kinds[0][0]
    layers = [row for row in stability.rows if row.differs == first and row.layer != ALL_LAYERS]
    names = [safe(row.layer) for row in layers]
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.05)
    figure.update_layout(template=TEMPLATE, height=640, barmode="group")
    figure.add_trace(
        go.Bar(
            x=names,
            y=[rounded(100 * row.density) if row.density is not None else None for row in layers],
            marker={"color": GREY},
            name="kept",
            showlegend=False,
            hovertemplate="%{x}: %{y:.1f} % kept<extra></extra>",
        ),
        row=1,
        col=1,
    )
    _add_jaccard(figure, names, layers)
    for differs, colour, symbol in kinds:
        rows = [row_of(stability, differs, row.layer) for row in layers]
        _add_overlap(figure, names, rows, differs, colour, symbol)
    widest = kinds[-1][0]
    given = [row_of(stability, widest, row.layer) for row in layers]
    _add_given(figure, names, given, widest)
    figure.update_yaxes(title={"text": "kept, %"}, rangemode="tozero", row=1, col=1)
    figure.update_yaxes(title={"text": "Jaccard"}, rangemode="tozero", row=2, col=1)
    figure.update_yaxes(title={"text": "overlap beyond chance"}, row=3, col=1)
    figure.add_hline(y=0, line={"color": GREY, "width": 1}, row=3, col=1)
    figure.update_xaxes(type="category")
    gates = "units" if all(row.units_alive is None for row in layers) else "weights"
    return Drawn(
        name=file_name("layers", name),
        title=_title(layers, first),
        caption=f"Top: share of {gates} kept. Middle: raw Jaccard of tickets with {first}, and "
        "what independent masks of the same densities share. Bottom: overlap beyond chance with "
        f"95 % intervals over seeds; given inputs (units): of pairs with {widest}, beyond a "
        "chance that keeps how much of each input (unit) is kept.",
        figure=figure,
        columns=_COLUMNS,
        rows=[[getattr(row, column) for column in _COLUMNS] for row in stability.rows
              if row.differs in (SAME_INIT, OTHER_INIT)],
        choice={"Trial": entry},
    )  # fmt: skip


def _add_jaccard(figure: go.Figure, names: Sequence[str], rows: Sequence[StabilityRow]) -> None:
    for at, row in enumerate(rows):
        if row.jaccard is not None and row.expected_jaccard is not None:
            figure.add_trace(
                go.Scatter(
                    x=[names[at]] * 2,
                    y=[rounded(row.expected_jaccard), rounded(row.jaccard)],
                    mode="lines",
                    line={"color": GREY, "width": 2},
                    showlegend=False,
                    hoverinfo="skip",
                ),
                row=2,
                col=1,
            )
    for label, field, symbol in (
        ("Jaccard by chance", "expected_jaccard", "circle-open"),
        ("raw Jaccard", "jaccard", "diamond"),
    ):
        figure.add_trace(
            go.Scatter(
                x=names,
                y=[rounded(getattr(row, field)) for row in rows],
                mode="markers",
                name=label,
                marker={"color": PURPLE, "symbol": symbol, "size": 10, "line": {"width": 2}},
                hovertemplate=f"%{{x}}: {label} %{{y:.3f}}<extra></extra>",
            ),
            row=2,
            col=1,
        )


def _add_overlap(
    figure: go.Figure,
    names: Sequence[str],
    rows: Sequence[StabilityRow | None],
    differs: str,
    colour: str,
    symbol: str,
) -> None:
    known = [row if row is not None and row.corrected is not None else None for row in rows]
    mean = [row.corrected if row else None for row in known]
    up = [row.high - row.corrected if row and row.high is not None and row.corrected is not None
          else 0 for row in known]  # fmt: skip
    down = [row.corrected - row.low if row and row.low is not None and row.corrected is not None
            else 0 for row in known]  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=names,
            y=[rounded(value) for value in mean],
            mode="markers",
            name=differs,
            marker={"color": colour, "symbol": symbol, "size": 10},
            error_y={
                "type": "data",
                "array": [rounded(value) for value in up],
                "arrayminus": [rounded(value) for value in down],
                "thickness": 1.5,
                "width": 4,
            },
            hovertemplate=f"%{{x}}: {differs} %{{y:.3f}}<extra></extra>",
        ),
        row=3,
        col=1,
    )


def _add_given(
    figure: go.Figure, names: Sequence[str], rows: Sequence[StabilityRow | None], differs: str
) -> None:
    for what, colour, symbol in (
        ("inputs", GREEN, "triangle-up"),
        ("units", OCHRE, "triangle-down"),
    ):
        values = [getattr(row, f"{what}_given") if row else None for row in rows]
        if any(value is not None for value in values):
            figure.add_trace(
                go.Scatter(
                    x=names,
                    y=[rounded(value) for value in values],
                    mode="markers",
                    name=f"{differs}, given {what}",
                    marker={"color": colour, "symbol": f"{symbol}-open", "size": 9,
                            "line": {"width": 2}},
                    hovertemplate=f"%{{x}}: given {what} %{{y:.3f}}<extra></extra>",
                ),
                row=3,
                col=1,
            )  # fmt: skip


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
