"""Hidden units of two networks matched, so that both are written in the same order.

Weight matching (Ainsworth et al. 2023, "Git Re-Basin", algorithm 1): which relabelling of one
network's units makes its weights most like the other's? With all groups of units but one held, the
best order of that group is a linear assignment; groups are taken in turn until none gains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ticketsweep.readable import Readable
from ticketsweep.seeds import derive_seed
from ticketsweep.symmetry import Permutable, Span

Floats = NDArray[np.float64]
Order = NDArray[np.int64]
Touching = list[tuple[Permutable, Span]]  # groups that permute an array, and where
Scalar = TypeVar("Scalar", bound=np.generic)

_GAIN = 1e-9  # of the arrays' norms: less is rounding


@dataclass(frozen=True)
class Matching(Readable):
    """Which units of network b take the places of network a's.

    Parameters
    ----------
    permutations: by the name of a group, int64 (units,): unit `u` of a is unit `permutation[u]`
        of b.
    objective: sum over all arrays of the products of their entries, b relabelled.
    unmatched: the same with b as it is.
    norm: the largest that the objective could be: the product of the networks' norms.
    restarts: the objective that each restart reached.
    """

    permutations: dict[str, Order]
    objective: float
    unmatched: float
    norm: float
    restarts: tuple[float, ...]

    def __str__(self) -> str:
        units = sum(len(order) for order in self.permutations.values())
        groups = len(self.permutations)
        what = f"{units} units matched in {groups} group{'s' * (groups != 1)}"
        if not self.norm:
            return f"{what}: a network is 0 throughout, every order is as good"
        before, after = self.unmatched / self.norm, self.objective / self.norm
        return f"{what}: cosine {after:z.3f}, unmatched {before:z.3f}"


def match_units(
    a: Mapping[str, NDArray[Any]],
    b: Mapping[str, NDArray[Any]],
    symmetry: Sequence[Permutable],
    *,
    restarts: int = 3,
    seed: int = 0,
) -> Matching:
    """Relabel the units of `b` so that its arrays are as like those of `a` as can be found.

    The sum of products is maximised by coordinate ascent, exactly where there is one hidden layer,
    else to a local optimum: the best of `restarts`, each of which begins with another group. No
    start depends on how units are labelled: a group is first matched by what is already known to
    correspond, inputs, outputs and groups matched before, and by a random order only where that is
    nothing. Ties alone (units that keep nothing, masks that are hardly filled) are broken by label.

    Parameters
    ----------
    a, b: arrays of one network each, same names and shapes: weights, masks (bool), or weights of a
        ticket with 0 for the pruned ones. Not necessarily all that the symmetry names.
    symmetry: of the networks' model.
    restarts: >= 1.

    Raises
    ------
    ValueError: names or shapes differ, an array is not finite or does not fit the symmetry, or
        there is no restart.
    """
    if restarts < 1:
        raise ValueError(f"restarts must be >= 1, got {restarts}")
    problem = _Problem(_real(a, "a"), _real(b, "b"), symmetry)
    rng = np.random.default_rng(derive_seed(seed, "matching"))
    first = rng.permutation(len(symmetry))
    found = [problem.ascend(rng, np.roll(first, restart)) for restart in range(restarts)]
    reached = [problem.objective(permutations) for permutations in found]
    best = int(np.argmax(reached))
    unmatched = problem.objective({})
    return Matching(found[best], reached[best], unmatched, problem.norm, tuple(reached))


def permuted(
    arrays: Mapping[str, NDArray[Scalar]],
    permutations: Mapping[str, Order],
    symmetry: Sequence[Permutable],
) -> dict[str, NDArray[Scalar]]:
    """Arrays of a network with its units relabelled, of the same dtypes: copies.

    Parameters
    ----------
    permutations: as of `Matching`: what comes to place `u` is unit `permutation[u]`. Groups without
        one stay as they are.

    Raises
    ------
    ValueError: an array or a permutation does not fit the symmetry.
    """
    for group in symmetry:
        order = permutations.get(group.name)
        if order is not None and not np.array_equal(np.sort(order), np.arange(group.units)):
            raise ValueError(
                f"the permutation of {group.name} must hold 0 to {group.units - 1} once each, "
                f"got {len(order)} entries"
            )
    touching = _touching(arrays, symmetry)
    return {
        name: _relabelled(array, touching[name], permutations).copy()
        for name, array in arrays.items()
    }


class _Problem:
    """Two networks, and what each group's best order depends on."""

    def __init__(
        self, a: dict[str, Floats], b: dict[str, Floats], symmetry: Sequence[Permutable]
    ) -> None:
        shapes = [{name: array.shape for name, array in arrays.items()} for arrays in (a, b)]
        if shapes[0] != shapes[1]:
            unlike = sorted(
                name
                for name in shapes[0].keys() | shapes[1].keys()
                if shapes[0].get(name) != shapes[1].get(name)
            )
            raise ValueError(
                f"both networks must have arrays of the same names and shapes, got differences in "
                f"{', '.join(unlike)}"
            )
        self._a, self._b, self._symmetry = a, b, symmetry
        self._touching = _touching(a, symmetry)
        norms = [np.sqrt(sum(float(np.sum(x * x)) for x in arrays.values())) for arrays in (a, b)]
        self.norm = float(norms[0] * norms[1])
        self._spans = {group.name: self._spans_of(group) for group in symmetry}
        self._neighbours = {
            name: {other.name for _, others in spans for other, _ in others}
            for name, spans in self._spans.items()
        }
        self._fixed: dict[str, Floats] = {}  # by group: gains that no other group's order changes

    def ascend(self, rng: np.random.Generator, first: Order) -> dict[str, Order]:
        """A local optimum, where no group alone can do better; `first`: in which order to begin."""
        orders: dict[str, Order] = {}
        stale: set[str] = set()  # groups whose gains may have changed
        waiting = [self._symmetry[at] for at in first]
        while waiting:
            group = self._begin(waiting, orders, rng)
            waiting.remove(group)
            stale = (stale - {group.name}) | (self._neighbours[group.name] & orders.keys())
        while stale:
            some = [group for group in self._symmetry if group.name in stale]
            group = some[rng.integers(len(some))]
            stale.remove(group.name)
            gains = self._gains(group, orders)
            best, units = _assigned(gains), np.arange(group.units)
            gain = gains[units, best] - gains[units, orders[group.name]]
            if gain.sum() > _GAIN * self.norm:
                orders[group.name] = best
                stale |= self._neighbours[group.name]
        return orders

    def objective(self, orders: Mapping[str, Order]) -> float:
        """Sum of products of all entries, b relabelled."""
        return sum(
            float(np.vdot(array, _relabelled(self._b[name], self._touching[name], orders)))
            for name, array in self._a.items()
        )

    def _begin(
        self, waiting: Sequence[Permutable], orders: dict[str, Order], rng: np.random.Generator
    ) -> Permutable:
        """Give an order to the first group about whose order anything is known."""
        for group in waiting:
            gains = self._gains(group, orders)
            if np.ptp(gains) > _GAIN * self.norm:
                orders[group.name] = _assigned(gains)
                return group
        orders[waiting[0].name] = rng.permutation(waiting[0].units)
        return waiting[0]

    def _gains(self, group: Permutable, orders: Mapping[str, Order]) -> Floats:
        """What each unit of b adds in the place of each unit of a: float64 (units of a, of b).

        Entries that belong to units without an order add nothing yet.
        """
        if group.name not in self._fixed:
            self._fixed[group.name] = np.zeros((group.units, group.units))
            for span, others in self._spans[group.name]:
                if not others:
                    products = self._products(span, group.units, self._b[span.parameter])
                    self._fixed[group.name] += products
        gains = self._fixed[group.name].copy()
        for span, others in self._spans[group.name]:
            if not any(other.name in orders for other, _ in others):
                continue
            b = _relabelled(self._b[span.parameter], others, orders)
            for other, along in others:
                if other.name not in orders:
                    b[_entries(along, other.units)] = 0  # a copy: another group has an order
            gains += self._products(span, group.units, b)
        return gains

    def _spans_of(self, group: Permutable) -> list[tuple[Span, Touching]]:
        """The group's spans, and what permutes the same array along another dimension."""
        return [
            (
                span,
                [
                    (of, along)
                    for of, along in self._touching[span.parameter]
                    if along.dim != span.dim
                ],
            )
            for span in group.spans
            if span.parameter in self._a
        ]

    def _products(self, span: Span, units: int, b: Floats) -> Floats:
        rows, others = (_rows(array, span, units) for array in (self._a[span.parameter], b))
        products: Floats = rows @ others.T
        return products


def _touching(
    arrays: Mapping[str, NDArray[Any]], symmetry: Sequence[Permutable]
) -> dict[str, Touching]:
    """By array: the groups that permute it."""
    touching: dict[str, Touching] = {name: [] for name in arrays}
    for group in symmetry:
        for span in group.spans:
            if span.parameter not in arrays:
                continue
            shape = arrays[span.parameter].shape
            end = span.offset + group.units * span.block
            if span.dim >= len(shape) or shape[span.dim] < end:
                raise ValueError(
                    f"array {span.parameter} must have {end} entries along dimension {span.dim} "
                    f"for the units of {group.name}, got shape {shape}"
                )
            touching[span.parameter].append((group, span))
    return touching


def _relabelled(
    array: NDArray[Scalar],
    touching: Touching,
    orders: Mapping[str, Order],
) -> NDArray[Scalar]:
    """The array in the given orders: a copy, where any of its groups has one."""
    index: dict[int, Order] = {}
    for group, span in touching:
        order = orders.get(group.name)
        if order is not None:
            along = index.setdefault(span.dim, np.arange(array.shape[span.dim]))
            entries = span.offset + order[:, None] * span.block + np.arange(span.block)
            along[span.offset : span.offset + entries.size] = entries.reshape(-1)
    for dim, along in index.items():
        array = array.take(along, axis=dim)
    return array


def _entries(span: Span, units: int) -> tuple[slice, ...]:
    """Where a group's entries lie in an array."""
    return (slice(None),) * span.dim + (slice(span.offset, span.offset + units * span.block),)


def _rows(array: Floats, span: Span, units: int) -> Floats:
    """The entries of each unit in a row: float64 (units, entries)."""
    return array[_entries(span, units)].swapaxes(0, span.dim).reshape(units, -1)


def _assigned(gains: Floats) -> Order:
    from scipy.optimize import linear_sum_assignment  # 0.2 s, and most of the analysis needs none

    order: Order = linear_sum_assignment(gains, maximize=True)[1].astype(np.int64)
    return order


def _real(arrays: Mapping[str, NDArray[Any]], which: str) -> dict[str, Floats]:
    real = {name: np.asarray(array, dtype=np.float64) for name, array in arrays.items()}
    broken = sorted(name for name, array in real.items() if not np.isfinite(array).all())
    if broken:
        raise ValueError(
            f"network {which} must be finite to be matched, got nan or inf in {', '.join(broken)} "
            "(leave out replicates that have diverged)"
        )
    return real
