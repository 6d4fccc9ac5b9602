"""Learning the gates of a pack."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ticketsweep.errors import TrialFailure
from ticketsweep.progress import ALIVE_SECONDS, Alive
from ticketsweep.seeds import Replicate
from ticketsweep.train.augment import Augmentation
from ticketsweep.train.checkpoint import Checkpoints, State, part, under
from ticketsweep.train.gates.interface import Gates
from ticketsweep.train.images import BatchOrder, Images, training_batches
from ticketsweep.train.loop import (
    Evaluator,
    Optimisation,
    Update,
    gradients_behind,
    losses_and_gradient,
)
from ticketsweep.train.pack import Layers, Layout, PackedModel, Weights
from ticketsweep.train.schedules import log_steps
from ticketsweep.train.snapshots import MaskTrace
from ticketsweep.train.units import Units
from ticketsweep.train.weights import Leaves

_LOG = logging.getLogger(__name__)
STAGE = "gates"


@dataclass(frozen=True)
class CurvePoint:
    """A logged step; arrays are float64 (R,), NaN for a replicate that has diverged.

    Attributes
    ----------
    step: number of steps done.
    loss: mean training cross-entropy of the sampled networks since the last point, no penalty.
    val_accuracy: of the mask as hardened now on the weights as they are now, on the validation
        split; a fraction.
    expected_density: expected share of open gates at this step's temperature.
    mask_change: share of gates that would be hardened otherwise than at the last point, or, for the
        first, than before the first step.
    """

    step: int
    loss: NDArray[np.float64]
    val_accuracy: NDArray[np.float64]
    expected_density: NDArray[np.float64]
    mask_change: NDArray[np.float64]


_FIGURES = ("loss", "val_accuracy", "expected_density", "mask_change")


class Gating(Protocol):
    """How gates act on parameters: `layout` is that of the gates, one row (U,) a replicate."""

    @property
    def layout(self) -> Layout:
        """Of the gates."""

    def apply(self, sampled: Layers, weights: Weights) -> Layers:
        """Every parameter as the network uses it, from what the family sampled."""

    def keep(self, kept: Tensor) -> Weights:
        """What gates that are kept, bool (R, U), leave of every parameter: bool (R, G), (R, O)."""


class WeightGating:
    """A gate for each weight.

    Parameters
    ----------
    multiplies: whether the family samples gates alone, and not the weights they let through.
    """

    def __init__(self, packed: PackedModel, *, multiplies: bool) -> None:
        self.layout = packed.gated
        self._rest = packed.rest
        self._multiplies = multiplies

    def apply(self, sampled: Layers, weights: Weights) -> Layers:
        """See `Gating`."""
        if self._multiplies:
            layers = self.layout.split(weights.gated)
            sampled = tuple(z * w for z, w in zip(sampled, layers, strict=True))
        return sampled + self._rest.split(weights.rest)

    def keep(self, kept: Tensor) -> Weights:
        """See `Gating`."""
        rest = torch.ones((len(kept), self._rest.size), dtype=torch.bool, device=kept.device)
        return Weights(kept, rest)


class UnitGating:
    """A gate for each unit."""

    def __init__(self, packed: PackedModel, units: Units) -> None:
        self.layout = units.layout
        self._packed = packed
        self._units = units

    def apply(self, sampled: Layers, weights: Weights) -> Layers:
        """See `Gating`."""
        gated = self._packed.gated.split(weights.gated)
        gated, rest = self._units.apply(sampled, gated, self._packed.rest.split(weights.rest))
        return gated + rest

    def keep(self, kept: Tensor) -> Weights:
        """See `Gating`."""
        return Weights(*self._units.keep(kept))


@dataclass
class Diverged:
    """The step at which each replicate was found to have diverged; 0 for those that have not.

    Attributes
    ----------
    others: whether the trial has replicates elsewhere, for which it goes on.
    """

    at: NDArray[np.int64]
    others: bool = False

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Which replicates have not, (R,)."""
        alive: NDArray[np.bool_] = self.at == 0
        return alive

    @property
    def must_stop(self) -> bool:
        """Whether nothing is left to go on for."""
        return not (self.others or self.alive.any())

    def note(self, sound: NDArray[np.bool_], *, step: int) -> None:
        """Mark those that are not sound now and were before."""
        self.at[~sound & self.alive] = step

    def masked(self, figures: NDArray[np.float64]) -> NDArray[np.float64]:
        """Figures (R,), NaN for the diverged."""
        return np.where(self.alive, figures, np.nan)


@dataclass
class GateLearning:
    """The gates of a pack under training.

    Attributes
    ----------
    start: W_k.
    joint: whether weights are trained along.
    how, weight_how: how gates and weights are optimised.
    diverged: is added to.
    curve, seconds: points logged so far, and the time of the steps that led to them.
    trace: the masks on the way, while and after it runs.
    """

    packed: PackedModel
    gating: Gating
    gates: Gates
    start: Weights
    joint: bool
    how: Optimisation
    weight_how: Optimisation
    replicates: Sequence[Replicate]
    diverged: Diverged
    curve: list[CurvePoint] = field(default_factory=list)
    seconds: float = 0.0
    trace: MaskTrace = field(init=False)
    _done: int = 0

    def __post_init__(self) -> None:
        family_trains = self.gates.trained_weights is not None
        trains_rest = self.joint or family_trains
        self.weights = self.start.copy() if trains_rest else self.start
        self._restarts = family_trains  # W_k at the beginning of each round
        gated = self.weights.gated if self.joint and not family_trains else self.start.gated[:, :0]
        rest = self.weights.rest if trains_rest else self.start.rest[:, :0]
        self._leaves = Leaves(Weights(gated, rest))
        self._total = torch.zeros(len(self.replicates), device=self.start.gated.device)

    @property
    def learns(self) -> bool:
        """Whether there is anything to train."""
        return bool(self.gates.rounds or self._leaves.tensors)

    @property
    def done(self) -> int:
        """Steps done."""
        return self._done

    def run(
        self,
        images: Images,
        orders: Sequence[BatchOrder],
        evaluator: Evaluator,
        *,
        augmentation: Augmentation | None,
        log_points: int,
        snapshots: bool,
        rungs: Collection[int],
        checkpoints: Checkpoints,
    ) -> Generator[CurvePoint | Alive, None, None]:
        """Train to the last step, from the checkpoint's if there is one.

        Parameters
        ----------
        snapshots: whether the masks of the logged steps are kept in `trace`.
        rungs: further steps to be logged.

        Raises
        ------
        TrialFailure: every replicate has diverged.
        """
        self._new_round()
        self.trace = MaskTrace(self.gating.layout, self.gates.harden(), keeps=snapshots)
        if (saved := checkpoints.state(STAGE)) is not None:
            self._restore(saved)
        yield from self.curve
        if not self.learns:
            return
        for order in orders:
            order.skip(self._done)
        rates, logged = self.how.rates(), {*log_steps(self.how.steps, log_points), *rungs}
        batches = training_batches(
            images, orders, first=self._done, steps=self.how.steps, augmentation=augmentation
        )
        last = self.curve[-1].step if self.curve else 0
        with contextlib.closing(batches):
            began, heard = time.perf_counter(), time.monotonic()
            for batch, labels in batches:
                self._step(batch, labels, rates[self._done])
                is_logged, is_due = self._done in logged, checkpoints.due()
                is_silent = time.monotonic() - heard >= ALIVE_SECONDS
                if not (is_logged or is_due or is_silent):
                    continue
                if is_logged:
                    loss = (self._total / (self._done - last)).double().cpu().numpy()
                self.seconds += time.perf_counter() - began
                if is_logged:
                    self._look_for_divergence(loss, first=last + 1)
                    self._total.zero_()
                    last = self._done
                    self.curve.append(self._point(loss, evaluator))
                if is_due:
                    checkpoints.save(STAGE, self.state())
                if is_logged or is_silent:
                    alive = Alive(step=self._done, steps=self.how.steps)
                    yield self.curve[-1] if is_logged else alive
                    heard = time.monotonic()
                began = time.perf_counter()
        self._leaves.release()

    def _step(self, batch: Tensor, labels: Tensor, rate: float) -> None:
        if self._done in self.gates.rounds and self._done:
            self._new_round()
        parameters = self.gating.apply(self.gates.sample(self._done), self.weights)
        logits = self.packed(parameters, batch)
        losses, gradient = losses_and_gradient(logits, labels)
        of_gates = [self.gates.parameter] if self.gates.rounds else []
        # Fills gates.parameter.grad; .backward() would add to what is there.
        gradients = gradients_behind(logits, gradient, of_gates + self._leaves.tensors)
        if of_gates:
            self._gate_update(rate)
        if self._leaves.tensors:
            self._leaves.take(gradients[len(of_gates) :])
            self._weight_update(self.weight_how.lr)
        self._total += losses
        self._done += 1

    def _new_round(self) -> None:
        """Optimizers afresh; in a family that trains the weights, the others rewound too."""
        if self._restarts:
            with torch.no_grad():
                self.weights.rest.copy_(self.start.rest)
        if self.gates.rounds:
            self._gate_update = Update(
                [self.gates.parameter],
                optimizer=self.how.optimizer,
                clip_norm=self.how.clip_norm,
            )
        self._weight_update = Update(
            self._leaves.tensors,
            optimizer=self.weight_how.optimizer,
            clip_norm=self.weight_how.clip_norm,
        )

    def _look_for_divergence(self, loss: NDArray[np.float64], *, first: int) -> None:
        self.diverged.note(np.isfinite(loss), step=self._done)
        if self.diverged.must_stop:
            raise TrialFailure(
                f"every replicate diverged: the last loss became infinite or NaN between steps "
                f"{first} and {self._done} (lower weight_scale or the learning rate)"
            )

    def _point(self, loss: NDArray[np.float64], evaluator: Evaluator) -> CurvePoint:
        kept = self.gates.harden()
        score = evaluator.on_validation(self._under(kept))
        density = self.gates.expected_density(self._done - 1).double().cpu().numpy()
        return CurvePoint(
            step=self._done,
            loss=self.diverged.masked(loss),
            val_accuracy=self.diverged.masked(score.accuracy),
            expected_density=self.diverged.masked(density),
            mask_change=self.diverged.masked(self.trace.changed(kept, step=self._done)),
        )

    @torch.no_grad()
    def _under(self, kept: Tensor) -> Weights:
        """The weights as they are now under a mask of the gates."""
        return self.weights.where(self.gating.keep(kept))

    @torch.no_grad()
    def trained(self) -> Weights:
        """The weights that were trained along, those of the family itself included."""
        own = self.gates.trained_weights
        return self.weights if own is None else Weights(own, self.weights.rest)

    def state(self) -> State:
        """Copies of all that the next steps depend on."""
        return {
            "step": torch.tensor(self._done),
            "seconds": torch.tensor(self.seconds, dtype=torch.float64),
            "total": self._total.clone(),
            "diverged": torch.from_numpy(self.diverged.at.copy()),
            **under("curve", curve_state(self.curve)),
            **under("trace", self.trace.state()),
            **under("gates", self.gates.state()),
            **under("leaves", self._leaves.state()),
            **under("weight-update", self._weight_update.state()),
            **(under("gate-update", self._gate_update.state()) if self.gates.rounds else {}),
        }

    def _restore(self, saved: State) -> None:
        self._done = int(saved["step"])
        _LOG.info("going on from step %d of a checkpoint", self._done)
        self.seconds = float(saved["seconds"])
        self._total.copy_(saved["total"])
        self.diverged.at[:] = saved["diverged"].numpy()
        self.curve = curve_of(part("curve", saved))
        self.trace.restore(part("trace", saved))
        self.gates.restore(part("gates", saved))
        self._leaves.restore(part("leaves", saved))
        self._weight_update.restore(part("weight-update", saved))
        if self.gates.rounds:
            self._gate_update.restore(part("gate-update", saved))


def curve_state(curve: Sequence[CurvePoint]) -> State:
    """The points of a curve as tensors."""
    state = {"step": torch.tensor([point.step for point in curve], dtype=torch.int64)}
    for name in _FIGURES:
        rows = [torch.from_numpy(getattr(point, name)) for point in curve]
        state[name] = torch.stack(rows) if rows else torch.empty(0, dtype=torch.float64)
    return state


def curve_of(state: State) -> list[CurvePoint]:
    """What `curve_state` made tensors of."""
    arrays = [state[name].numpy() for name in _FIGURES]
    steps = state["step"].tolist()
    return [CurvePoint(step, *point) for step, *point in zip(steps, *arrays, strict=True)]
