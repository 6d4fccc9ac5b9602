"""Which seed decides the ticket: overlap taken apart into what each seed fixes.

A mask is taken as what is common to all replicates, plus an effect of each seed and of each
combination of seeds (random-effects analysis of variance with crossed factors). Replicates then
overlap by the shares of what they have in common: pairs that share no seed by the common part
alone, pairs that share only the init by the common part and the init's, a replicate and itself by
1. Overlap is beyond chance throughout, so the shares are of that part of the ticket which density
alone does not give. Sobol's first-order and total indices are `alone` and `total`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ticketsweep.analysis.intervals import (
    MIN_SEEDS,
    Interval,
    jackknife_interval,
    overlap_interval,
    trial_weights,
)
from ticketsweep.analysis.layers import FACTORS
from ticketsweep.analysis.pairwise import FIGURES, PairFigures
from ticketsweep.analysis.permutation import SIGNIFICANT, Permutation, permutation_test
from ticketsweep.readable import Readable


@dataclass(frozen=True)
class Estimate(Readable):
    """A share, with its 95 % interval over seeds where there are three of each that varies."""

    value: float
    interval: Interval | None

    def __str__(self) -> str:
        shown = f"{self.value:z.2f}"
        return shown if self.interval is None else f"{shown} {self.interval}"


@dataclass(frozen=True)
class FactorShare(Readable):
    """What one kind of seed decides.

    Parameters
    ----------
    factor: "init", "data" or "gate".
    seeds: how many there are.
    alone: share of the ticket that this seed fixes whatever the others are; None where it is the
        only one that varies, or where pairs are missing. Below 0 by chance where there is none.
    total: share that is lost where only this seed differs: `alone`, and all interactions.
    test: that it decides nothing alone, None where the test is not possible.
    """

    factor: str
    seeds: int
    alone: Estimate | None
    total: Estimate | None
    test: Permutation | None

    def __str__(self) -> str:
        parts = [f"{self.alone} alone"] if self.alone else []
        parts += [f"{self.total} lost where it alone differs"] if self.total else []
        parts += [str(self.test)] if self.test else []
        return f"{self.factor}: {', '.join(parts) or 'unknown'}, {self.seeds} seeds"


@dataclass(frozen=True)
class Attribution(Readable):
    """What each seed decides in one layer. `common`, all `alone` and `rest` add up to 1.

    Parameters
    ----------
    layer: its name, or "all layers".
    common: share common to tickets with no seed in common: the data's, the network's, and that of
        any seed of which there is only one.
    factors: those that vary.
    rest: share that no seed fixes alone: interactions, and what differs by replicate.
    cautions: sentences: what these seeds cannot tell.
    """

    layer: str
    common: Estimate | None
    factors: tuple[FactorShare, ...]
    rest: Estimate | None
    cautions: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.layer}: {self.common or 'unknown'} common to all"]
        lines += [f"  {factor}" for factor in self.factors]
        lines += [f"  {self.rest} interactions"] if self.rest else []
        return "\n".join([*lines, *(f"  ({caution})" for caution in self.cautions)])


def attribute(layer: str, trials: Sequence[PairFigures]) -> Attribution | None:
    """Take the overlap of one layer apart, trials averaged with equal weight.

    Returns
    -------
    None where no two replicates differ in a seed. A share is None where the pairs that tell it are
    missing, or where no overlap is defined.
    """
    pairs = _Overlaps.of(layer, trials)
    if not pairs.varying:
        return None
    every = (1 << len(pairs.varying)) - 1  # all of them differ
    only_shared = {factor: every ^ (1 << at) for at, factor in enumerate(pairs.varying)}
    several = len(pairs.varying) > 1
    overlap = _mean_matrix(layer, trials)
    factors = [
        FactorShare(
            factor=factor,
            seeds=count,
            alone=pairs.contrast(0, {only_shared[factor]: 1, every: -1}) if several else None,
            total=_complement(pairs.mean(1 << at)),
            test=permutation_test(overlap, trials[0].replicates, factor),
        )
        for at, (factor, count) in enumerate(pairs.varying.items())
    ]
    shared = {} if len(factors) == 1 else dict.fromkeys(only_shared.values(), -1)
    rest = pairs.contrast(1, {**shared, every: len(shared) - 1})
    return Attribution(layer, pairs.mean(every), tuple(factors), rest, tuple(_cautions(factors)))


def _cautions(factors: Sequence[FactorShare]) -> list[str]:
    """What the design cannot tell."""
    said = []
    varying = [factor.factor for factor in factors]
    single = [factor for factor in FACTORS if factor not in varying]
    if len(varying) == 1:
        said.append(
            f"only the {varying[0]} seed varies, so what it decides cannot be told from what it "
            f"decides together with the {' or '.join(single)} seed"
        )
    elif single:
        said.append(f"one {single[0]} seed: what it decides is part of what is common to all")
    few = [f"{factor.seeds} {factor.factor}" for factor in factors if factor.seeds < MIN_SEEDS]
    if few:
        said.append(f"{_listed(few)} seeds allow no interval, {MIN_SEEDS} do")
    weak = [
        f"{factor.factor} (p is never below {factor.test.smallest:.2g})"
        for factor in factors
        if factor.test is not None and factor.test.smallest > SIGNIFICANT
    ]
    if weak:
        said.append(f"too few seeds to test {_listed(weak)}")
    return said


def _listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def _complement(estimate: Estimate | None) -> Estimate | None:
    if estimate is None:
        return None
    interval = estimate.interval
    turned = interval and Interval(1 - interval.high, 1 - interval.low)
    return Estimate(1 - estimate.value, turned)


def _mean_matrix(layer: str, trials: Sequence[PairFigures]) -> NDArray[np.float64] | None:
    """Overlaps of the trials averaged, (M, M); None where they have unlike replicates."""
    first = trials[0].replicates
    if any(not np.array_equal(trial.replicates, first) for trial in trials[1:]):
        return None
    mean: NDArray[np.float64] = np.mean([t.matrix(layer, "corrected") for t in trials], axis=0)
    return mean


@dataclass(frozen=True)
class _Overlaps:
    """The overlaps of one layer that are defined, with what their pairs differ in.

    Parameters
    ----------
    varying: factors that differ in some pair, and how many seeds they have.
    values: float64 (P,).
    kind: int64 (P,), which of the varying factors differ: a bit each, in their order.
    trial: int64 (P,).
    seeds: int64 (P, factor, 2).
    """

    varying: Mapping[str, int]
    values: NDArray[np.float64]
    kind: NDArray[np.int64]
    trial: NDArray[np.int64]
    seeds: NDArray[np.int64]

    @classmethod
    def of(cls, layer: str, trials: Sequence[PairFigures]) -> _Overlaps:
        at = FIGURES.index("corrected")
        seeds = np.concatenate([trial.seeds for trial in trials])
        trial = np.repeat(np.arange(len(trials)), [len(each.pairs) for each in trials])
        values = np.concatenate([each.figures[layer][at] for each in trials])
        differs = seeds[:, :, 0] != seeds[:, :, 1]
        varies = differs.any(axis=0)  # within a trial: trials with other seeds share no pair
        varying = {
            factor: len(np.unique(seeds[:, at])) for at, factor in enumerate(FACTORS) if varies[at]
        }
        kind = differs[:, varies] @ (1 << np.arange(len(varying)))
        known = ~np.isnan(values)
        return cls(varying, values[known], kind[known], trial[known], seeds[known])

    def mean(self, kind: int) -> Estimate | None:
        """Mean overlap of the pairs of a kind."""
        of = self.kind == kind
        if not of.any():
            return None
        values, weights = self.values[of], trial_weights(self.trial[of])
        interval = overlap_interval(values, weights, self.trial[of], self.seeds[of])
        return Estimate(float(values @ weights), interval)

    def contrast(self, constant: int, coefficients: Mapping[int, int]) -> Estimate | None:
        """`constant` plus the mean overlaps of kinds of pairs times their coefficients."""
        weights = np.zeros(len(self.values))
        for kind, coefficient in coefficients.items():
            of = self.kind == kind
            if not of.any():
                return None
            weights[of] = coefficient * trial_weights(self.trial[of])
        of = np.isin(self.kind, list(coefficients))
        values, weights = self.values[of], weights[of]
        strata = np.unique(self.trial[of] * 8 + self.kind[of], return_inverse=True)[1]
        moved = jackknife_interval(values, weights, strata, self.seeds[of])
        interval = moved and Interval(constant + moved.low, constant + moved.high)
        return Estimate(constant + float(values @ weights), interval)
