"""Every figure of every pair of a trial's replicates, layer by layer and over all layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from ticketsweep.analysis.consensus import LayerConsensus, layer_consensus
from ticketsweep.analysis.layers import ALL_LAYERS, LayerBits, Seeds, count_kept
from ticketsweep.analysis.overlap import (
    chance_corrected_overlap,
    expected_jaccard,
    hamming,
    jaccard,
    overlap_coefficient,
    z_score,
)
from ticketsweep.analysis.pairs import intersections
from ticketsweep.analysis.units import GroupAgreement, Quotient, group_agreement

Floats = NDArray[np.float64]

_GROUPED = tuple(field.name for field in fields(GroupAgreement))
FIGURES = (
    *("jaccard", "expected_jaccard", "corrected", "z", "density", "hamming", "overlap_coefficient"),
    *(f"inputs_{name}" for name in _GROUPED),
    *(f"units_{name}" for name in _GROUPED),
)


@dataclass(frozen=True)
class PairFigures:
    """The pairs of a trial's M replicates that differ in a seed.

    Parameters
    ----------
    replicates: int64 (M, factor), seeds in the order of `FACTORS`.
    pairs: int64 (P, 2), which two replicates.
    figures: by layer, "all layers" last, float64 (figure, P) in the order of `FIGURES`; NaN where
        undefined.
    consensus: of all M masks, by layer likewise.
    """

    replicates: NDArray[np.int64]
    pairs: NDArray[np.int64]
    figures: dict[str, Floats]
    consensus: dict[str, LayerConsensus]

    @property
    def seeds(self) -> NDArray[np.int64]:
        """Seeds of the two replicates of each pair: int64 (P, factor, 2)."""
        return self.replicates[self.pairs].swapaxes(1, 2)

    def matrix(self, layer: str, figure: str) -> Floats:
        """A figure as float64 (M, M), NaN where there is no pair or where it is undefined."""
        found = np.full((len(self.replicates), len(self.replicates)), np.nan)
        one, other = self.pairs.T
        found[one, other] = found[other, one] = self.figures[layer][FIGURES.index(figure)]
        return found


def pair_figures(layers: Sequence[LayerBits], seeds: Seeds) -> PairFigures:
    """Measure every pair of replicates that differ in a seed.

    Raises
    ------
    ValueError: no layer, a name twice, or counts of replicates that differ.
    """
    replicates = _checked(layers, seeds)
    one, other = np.triu_indices(len(replicates), k=1)
    distinct = np.any(replicates[one] != replicates[other], axis=1)
    one, other = one[distinct], other[distinct]

    shared = np.stack([intersections(layer.bits) for layer in layers])  # (L, M, M)
    kept = np.diagonal(shared, axis1=1, axis2=2)  # (L, M)
    inter, a, b = shared[:, one, other], kept[:, one], kept[:, other]  # (L, P)
    sizes = np.array([layer.size for layer in layers], dtype=np.int64)
    counts = [count_kept(layer) for layer in layers]

    quotients = []  # by layer and figure
    for layer, of, common in zip(layers, counts, shared, strict=True):
        groups = [
            group_agreement(common, kept_of, layer.size // max(kept_of.shape[1], 1))
            for kept_of in (of.inputs, of.units)
        ]
        quotients.append([getattr(group, name) for group in groups for name in _GROUPED])

    def measured(axis: int | None, *extra: Floats) -> Floats:
        """All figures, by layer (L, figure, P), or over the layers of axis 0 (figure, P)."""
        n = sizes[:, None]
        return np.stack(
            [
                jaccard(inter, a, b, layer_axis=axis),
                expected_jaccard(a, b, n, layer_axis=axis),
                chance_corrected_overlap(inter, a, b, n, layer_axis=axis),
                z_score(inter, a, b, n, layer_axis=axis),
                (a + b) / (2 * n) if axis is None else (a + b).sum(axis=axis) / (2 * n.sum()),
                hamming(inter, a, b, n, layer_axis=axis),
                overlap_coefficient(inter, a, b, layer_axis=axis),
                *extra,
            ],
            axis=0 if axis == 0 else 1,
        )

    of_pairs = [[_of_pairs(figure, one, other) for figure in row] for row in quotients]
    columns = list(zip(*of_pairs, strict=True))  # by figure and layer
    by_layer = measured(None, *(np.stack([q.value() for q in column]) for column in columns))
    pooled = measured(0, *(_pooled(column).value() for column in columns))
    names = [layer.layer for layer in layers]
    figures = dict(zip([*names, ALL_LAYERS], [*by_layer, pooled], strict=True))

    consensus = {
        name: layer_consensus(name, shared[i : i + 1], sizes[i : i + 1], counts[i].by_masks)
        for i, name in enumerate(names)
    }
    total = np.sum([of.by_masks for of in counts], axis=0)
    consensus[ALL_LAYERS] = layer_consensus(ALL_LAYERS, shared, sizes, total)
    return PairFigures(replicates, np.stack([one, other], axis=1), figures, consensus)


def _checked(layers: Sequence[LayerBits], seeds: Seeds) -> NDArray[np.int64]:
    """The seeds as int64 (M, factor), if the layers fit together and fit them."""
    names = [layer.layer for layer in layers]
    if not names or len(set(names)) < len(names) or ALL_LAYERS in names:
        raise ValueError(
            f"there must be at least one layer, each named once and none {ALL_LAYERS!r}, "
            f"got {names}"
        )
    replicates = np.stack([seeds.init, seeds.data, seeds.gate], axis=1)
    counts = {layer.layer: len(layer.bits) for layer in layers}
    if set(counts.values()) != {len(replicates)}:
        raise ValueError(
            f"every layer must hold the masks of the {len(replicates)} replicates that have "
            f"seeds, got {counts}"
        )
    return replicates


def _of_pairs(figure: Quotient, one: NDArray[np.int64], other: NDArray[np.int64]) -> Quotient:
    return Quotient(figure.top[one, other], figure.bottom[one, other])


def _pooled(layers: Sequence[Quotient]) -> Quotient:
    """Numerators and denominators of the layers summed: (P,) each."""
    return Quotient(
        np.sum([layer.top for layer in layers], axis=0),
        np.sum([layer.bottom for layer in layers], axis=0),
    )
