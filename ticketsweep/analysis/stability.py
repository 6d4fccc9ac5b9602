"""Is it the same ticket? How far the masks of a trial's replicates agree, and which seed matters.

Pairs of replicates are told apart by the seeds in which they differ ("data", "init+gate", ...) and
gathered once more into pairs of the same and of other initial weights. Each gets a row a layer, and
one over all layers.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ticketsweep.analysis.attribution import Attribution, attribute
from ticketsweep.analysis.consensus import LayerConsensus, mean_consensus
from ticketsweep.analysis.intervals import Interval, overlap_interval, trial_weights
from ticketsweep.analysis.layers import ALL_LAYERS, FACTORS, LayerBits, Seeds
from ticketsweep.analysis.overlap import pack
from ticketsweep.analysis.pairwise import FIGURES, PairFigures, pair_figures
from ticketsweep.readable import Readable

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
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class StabilityRow(Readable):
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
    hamming, overlap_coefficient: share of the gates on which the masks disagree; share of the
        smaller mask that the other keeps too.
    inputs_given, units_given: corrected overlap where the null keeps the kept count of every input,
        or of every unit: what agrees beyond how much of each input (unit) is kept.
    inputs_alive, units_alive: share of inputs (units) that keep any gate.
    inputs_overlap, units_overlap: corrected overlap of the sets of inputs (units) that do.
    inputs_correlation, units_correlation: of how many gates of each input (unit) are kept.

    A figure is None where no pair defines it (those of inputs and units where a gate is a unit), an
    interval where there are too few seeds.
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
    hamming: float | None
    overlap_coefficient: float | None
    inputs_given: float | None
    inputs_alive: float | None
    inputs_overlap: float | None
    inputs_correlation: float | None
    units_given: float | None
    units_alive: float | None
    units_overlap: float | None
    units_correlation: float | None

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
class Stability(Readable):
    """Stability of the tickets of one trial, or of several on average.

    Parameters
    ----------
    rows: layer by layer in the order given, "all layers" last. Empty where no two replicates differ
        in a seed.
    score: the trial metric `stability`: mean chance-corrected overlap, pooled over layers, of the
        pairs with the same initial weights; None where there is no such pair, or none defines it.
    pairs: what the rows were made of, a trial each.
    """

    rows: tuple[StabilityRow, ...]
    score: float | None
    pairs: tuple[PairFigures, ...] = field(compare=False, repr=False)

    @cached_property
    def attribution(self) -> tuple[Attribution, ...]:
        """What each seed decides, layer by layer; empty where no two replicates differ.

        Made when it is asked for, since its permutation tests take longer than all the rest.
        """
        found = [attribute(name, having) for name, having in _by_layer(self.pairs)]
        return tuple(each for each in found if each is not None)

    @property
    def consensus(self) -> tuple[LayerConsensus, ...]:
        """What all replicates keep, layer by layer; without trials of unlike numbers of them."""
        each = [
            mean_consensus([trial.consensus[name] for trial in having])
            for name, having in _by_layer(self.pairs)
        ]
        return tuple(one for one in each if one is not None)

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
    return _summarise([pair_figures(layers, seeds)])


def compare_masks(
    masks: Mapping[str, ArrayLike],
    *,
    init: ArrayLike,
    data: ArrayLike | None = None,
    gate: ArrayLike | None = None,
) -> Stability:
    """Compare the masks of M replicates that lie in arrays: `trial_stability` for a notebook.

    Parameters
    ----------
    masks: by layer, bool (M, *shape of the layer).
    init, data, gate: the seeds of each replicate, any whole numbers (M,), equal where the seed is.
        Seeds left out are taken for the same in all replicates.

    Raises
    ------
    ValueError: a mask is not bool, a seed is no whole number, or numbers of replicates and seeds
        differ.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> common = rng.random((30, 20)) < 0.3  # what every seed keeps
    >>> masks = common ^ (rng.random((4, 30, 20)) < 0.05)
    >>> print(compare_masks({"fc1": masks}, init=[0, 0, 0, 0], data=[0, 1, 2, 3]).rows[-1])
    all layers, same init: 0.76 [0.71, 0.82], 4 data seeds, 6 pairs, Jaccard 0.69 (chance 0.17), ...
    """
    arrays = {name: np.asarray(mask) for name, mask in masks.items()}
    for name, mask in arrays.items():
        if mask.dtype != np.bool_ or mask.ndim < 2:
            raise ValueError(
                f"the masks of layer {name!r} must be bool (replicates, *shape), got {mask.dtype} "
                f"{mask.shape}"
            )
    replicates = len(next(iter(arrays.values()), ()))
    layers = [LayerBits(name, mask.shape[1:], pack(mask)) for name, mask in arrays.items()]
    seeds = {
        name: np.asarray(np.zeros(replicates, dtype=np.int64) if of is None else of)
        for name, of in (("init", init), ("data", data), ("gate", gate))
    }
    for name, of in seeds.items():
        if not np.issubdtype(of.dtype, np.integer):
            raise ValueError(f"{name} must be whole numbers, a seed a replicate, got {of.dtype}")
        if of.shape != (replicates,):
            raise ValueError(
                f"{name} must have a seed for each of {replicates} replicates, got {of.shape}"
            )
    of_each = {name: of.astype(np.int64) for name, of in seeds.items()}
    return trial_stability(layers, Seeds(**of_each))


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
    compared: dict[Key, list[PairFigures]] = {}
    for key, layers, seeds in trials:
        compared.setdefault(key, []).append(pair_figures(layers, seeds))
    return {key: _summarise(pairs) for key, pairs in compared.items()}


def pooled_stability(each: Sequence[Stability]) -> Stability:
    """The mean of trials that have been compared already, as `sweep_stability` takes it."""
    return _summarise([pairs for one in each for pairs in one.pairs])


def _summarise(trials: Sequence[PairFigures]) -> Stability:
    """Rows of one trial, or of several averaged."""
    rows = tuple(row for name, having in _by_layer(trials) for row in _layer_rows(name, having))
    score = [row.corrected for row in rows if (row.layer, row.differs) == (ALL_LAYERS, SAME_INIT)]
    return Stability(rows, score[0] if score else None, tuple(trials))


def _by_layer(trials: Sequence[PairFigures]) -> Iterator[tuple[str, list[PairFigures]]]:
    """Each layer, all of them together last, with the trials that have it."""
    names = dict.fromkeys(name for trial in trials for name in trial.figures)
    for name in sorted(names, key=lambda name: name == ALL_LAYERS):
        yield name, [trial for trial in trials if name in trial.figures]


def _layer_rows(layer: str, trials: Sequence[PairFigures]) -> list[StabilityRow]:
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
    by_name = dict(zip(FIGURES, figures, strict=True))
    means = _means(by_name, trial)
    corrected = by_name["corrected"]
    defined = ~np.isnan(corrected)
    interval = None
    if defined.any():
        # Pairs of a trial that differ in the same seeds are alike; unlike ones keep their shares.
        alike = np.unique(trial[defined] * 8 + kind[defined], return_inverse=True)[1]
        weights = trial_weights(trial[defined])
        interval = overlap_interval(corrected[defined], weights, alike, seeds[defined])
    return StabilityRow(
        layer=layer,
        differs=differs,
        pairs=len(trial),
        undefined=int(np.sum(~defined)),
        trials=len(np.unique(trial)),
        seeds={factor: len(np.unique(seeds[:, i])) for i, factor in enumerate(FACTORS)},
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        **means,
    )


def _means(
    figures: Mapping[str, NDArray[np.float64]], trial: NDArray[np.int64]
) -> dict[str, float | None]:
    """Means over the pairs that define a figure, each trial with equal weight."""
    of_all = trial_weights(trial)
    means: dict[str, float | None] = {}
    for name, values in figures.items():
        defined = ~np.isnan(values)
        if defined.all():
            means[name] = float(values @ of_all)
        elif defined.any():
            means[name] = float(values[defined] @ trial_weights(trial[defined]))
        else:
            means[name] = None
    return means
