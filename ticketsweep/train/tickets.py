"""What a trial finds: hardened masks, and what they are worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ticketsweep.errors import TrialFailure
from ticketsweep.train.learning import CurvePoint
from ticketsweep.train.snapshots import Snapshot


@dataclass(frozen=True)
class LayerMask:
    """The hardened gates of one layer: `kept` is bool (R, *shape)."""

    name: str
    shape: tuple[int, ...]
    kept: NDArray[np.bool_]


@dataclass(frozen=True)
class Tickets:
    """Hardened masks and what they are worth; arrays are float64 (R,), shares fractions.

    All of a replicate that has diverged is NaN, and its masks mean nothing.

    Attributes
    ----------
    masks: one a gated layer, in the model's order.
    val_accuracy, loss: accuracy and mean cross-entropy of the masks on W_k, validation split.
    strong_accuracy: on the test split, which is looked at for this, for `accuracies`, and nowhere
        else.
    density: share of prunable weights kept. What vanishes with a unit counts as removed, but not
        what reads a sum of several layers (a residual stream) of which all units are removed.
    undecided: share of gates that hardening had to round.
    accuracies: of other networks, by name: `joint`, `retrained`, `dense`, each of the controls and,
        retrained, `CONTROL_retrained`; on the test split, and on the validation split as
        `NAME_val`.
    diverged: int64 (R,), the step at which the replicate was found to have diverged, else 0.
    steps: of training that led to them; 0 for a family that learns nothing.
    train_seconds: time of the steps that learn the gates, without evaluation; summed over packs.
    curve: the logged steps.
    snapshots: the masks at those before the last, where they were asked for.
    """

    masks: tuple[LayerMask, ...]
    val_accuracy: NDArray[np.float64]
    strong_accuracy: NDArray[np.float64]
    loss: NDArray[np.float64]
    density: NDArray[np.float64]
    undecided: NDArray[np.float64]
    accuracies: dict[str, NDArray[np.float64]]
    diverged: NDArray[np.int64]
    steps: int
    train_seconds: float
    curve: tuple[CurvePoint, ...]
    snapshots: tuple[Snapshot, ...]


def joined(parts: Sequence[Tickets]) -> Tickets:
    """The tickets of all packs as one.

    Raises
    ------
    TrialFailure: every replicate has diverged.
    """
    first = parts[0]

    def whole(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts])

    diverged = whole("diverged")
    if (diverged > 0).all():
        raise TrialFailure(
            f"every replicate diverged, the last at step {int(diverged.max())} "
            f"(lower weight_scale or the learning rate)"
        )
    return Tickets(
        masks=tuple(
            replace(mask, kept=np.concatenate([part.masks[at].kept for part in parts]))
            for at, mask in enumerate(first.masks)
        ),
        val_accuracy=whole("val_accuracy"),
        strong_accuracy=whole("strong_accuracy"),
        loss=whole("loss"),
        density=whole("density"),
        undecided=whole("undecided"),
        accuracies={
            name: np.concatenate([part.accuracies[name] for part in parts])
            for name in first.accuracies
        },
        diverged=diverged,
        steps=max(part.steps for part in parts),
        train_seconds=sum(part.train_seconds for part in parts),
        curve=tuple(
            CurvePoint(
                points[0].step,
                np.concatenate([point.loss for point in points]),
                np.concatenate([point.val_accuracy for point in points]),
                np.concatenate([point.expected_density for point in points]),
                np.concatenate([point.mask_change for point in points]),
            )
            for points in _at_common_steps([part.curve for part in parts])
        ),
        snapshots=_joined_snapshots([part.snapshots for part in parts]),
    )


def _at_common_steps(curves: Sequence[Sequence[CurvePoint]]) -> Iterator[list[CurvePoint]]:
    """The points of all packs: some may have been trained before rungs were logged too."""
    by_step = [{point.step: point for point in curve} for curve in curves]
    for step in by_step[0]:
        if all(step in points for points in by_step):
            yield [points[step] for points in by_step]


def _joined_snapshots(packs: Sequence[Sequence[Snapshot]]) -> tuple[Snapshot, ...]:
    """Those of the steps of which every pack has one: some began before they were asked for."""
    bits = [{each.step: each.bits for each in pack} for pack in packs]
    steps = set[int].intersection(*(set(pack) for pack in bits))
    return tuple(
        Snapshot(step, np.concatenate([pack[step] for pack in bits])) for step in sorted(steps)
    )
