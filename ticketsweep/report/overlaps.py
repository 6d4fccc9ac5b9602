"""The overlap of every pair of a trial's replicates, as a matrix ordered by seed."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from ticketsweep.analysis.layers import ALL_LAYERS, FACTORS
from ticketsweep.analysis.pairwise import FIGURES, PairFigures
from ticketsweep.analysis.stability import OTHER_INIT, Stability
from ticketsweep.display.figures import short
from ticketsweep.report.drawn import Cell, Drawn, Section
from ticketsweep.report.text import file_name, named, overlap, row_of, safe, same_init
from ticketsweep.report.theme import GREY, SCALE, blank
from ticketsweep.results.ranking import Ranked
from ticketsweep.results.report import ReportData

_MOST_CELLS = 40_000  # of all matrices; further trials have the one of all layers
_TOLD_IN_CELLS = 12  # replicates up to which the cells carry their figures
_DIGITS = 3


def section(data: ReportData) -> Section:
    """A matrix for each of the best trials and each layer."""
    figures: list[Drawn] = []
    cells = 0
    whole = True
    for ranked in data.best:
        stability = data.stability.get(str(ranked.row["trial_id"]))
        if stability is None:
            continue
        pairs = stability.pairs[0]
        layers = [ALL_LAYERS, *(name for name in pairs.figures if name != ALL_LAYERS)]
        if len(layers) == 2:  # pooled over one layer, it is the same
            layers = layers[1:]
        cells += len(pairs.replicates) ** 2 * len(layers)
        if cells > _MOST_CELLS:
            layers, whole = layers[:1], False
        figures += [_figure(ranked, stability, pairs, layer) for layer in layers]
    notes = []
    if not figures:
        notes.append("No trial has two replicates that differ in a seed, so no two masks can be "
                     "compared. `replicates: {init: 3, data: 3}` would have nine.")  # fmt: skip
    elif not whole:
        notes.append("Single layers are left out of the later trials, to keep this page small.")
    return Section(
        "pairs",
        "Which tickets are alike",
        "Every pair of a trial's replicates, ordered by initial weights, then data order, then "
        "gate noise. 1 is the same ticket, 0 what two random masks of the same layer densities "
        "share.",
        figures,
        notes,
    )


def _figure(ranked: Ranked, stability: Stability, pairs: PairFigures, layer: str) -> Drawn:
    order = np.lexsort(pairs.replicates.T[::-1])
    matrix = pairs.matrix(layer, "corrected")[np.ix_(order, order)]
    replicates = pairs.replicates[order]
    names = _names(replicates)
    count = len(names)
    told = count <= _TOLD_IN_CELLS
    values = [[None if np.isnan(v) else round(float(v), _DIGITS) for v in row] for row in matrix]
    height = min(640, 180 + 34 * count)
    figure = blank(height)
    figure.add_heatmap(
        z=values,
        x=names,
        y=names,
        colorscale=SCALE,
        zmin=0,
        zmax=1,
        texttemplate="%{z:.2f}" if told else None,
        hovertemplate="%{y} and %{x}<br>overlap beyond chance %{z:.3f}<extra></extra>",
        hoverongaps=False,
        xgap=1,
        ygap=1,
        colorbar={
            "orientation": "h",
            "thickness": 10,
            "len": 0.6,
            "x": 0,
            "xanchor": "left",
            "y": 58 / height,
            "yref": "container",
            "yanchor": "top",
            "outlinewidth": 0,
            "title": {"text": "overlap beyond chance", "side": "bottom", "font": {"size": 12}},
        },
    )
    figure.update_xaxes(showgrid=False, showline=False, ticks="", type="category")
    figure.update_yaxes(
        showgrid=False, showline=False, ticks="", type="category", autorange="reversed"
    )
    figure.update_layout(margin={"b": 90}, shapes=_blocks(replicates[:, 0]))
    return Drawn(
        name=file_name("pairs", short(ranked.row["trial_id"]), layer),
        title=_title(stability, layer),
        caption="Squares outline the tickets with the same initial weights. "
        + _key(replicates)
        + (" A blank cell is a ticket and itself, or a pair of empty or full masks."),
        figure=figure,
        columns=("one", "other", "overlap beyond chance", "jaccard", "expected_jaccard"),
        rows=_records(pairs, layer, order, names),
        choice={"Trial": named(ranked.rank, ranked.row), "Layer": safe(layer)},
    )


def _title(stability: Stability, layer: str) -> str:
    same, other = same_init(stability, layer), row_of(stability, OTHER_INIT, layer)
    if same is not None and same.corrected is not None:
        told = f"Overlap with the same initial weights: {overlap(same)}"
        return f"{told}; with others: {overlap(other)}" if other else told
    return f"Overlap with other initial weights: {overlap(other)}"


def _names(replicates: NDArray[np.int64]) -> list[str]:
    """`init 1 · data 2` of each replicate, by the factors that vary."""
    parts = []
    for at, factor in enumerate(FACTORS):
        levels, index = np.unique(replicates[:, at], return_inverse=True)
        if len(levels) > 1:
            parts.append([f"{factor[0]}{level + 1}" for level in index])
    return [" ".join(each) for each in zip(*parts, strict=True)]


def _key(replicates: NDArray[np.int64]) -> str:
    """What the letters stand for."""
    words = {"init": "initial weights", "data": "data order", "gate": "gate noise"}
    varying = [f for at, f in enumerate(FACTORS) if len(np.unique(replicates[:, at])) > 1]
    return f"{', '.join(f'{f[0]}: {words[f]}' for f in varying)}; numbers count the seeds."


def _blocks(inits: NDArray[np.int64]) -> list[dict[str, object]]:
    """Outlines of the runs of equal initial seeds."""
    edges = [0, *(np.flatnonzero(np.diff(inits)) + 1), len(inits)]
    return [
        {
            "type": "rect",
            "x0": float(start) - 0.5,
            "x1": float(end) - 0.5,
            "y0": float(start) - 0.5,
            "y1": float(end) - 0.5,
            "line": {"color": GREY, "width": 2},
        }
        for start, end in itertools.pairwise(edges)
    ]


def _records(
    pairs: PairFigures, layer: str, order: NDArray[np.int64], names: list[str]
) -> list[list[Cell]]:
    place = np.argsort(order)
    found = pairs.figures[layer]
    columns = [found[FIGURES.index(name)] for name in ("corrected", "jaccard", "expected_jaccard")]
    return [
        [
            names[place[one]],
            names[place[other]],
            *(None if np.isnan(c[at]) else round(float(c[at]), 4) for c in columns),
        ]
        for at, (one, other) in enumerate(pairs.pairs)
    ]
