"""Is it the same ticket? How far the masks of a trial's replicates agree, and which seed matters.

Pairs of replicates are told apart by the seeds in which they differ ("data", "init+gate", ...) and
gathered once more into pairs of the same and of other initial weights. Each gets a row a layer, and
one over all layers.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ticketsweep.analysis.intervals import Interval, jackknife_interval
from ticketsweep.analysis.overlap import (
    chance_corrected_overlap,
    expected_jaccard,
    jaccard,
    z_score,
)
from ticketsweep.analysis.pairs import intersections

FACTORS = ("init", "data", "gate")
ALL_LAYERS = "all layers"
SAME_INIT = "same init"
OTHER_INIT = "other init"

# Which seeds differ in a pair, as a sum: 1 for init, 2 for data, 4 for gate.
_GROUPS: dict[str, tuple[int, ...]] = {
    "data": (2,),
    "gate": (4,),
    "data+gate": (6,),
    "init": (1,),
    "init+data": (3,),
    "init+gate": (5,),
    "init+data+gate": (7,),
    SAME_INIT: (2, 4, 6),
    OTHER_INIT: (1, 3, 5, 7),
}
_FIGURES = ("jaccard", "expected_jaccard", "corrected", "z", "density")

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class LayerBits:
    """The masks of one layer, one replicate a row.

    Parameters
    ----------
    layer: its name.
    size: gates in the layer.
    bits: uint8 (M, ceil(size / 8)), packed as `overlap.pack` packs them.

    Raises
    ------
    ValueError: where `bits` has another shape or type, or a padding bit is set (it would count).
    """

    layer: str
    size: int
    bits: NDArray[np.uint8]

    def __post_init__(self) -> None:
        width = -(-self.size // 8)
        if self.bits.dtype != np.uint8 or self.bits.ndim != 2 or self.bits.shape[1] != width:
            raise ValueError(
                f"the bits of layer {self.layer!r} ({self.size} gates) must be uint8 (M, {width}), "
                f"got {self.bits.dtype} {self.bits.shape}"
            )
        spare = self.size % 8
        if spare and np.any(self.bits[:, -1] >> spare):
            raise ValueError(
                f"the padding bits of layer {self.layer!r} ({self.size} gates) must be 0: "
                "the masks are damaged, or the size belongs to another layer"
            )


@dataclass(frozen=True)
class Seeds:
    """The seeds of M replicates, int64 (M,) each."""

    init: NDArray[np.int64]
    data: NDArray[np.int64]
    gate: NDArray[np.int64]


@dataclass(frozen=True)
class StabilityRow:
    """How far the masks of one group of pairs agree in one layer. Figures are means over pairs.

    Parameters
    ----------
    layer: its name, or "all layers": pooled, each layer against its own chance level.
    differs: which seeds differ, joined by "+"; or "same init", "other init", whatever else differs.
    pairs: pairs in the group; `undefined` of them have no corrected overlap (a mask is empty or
        full) and are left out of its mean.
    trials: trials averaged, each with equal weight.
    seeds: how many seeds of each factor ("init", "data", "gate") the pairs draw on.
    jaccard, expected_jaccard: the raw index, and what chance alone would give.
    corrected: the chance-corrected overlap; `low` and `high` are its 95 % interval over seeds.
    z: the excess over chance in standard deviations of the null.
    density: share of gates kept.

    A figure is None where no pair defines it, an interval where there are too few seeds.
    """

    layer: str
    differs: str
    pairs: int
    undefined: int
    trials: int
    seeds: dict[str, int]
    jaccard: float | None
    expected_jaccard: float | None
    corrected: float | None
    low: float | None
    high: float | None
    z: float | None
    density: float | None

    @property
    def conditional_on(self) -> tuple[str, ...]:
        """Factors with a single seed: nothing is said about other seeds of theirs."""
        return tuple(factor for factor, count in self.seeds.items() if count == 1)

    @property
    def overlap(self) -> str:
        """The corrected overlap with interval and n: `0.41 [0.38, 0.44], 8 data seeds`."""
        if self.corrected is None:
            return "undefined: a mask of every pair keeps all gates or none"
        shown = f"{self.corrected:z.2f}"
        if self.low is not None and self.high is not None:
            shown += f" {Interval(self.low, self.high)}"
        varied = [f"{n} {factor}" for factor, n in self.seeds.items() if n > 1]
        return f"{shown}, {' x '.join(varied)} seeds"

    def __str__(self) -> str:
        notes = [self.overlap, f"{self.pairs} pair{'s' if self.pairs > 1 else ''}"]
        if self.undefined and self.corrected is not None:
            notes.append(f"{self.undefined} of them undefined")
        if self.trials > 1:
            notes.append(f"mean of {self.trials} trials")
        if self.jaccard is not None and self.expected_jaccard is not None:
            notes.append(f"Jaccard {self.jaccard:.2f} (chance {self.expected_jaccard:.2f})")
        if self.conditional_on:
            notes.append(f"given one {' and one '.join(self.conditional_on)} seed")
        return f"{self.layer}, {self._group}: {', '.join(notes)}"

    @property
    def _group(self) -> str:
        """The group in words: `data and gate differ`, `same init`."""
        if self.differs in (SAME_INIT, OTHER_INIT):
            return self.differs
        return f"{self.differs.replace('+', ' and ')} differ{'' if '+' in self.differs else 's'}"


@dataclass(frozen=True)
class Stability:
    """Stability of the tickets of one trial, or of several on average.

    Parameters
    ----------
    rows: layer by layer in the order given, "all layers" last. Empty where no two replicates differ
        in a seed.
    score: the trial metric `stability`: mean chance-corrected overlap, pooled over layers, of the
        pairs with the same initial weights; None where there is no such pair, or none defines it.
    """

    rows: tuple[StabilityRow, ...]
    score: float | None

    def __str__(self) -> str:
        if not self.rows:
            return "nothing to compare: no two replicates differ in a seed"
        return "\n".join(str(row) for row in self.rows)


def trial_stability(layers: Sequence[LayerBits], seeds: Seeds) -> Stability:
    """Compare the masks of all pairs of a trial's replicates.

    Parameters
    ----------
    layers: at least one; the same M replicates in each, in the same order.
    seeds: theirs. Pairs with all seeds equal say nothing and are left out.

    Raises
    ------
    ValueError: no layer, a name twice, or counts of replicates that differ.
    """
    return _summarise([_compare(layers, seeds)])


def sweep_stability(
    trials: Iterable[tuple[Key, Sequence[LayerBits], Seeds]],
) -> dict[Key, Stability]:
    """Average the stability of the trials that share a key.

    Trials weigh the same, whatever their number of pairs. They are taken as they are, fixed; the
    intervals are over seeds, and a seed that several trials use is left out of all of them at once.

    Parameters
    ----------
    trials: key, masks and seeds of each, as `trial_stability` takes them; used one at a time.

    Returns
    -------
    One `Stability` a key, in order of first appearance.

    Raises
    ------
    ValueError: as `trial_stability`.
    """
    compared: dict[Key, list[_Pairs]] = {}
    for key, layers, seeds in trials:
        compared.setdefault(key, []).append(_compare(layers, seeds))
    return {key: _summarise(pairs) for key, pairs in compared.items()}


@dataclass(frozen=True)
class _Pairs:
    """The pairs of one trial.

    Parameters
    ----------
    seeds: int64 (P, factor, 2), of the two replicates of each pair.
    figures: by layer float64 (figure, P), in the order of `_FIGURES`, NaN where undefined.
    """

    seeds: NDArray[np.int64]
    figures: dict[str, NDArray[np.float64]]


def _compare(layers: Sequence[LayerBits], seeds: Seeds) -> _Pairs:
    """Measure every pair of replicates that differ in a seed."""
    names = [layer.layer for layer in layers]
    if not names or len(set(names)) < len(names) or ALL_LAYERS in names:
        raise ValueError(
            f"there must be at least one layer, each named once and none {ALL_LAYERS!r}, "
            f"got {names}"
        )
    by_replicate = np.stack([seeds.init, seeds.data, seeds.gate], axis=1)  # (M, factor)
    counts = {layer.layer: len(layer.bits) for layer in layers}
    if set(counts.values()) != {len(by_replicate)}:
        raise ValueError(
            f"every layer must hold the masks of the {len(by_replicate)} replicates that have "
            f"seeds, got {counts}"
        )
    one, other = np.triu_indices(len(by_replicate), k=1)
    distinct = np.any(by_replicate[one] != by_replicate[other], axis=1)
    one, other = one[distinct], other[distinct]

    shared = np.stack([intersections(layer.bits) for layer in layers])  # (L, M, M)
    kept = np.diagonal(shared, axis1=1, axis2=2)  # (L, M)
    inter, a, b = shared[:, one, other], kept[:, one], kept[:, other]  # (L, P)
    n = np.array([[layer.size] for layer in layers], dtype=np.int64)  # (L, 1)

    each = np.stack(
        [
            jaccard(inter, a, b),
            expected_jaccard(a, b, n),
            chance_corrected_overlap(inter, a, b, n),
            z_score(inter, a, b, n),
            (a + b) / (2 * n),
        ],
        axis=1,
    )  # (L, figure, P)
    pooled = np.stack(
        [
            jaccard(inter, a, b, layer_axis=0),
            expected_jaccard(a, b, n, layer_axis=0),
            chance_corrected_overlap(inter, a, b, n, layer_axis=0),
            z_score(inter, a, b, n, layer_axis=0),
            (a + b).sum(axis=0) / (2 * n.sum()),
        ]
    )
    figures = dict(zip([*names, ALL_LAYERS], [*each, pooled], strict=True))
    return _Pairs(np.stack([by_replicate[one], by_replicate[other]], axis=2), figures)


def _summarise(trials: Sequence[_Pairs]) -> Stability:
    """Rows of one trial, or of several averaged."""
    names = dict.fromkeys(name for trial in trials for name in trial.figures if name != ALL_LAYERS)
    rows: list[StabilityRow] = []
    for name in [*names, ALL_LAYERS]:
        rows.extend(_layer_rows(name, [trial for trial in trials if name in trial.figures]))
    score = [row.corrected for row in rows if (row.layer, row.differs) == (ALL_LAYERS, SAME_INIT)]
    return Stability(tuple(rows), score[0] if score else None)


def _layer_rows(layer: str, trials: Sequence[_Pairs]) -> list[StabilityRow]:
    """The rows of one layer, one for each group that has pairs."""
    seeds = np.concatenate([trial.seeds for trial in trials])  # (P, factor, 2)
    trial = np.repeat(np.arange(len(trials)), [len(each.seeds) for each in trials])  # (P,)
    figures = np.concatenate([trial.figures[layer] for trial in trials], axis=1)  # (figure, P)
    kind = (seeds[:, :, 0] != seeds[:, :, 1]) @ (1 << np.arange(len(FACTORS)))  # (P,)
    chosen = {differs: np.isin(kind, kinds) for differs, kinds in _GROUPS.items()}
    return [
        _row(layer, differs, figures[:, which], trial[which], kind[which], seeds[which])
        for differs, which in chosen.items()
        if which.any()
    ]


def _row(
    layer: str,
    differs: str,
    figures: NDArray[np.float64],
    trial: NDArray[np.int64],
    kind: NDArray[np.int64],
    seeds: NDArray[np.int64],
) -> StabilityRow:
    """One row from the pairs of one group: (figure, P), (P,), (P,), (P, factor, 2)."""
    by_name = dict(zip(_FIGURES, figures, strict=True))
    means = {name: _mean(values, trial) for name, values in by_name.items()}
    corrected = by_name["corrected"]
    defined = ~np.isnan(corrected)
    interval = None
    if defined.any():
        # Pairs of a trial that differ in the same seeds are alike; unlike ones keep their shares.
        alike = np.unique(trial[defined] * 8 + kind[defined], return_inverse=True)[1]
        weights = _weights(trial[defined])
        interval = jackknife_interval(corrected[defined], weights, alike, seeds[defined])
    return StabilityRow(
        layer=layer,
        differs=differs,
        pairs=len(trial),
        undefined=int(np.sum(~defined)),
        trials=len(np.unique(trial)),
        seeds={factor: len(np.unique(seeds[:, i])) for i, factor in enumerate(FACTORS)},
        jaccard=means["jaccard"],
        expected_jaccard=means["expected_jaccard"],
        corrected=means["corrected"],
        low=interval.low if interval else None,
        high=min(interval.high, 1.0) if interval else None,  # no overlap exceeds 1
        z=means["z"],
        density=means["density"],
    )


def _mean(values: NDArray[np.float64], trial: NDArray[np.int64]) -> float | None:
    """Mean over the pairs that define the figure, each trial with equal weight."""
    defined = ~np.isnan(values)
    if not defined.any():
        return None
    return float(values[defined] @ _weights(trial[defined]))


def _weights(trial: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights of pairs, sum 1, that give each trial the same weight."""
    _, index, sizes = np.unique(trial, return_inverse=True, return_counts=True)
    weights: NDArray[np.float64] = 1 / (len(sizes) * sizes[index])
    return weights
