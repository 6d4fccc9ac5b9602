"""What tickets have in common in function: what comparisons of them are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from ticketsweep.display.function import made_from
from ticketsweep.report.drawn import Cell, Drawn, Section
from ticketsweep.report.text import file_name, rounded
from ticketsweep.report.theme import BLUE, GREY, VERMILLION, blank
from ticketsweep.results.function import (
    ALIGN,
    BARRIER,
    CONNECTIVITY,
    PREDICTIONS,
    TRANSFER,
    FunctionRow,
)
from ticketsweep.results.report import ReportData


@dataclass(frozen=True)
class _Kind:
    """How a comparison is drawn: measures with what to call them; `beside` those to hold it to."""

    entry: str
    title: str
    said: str
    measures: Mapping[str, str]
    beside: frozenset[str]
    is_share: bool = True


_KINDS: Mapping[str, _Kind] = {
    PREDICTIONS: _Kind(
        "predictions",
        "Do the tickets predict the same?",
        "Test split, tickets on their frozen weights. Error overlap is the share of images that "
        "both get wrong, of those that either does; by chance: of two that err independently.",
        {
            "agreement": "same class",
            "error_overlap": "error overlap",
            "error_overlap_chance": "error overlap by chance",
        },
        frozenset({"error_overlap_chance"}),
    ),
    TRANSFER: _Kind(
        "other weights",
        "Does a ticket's mask work on other initial weights?",
        "Test accuracy of a mask on the weights that it was found on, and on those of another "
        "initialisation: as it is, with its units matched to them, and shuffled (the control); "
        "beside them the ticket that was found there.",
        {
            "source_accuracy": "on its own weights",
            "accuracy": "on other weights",
            "matched_accuracy": "on other weights, matched",
            "shuffled_accuracy": "shuffled, on other weights",
            "own_accuracy": "the other's own ticket",
        },
        frozenset({"shuffled_accuracy", "own_accuracy", "source_accuracy"}),
    ),
    CONNECTIVITY: _Kind(
        "connectivity",
        "Do retrained tickets lie in one basin?",
        "Error barrier on the straight line between two retrained networks (Frankle et al. 2020), "
        "stable below 2 %; where no seed differs, one ticket was retrained in two orders of data.",
        {BARRIER: "test error barrier", "train_barrier": "training error barrier"},
        frozenset(),
    ),
    ALIGN: _Kind(
        "matched units",
        "Are tickets of other initial weights the same, relabelled?",
        "Overlap beyond chance before and after hidden units are matched; after it, chance is that "
        "of random masks matched alike, which keep as many gates of each layer, or also of each "
        "input: what agrees no more than those do comes from how much of each input is kept.",
        {
            "corrected": "as they are",
            "matched_corrected": "units matched",
            "inputs_matched_corrected": "units matched, beyond the inputs' too",
        },
        frozenset({"corrected"}),
        is_share=False,
    ),
}


def section(data: ReportData) -> Section:
    """A figure for each kind of comparison that is stored."""
    figures = []
    for kind, how in _KINDS.items():
        rows = [row for row in data.function if row.kind == kind and row.figures]
        if rows:
            figures.append(_figure(how, rows))
    notes = []
    if not figures:
        notes.append(
            f"No comparison is stored: `ticketsweep stability {data.name} --predictions "
            "--transfer` makes the tickets again and compares what they do."
        )
    return Section(
        "function",
        "In function, not only form",
        "Two masks may differ and do the same. Means over pairs of replicates and trials; thick "
        "bars are 95 % intervals over seeds; thin ones, for too few seeds, run from the least to "
        "the most of any pair.",
        figures,
        notes,
    )


def _figure(how: _Kind, rows: Sequence[FunctionRow]) -> Drawn:
    scale = 100 if how.is_share else 1
    places: list[str] = []
    figure = blank(100, showlegend=False)
    for row in rows:
        differs = f"{row.differs.replace('+', ', ')} differ" if row.differs else "no seed differs"
        if row.differs and "+" not in row.differs:
            differs = f"{row.differs} differs"
        for measure, told in how.measures.items():
            spread = row.figures.get(measure)
            if spread is None:
                continue
            is_beside = measure in how.beside
            has_interval = spread.low is not None and spread.high is not None
            low = spread.least if spread.low is None else spread.low
            high = spread.most if spread.high is None else spread.high
            bar = "95 % interval over seeds" if has_interval else "any pair"
            ends = f"{rounded(scale * low)} to {rounded(scale * high)}"
            hue = GREY if is_beside else VERMILLION if "shuffled" in measure else BLUE
            figure.add_trace(
                go.Scatter(
                    x=[rounded(scale * spread.mean)],
                    y=[len(places)],
                    mode="markers",
                    marker={
                        "color": hue,
                        "size": 11,
                        "symbol": "diamond-open" if is_beside else "diamond",
                        "line": {"width": 2, "color": hue},
                    },
                    error_x={
                        "type": "data",
                        "array": [rounded(scale * (high - spread.mean))],
                        "arrayminus": [rounded(scale * (spread.mean - low))],
                        "thickness": 3.5 if has_interval else 1.5,
                        "width": 4,
                    },
                    hovertemplate=f"{told}, {differs}: %{{x}}<br>{bar} {ends}<br>"
                    f"{row.pairs} pairs, {row.trials} trials<extra></extra>",
                )
            )
            places.append(f"{told}<br>({differs})")
    figure.update_layout(height=100 + 44 * len(places))
    figure.update_yaxes(
        tickvals=list(range(len(places))),
        ticktext=places,
        range=[len(places) - 0.5, -0.5],
        showgrid=False,
        tickfont={"size": 11},
    )
    figure.update_xaxes(title={"text": "%" if how.is_share else "overlap beyond chance"})
    sentences = [how.said, "Open grey signs are there to compare with.", *made_from(rows)]
    return Drawn(
        name=file_name("function", how.entry.replace(" ", "_")),
        title=how.title,
        caption=" ".join(sentences),
        figure=figure,
        columns=("differs", "measure", "mean", "least", "most", "low", "high", "pairs", "trials"),
        rows=[record for row in rows for record in _records(row)],
        choice={"Comparison": how.entry},
    )


def _records(row: FunctionRow) -> list[list[Cell]]:
    return [
        [
            *(row.differs or "none", name, s.mean, s.least, s.most, s.low, s.high),
            *(row.pairs, row.trials),
        ]
        for name, s in row.figures.items()
    ]
