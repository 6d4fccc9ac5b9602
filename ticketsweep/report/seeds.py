"""Which seed decides the ticket: shares of it, stacked layer by layer, and with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ticketsweep.analysis.attribution import Attribution, Estimate
from ticketsweep.analysis.stability import Stability
from ticketsweep.display.figures import short
from ticketsweep.report.drawn import Cell, Drawn, Section
from ticketsweep.report.text import estimate, file_name, named, rounded, safe
from ticketsweep.report.theme import BLUE, GREEN, GREY, OCHRE, VERMILLION, blank, filled
from ticketsweep.results.report import ReportData

_WORDS = {
    "common": "common to all",
    "init": "initial weights",
    "data": "data order",
    "gate": "gate noise",
    "rest": "interactions",
}
_LOOKS = {
    "common": (GREY, ""),
    "init": (BLUE, "/"),
    "data": (VERMILLION, "\\"),
    "gate": (GREEN, "x"),
    "rest": (OCHRE, "."),
}


def section(data: ReportData) -> Section:
    """All compared trials together, then each of the best."""
    figures: list[Drawn] = []
    notes: list[str] = []
    told: list[tuple[str, str, Stability]] = []
    if data.together is not None and len(data.stability) > 1:
        trials = max(row.trials for row in data.together.rows)
        told.append(("together", f"mean of {trials} trials", data.together))
    for ranked in data.best:
        stability = data.stability.get(str(ranked.row["trial_id"]))
        if stability is not None:
            told.append((short(ranked.row["trial_id"]), named(ranked.rank, ranked.row), stability))
    for name, entry, stability in told:
        attribution = stability.attribution
        if not attribution:
            continue
        notes += [f"{each[0].upper()}{each[1:]}." for each in attribution[-1].cautions]
        if len(attribution[-1].factors) > 1:
            figures.append(_figure(name, entry, attribution))
    if not figures:
        notes.append("Shares need replicates that differ in two kinds of seeds, crossed.")
    return Section(
        "seeds",
        "Which seed decides the ticket",
        "The part of a ticket that density alone does not give, taken apart as in an analysis of "
        "variance: what is common whatever the seeds, what each seed fixes on its own, and what "
        "only their combination does.",
        figures,
        list(dict.fromkeys(notes)),
    )


def _parts(attribution: Attribution) -> list[tuple[str, Estimate | None]]:
    """In the order in which they add up to 1."""
    return [
        *((each.factor, each.alone) for each in attribution.factors),
        ("rest", attribution.rest),
        ("common", attribution.common),
    ]


def _figure(name: str, entry: str, attribution: Sequence[Attribution]) -> Drawn:
    last = attribution[-1]
    layers = [safe(each.layer) for each in attribution]
    height = 170 + 34 * (len(layers) + len(_parts(last)))
    figure = make_subplots(
        figure=blank(height, barmode="relative"),
        rows=2,
        cols=1,
        vertical_spacing=0.16,
        row_heights=[len(layers) + 1, len(_parts(last)) + 1],
    )
    for part, _ in _parts(last):
        found = [dict(_parts(each)).get(part) for each in attribution]
        colour, pattern = _LOOKS[part]
        figure.add_trace(
            go.Bar(
                orientation="h",
                y=layers,
                x=[rounded(each.value) if each else None for each in found],
                name=_WORDS[part],
                customdata=[estimate(each) for each in found],
                marker=filled(colour, pattern),
                hovertemplate=f"%{{y}}, {_WORDS[part]}: %{{customdata}}<extra></extra>",
            ),
            row=1,
            col=1,
        )
    _add_intervals(figure, last)
    figure.update_yaxes(type="category", autorange="reversed")
    figure.update_xaxes(range=[-0.1, 1.05], row=1, col=1)
    figure.update_xaxes(title={"text": "share of the ticket beyond chance"}, row=2, col=1)
    return Drawn(
        name=file_name("seeds", name),
        title=_title(last),
        caption="Top: shares add up to 1 in each layer. Bottom: the same over all layers with "
        f"95 % intervals over seeds. {_tests(last)}",
        figure=figure,
        columns=("layer", "part", "seeds", "share", "low", "high", "p"),
        rows=[record for each in attribution for record in _records(each)],
        choice={"Trial": entry},
    )


def _add_intervals(figure: go.Figure, attribution: Attribution) -> None:
    for part, found in _parts(attribution):
        if found is None:
            continue
        interval = found.interval
        figure.add_trace(
            go.Scatter(
                x=[rounded(found.value)],
                y=[_WORDS[part]],
                mode="markers",
                marker={"color": _LOOKS[part][0], "size": 10, "symbol": "diamond"},
                error_x={
                    "type": "data",
                    "array": [rounded(interval.high - found.value) if interval else 0],
                    "arrayminus": [rounded(found.value - interval.low) if interval else 0],
                    "thickness": 2,
                    "width": 4,
                },
                showlegend=False,
                hovertemplate=f"{_WORDS[part]}: {found}<extra></extra>",
            ),
            row=2,
            col=1,
        )


def _title(attribution: Attribution) -> str:
    known = [(e.value, part) for part, e in _parts(attribution) if e is not None]
    if not known:
        return "These pairs do not tell the shares"
    value, part = max(known)
    share = "most" if value >= 0.5 else "the largest share"
    what = {
        "common": f"Common to all seeds is {share} of the ticket",
        "rest": f"No seed alone fixes {share} of the ticket",
        "init": f"The initial weights fix {share} of the ticket",
    }.get(part, f"The {_WORDS[part]} fixes {share} of the ticket")
    return f"{what}: {estimate(dict(_parts(attribution))[part])}"


def _tests(attribution: Attribution) -> str:
    told = [
        f"{_WORDS[each.factor]} {each.test}"
        for each in attribution.factors
        if each.test is not None
    ]
    return f"Permutation test that a seed fixes nothing: {', '.join(told)}." if told else ""


def _records(attribution: Attribution) -> list[list[Cell]]:
    factors = {each.factor: each for each in attribution.factors}
    records: list[list[Cell]] = []
    for part, found in _parts(attribution):
        factor = factors.get(part)
        interval = found.interval if found else None
        records.append(
            [
                attribution.layer,
                _WORDS[part],
                factor.seeds if factor else None,
                found.value if found else None,
                interval.low if interval else None,
                interval.high if interval else None,
                factor.test.p if factor and factor.test else None,
            ]
        )
    return records
