"""Overlap of two tickets whose hidden units have been matched, against equally matched chance.

Tickets of different initial weights have their units in unrelated orders, so their masks overlap by
chance at most, whether or not they are the same ticket relabelled. Matching their units first tells
the two apart. But a matching looks for likeness and finds some in anything, so the overlap after it
is held against masks drawn at random that are matched in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ticketsweep.analysis.intervals import CONFIDENCE, Interval
from ticketsweep.analysis.layers import ALL_LAYERS
from ticketsweep.analysis.matching import Matching, match_units, permuted
from ticketsweep.analysis.overlap import expected_intersection, intersection_variance
from ticketsweep.readable import Readable
from ticketsweep.seeds import derive_seed
from ticketsweep.symmetry import Permutable

Floats = NDArray[np.float64]
Masks = Mapping[str, NDArray[np.bool_]]
MatchedBy = Literal["ticket", "weights", "masks"]
Chance = Literal["layers", "inputs"]
Dealt = Literal["masks", "tickets"]


@dataclass(frozen=True)
class Ticket:
    """A mask and the weights it selects from.

    Parameters
    ----------
    masks: bool, by layer, in the shape of its weights.
    weights: float, by name, at least those of the layers: pruned ones too, since chance keeps
        others. What has no mask (biases, norms) is matched as it is. No running statistics: their
        scale is not the weights'.

    Raises
    ------
    ValueError: there is no mask, one is not bool, or it has not the shape of its weights.
    """

    masks: Masks
    weights: Mapping[str, NDArray[Any]]

    def __post_init__(self) -> None:
        if not self.masks:
            raise ValueError("a ticket must have the mask of at least one layer, got none")
        for layer, mask in self.masks.items():
            shape = self.weights[layer].shape if layer in self.weights else "no weights"
            if mask.dtype != np.bool_ or mask.shape != shape:
                raise ValueError(
                    f"the mask of {layer} must be bool in the shape of its weights, {shape}, got "
                    f"{mask.dtype} {mask.shape} (masks of units: hand in the weights they keep)"
                )


@dataclass(frozen=True)
class Agreement(Readable):
    """Kept gates that two masks share, and what chance would give.

    Parameters
    ----------
    shared: gates kept by both.
    chance, sd: mean and standard deviation of that number for random masks.
    largest: that it could be: the smaller mask.
    draws: random masks that mean and deviation were estimated from; None: they are exact.
    """

    shared: int
    chance: float
    sd: float
    largest: int
    draws: int | None

    @property
    def corrected(self) -> float:
        """`(shared - chance) / (largest - chance)`: 0 for independent masks, at most 1.

        NaN where chance leaves nothing open: a mask keeps nothing or everything.
        """
        return self._scaled(self.shared)

    @property
    def z(self) -> float:
        """Excess over chance in standard deviations; NaN where chance does not vary."""
        return (self.shared - self.chance) / self.sd if self.sd > 0 else math.nan

    @property
    def interval(self) -> Interval | None:
        """Of `corrected`, at 95 %, from how far chance alone moves it (normal; Student's t).

        Independent masks' holds 0. It is about these two masks, and says nothing of other seeds.
        None where `corrected` is undefined.
        """
        if math.isnan(self.corrected):
            return None
        quantile = (1 + CONFIDENCE) / 2
        degrees = math.inf if self.draws is None else self.draws - 1
        # The mean of the draws varies beside the masks: independent masks are one more draw.
        spread = self.sd * math.sqrt(1 + 1 / self.draws) if self.draws else self.sd
        half = float(stdtrit(degrees, quantile)) * spread + 0.5  # gates: they come whole
        return Interval(self._scaled(self.shared - half), min(self._scaled(self.shared + half), 1))

    def __str__(self) -> str:
        if math.isnan(self.corrected):
            return "no overlap beyond chance is possible"
        z = "" if math.isnan(self.z) else f", z = {self.z:z.1f}"
        return f"{self.corrected:z.2f} {self.interval}{z}"

    def _scaled(self, shared: float) -> float:
        headroom = self.largest - self.chance
        # What is left of rounding is no headroom.
        return (shared - self.chance) / headroom if headroom > 1e-9 * self.largest else math.nan


@dataclass(frozen=True)
class LayerAlignment(Readable):
    """Overlap of the masks of one layer, or of all of them, as they are and after matching.

    Parameters
    ----------
    gates: in the layer.
    kept: by a's mask, and by b's.
    """

    layer: str
    gates: int
    kept: tuple[int, int]
    before: Agreement
    after: Agreement

    def __str__(self) -> str:
        return f"{self.layer}: overlap beyond chance {self.before}; matched {self.after}"


@dataclass(frozen=True)
class AlignedOverlap(Readable):
    """What two tickets share before and after their units are matched.

    Parameters
    ----------
    layers: in the order of a's masks.
    pooled: over all layers: counts, their chance level and largest values summed.
    matching: of b's units to a's.
    matched_by, chance, dealt: as asked for.
    """

    layers: tuple[LayerAlignment, ...]
    pooled: LayerAlignment
    matching: Matching
    matched_by: MatchedBy
    chance: Chance
    dealt: Dealt

    def __str__(self) -> str:
        return f"{self.pooled} (units matched by {self.matched_by})"


def aligned_overlap(
    a: Ticket,
    b: Ticket,
    symmetry: Sequence[Permutable],
    *,
    matched_by: MatchedBy = "ticket",
    chance: Chance = "layers",
    dealt: Dealt = "masks",
    draws: int = 20,
    restarts: int = 3,
    seed: int = 0,
    matching: Matching | None = None,
) -> AlignedOverlap:
    """Overlap of two tickets' masks before and after matching, each against its chance level.

    Chance deals out the gates of b anew: before matching, the number of shared gates is then
    hypergeometric. After it, it is so only where weights alone were matched, which know nothing of
    the masks; else each of `draws` is matched to a as the ticket itself was.

    Parameters
    ----------
    matched_by: what is made alike: the weights that the masks keep (`ticket`), all weights, or the
        masks alone.
    chance: random masks keep as many gates of each layer (`layers`), or also of each column of the
        layers whose inputs are never permuted (`inputs`): what both tickets owe to the data, such
        as pixels that are always dark, is then no agreement. A column is an input or, of a
        convolution, one entry of the kernel of one input channel.
    dealt: whether chance deals out `masks` alone, or `tickets`: every gate with its weight. Masks
        that follow each gate's own weight (keep positive ones, say) agree wherever weights are
        matched, without any structure in common; `tickets` counts that as chance. It is meant for
        initial weights: the structure of trained ones is lost when they are dealt out.
    draws: >= 2 random masks, where chance is not known exactly.
    restarts: of each matching.
    matching: of b's units to a's, where an earlier result of the same tickets, `matched_by`,
        restarts and seed has it; None: looked for.

    Returns
    -------
    The same for the same arguments.

    Raises
    ------
    ValueError: the tickets have other layers or shapes, or do not fit the symmetry; too few draws
        or restarts; an option that does not exist.
    """
    if draws < 2:
        raise ValueError(f"draws must be >= 2 for a standard deviation, got {draws}")
    if chance not in ("layers", "inputs"):
        raise ValueError(f"chance must be layers or inputs, got {chance!r}")
    if dealt not in ("masks", "tickets"):
        raise ValueError(f"dealt must be masks or tickets, got {dealt!r}")
    if a.masks.keys() != b.masks.keys():
        raise ValueError(
            f"both tickets must have masks of the same layers, got {sorted(a.masks)} and "
            f"{sorted(b.masks)}"
        )
    given = _matched_arrays(a, matched_by)

    def match(other: Ticket) -> Matching:
        arrays = _matched_arrays(other, matched_by)
        return match_units(given, arrays, symmetry, restarts=restarts, seed=seed)

    def shared(other: Ticket, matching: Matching) -> NDArray[np.int64]:
        """Gates kept by both tickets, by layer: int64 (L,)."""
        return _shared(a.masks, permuted(other.masks, matching.permutations, symmetry))

    matching = matching or match(b)
    by_column = _reading_inputs(a.masks, symmetry) if chance == "inputs" else set()
    is_exact = (matched_by, dealt) == ("weights", "masks")
    drawn = np.zeros((0 if is_exact else draws, len(a.masks)))
    for draw in range(len(drawn)):
        rng = np.random.default_rng(derive_seed(seed, "chance", str(draw)))
        other = _dealt_anew(b, rng, by_column, dealt)
        drawn[draw] = shared(other, match(other))

    sizes = np.array([mask.size for mask in a.masks.values()])
    kept = np.array([[np.count_nonzero(of.masks[x]) for x in a.masks] for of in (a, b)])
    exact = np.array(
        [_hypergeometric(mask, b.masks[x], x in by_column) for x, mask in a.masks.items()]
    )
    before, after = _shared(a.masks, b.masks), shared(b, matching)

    def measured(name: str, of: slice) -> LayerAlignment:
        """Figures of these layers, summed."""
        largest = int(kept.min(axis=0)[of].sum())
        mean, variance = (float(moment) for moment in exact[of].sum(axis=0))
        unmatched = Agreement(int(before[of].sum()), mean, math.sqrt(variance), largest, None)
        matched = replace(unmatched, shared=int(after[of].sum()))
        if not is_exact:
            sums = drawn[:, of].sum(axis=1)
            mean, sd = float(sums.mean()), float(sums.std(ddof=1))
            matched = replace(matched, chance=mean, sd=sd, draws=draws)
        of_a, of_b = (int(number[of].sum()) for number in kept)
        return LayerAlignment(name, int(sizes[of].sum()), (of_a, of_b), unmatched, matched)

    layers = tuple(measured(name, slice(at, at + 1)) for at, name in enumerate(a.masks))
    return AlignedOverlap(
        layers, measured(ALL_LAYERS, slice(None)), matching, matched_by, chance, dealt
    )


def _matched_arrays(ticket: Ticket, matched_by: MatchedBy) -> dict[str, NDArray[Any]]:
    """What of a ticket is made like the other's."""
    if matched_by == "masks":
        return dict(ticket.masks)
    if matched_by == "weights":
        return dict(ticket.weights)
    if matched_by == "ticket":
        kept = {
            name: np.where(mask, ticket.weights[name], 0) for name, mask in ticket.masks.items()
        }
        return {**ticket.weights, **kept}
    raise ValueError(f"matched_by must be ticket, weights or masks, got {matched_by!r}")


def _shared(a: Masks, b: Masks) -> NDArray[np.int64]:
    return np.array([np.count_nonzero(mask & b[layer]) for layer, mask in a.items()])


def _reading_inputs(masks: Masks, symmetry: Sequence[Permutable]) -> set[str]:
    """Layers whose inputs, along dimension 1, are never permuted."""
    reordered = {span.parameter for group in symmetry for span in group.spans if span.dim == 1}
    return {layer for layer, mask in masks.items() if mask.ndim > 1 and layer not in reordered}


def _dealt_anew(
    ticket: Ticket, rng: np.random.Generator, by_column: set[str], dealt: Dealt
) -> Ticket:
    """The ticket with the gates of each layer, or of each of its columns, in a random order."""
    masks, weights = dict(ticket.masks), dict(ticket.weights)
    for layer, mask in ticket.masks.items():
        order = np.arange(mask.size).reshape(mask.shape)
        order = rng.permuted(order, axis=0 if layer in by_column else None)
        masks[layer] = mask.reshape(-1)[order]
        if dealt == "tickets":
            weights[layer] = weights[layer].reshape(-1)[order]
    return Ticket(masks, weights)


def _hypergeometric(
    a: NDArray[np.bool_], b: NDArray[np.bool_], by_column: bool
) -> tuple[float, float]:
    """Mean and variance of the shared gates of `a` and a shuffled `b`."""
    axis = 0 if by_column else None
    of_a, of_b = (np.asarray(np.count_nonzero(mask, axis=axis)) for mask in (a, b))
    gates = len(a) if by_column else a.size
    mean = expected_intersection(of_a, of_b, gates).sum()
    return float(mean), float(intersection_variance(of_a, of_b, gates).sum())
