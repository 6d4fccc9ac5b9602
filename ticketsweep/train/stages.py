"""The stages of a trial: pre-train, learn the gates, harden, evaluate, retrain, compare."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ticketsweep.errors import TrialFailure
from ticketsweep.progress import Alive
from ticketsweep.seeds import Replicate, derive_seed
from ticketsweep.train.augment import augmentation_of
from ticketsweep.train.checkpoint import Checkpoints, State, part, under
from ticketsweep.train.controls import REINITIALIZED, control_mask, fresh_init_seed
from ticketsweep.train.data import Dataset
from ticketsweep.train.demand import Demand, measured_demand
from ticketsweep.train.images import BatchOrder, as_tensor, open_images
from ticketsweep.train.learning import (
    STAGE,
    CurvePoint,
    Diverged,
    GateLearning,
    Gating,
    UnitGating,
    WeightGating,
    curve_of,
    curve_state,
)
from ticketsweep.train.loop import Evaluator, Optimisation
from ticketsweep.train.pack import Layout, PackedModel, Weights, set_precision
from ticketsweep.train.plan import Plan, network_of, split_rows
from ticketsweep.train.snapshots import Snapshot, snapshots_of, snapshots_state
from ticketsweep.train.tickets import LayerMask, Tickets
from ticketsweep.train.units import Units
from ticketsweep.train.weights import Passage, initial_weights, rewound_weights, train_weights


class Stages:
    """The stages of one pack.

    Parameters
    ----------
    log_points, device, snapshots, rungs: see `packs.find_tickets`.
    others: whether the trial has other packs, so that it is no failure if all of this one diverge.
    """

    def __init__(
        self,
        plan: Plan,
        dataset: Dataset,
        replicates: Sequence[Replicate],
        log_points: int,
        device: torch.device,
        checkpoints: Checkpoints,
        *,
        others: bool,
        snapshots: bool = False,
        rungs: Collection[int] = (),
    ) -> None:
        set_precision(plan.precision)
        rows, held_out = split_rows(plan, dataset)
        self._network = network = network_of(plan, dataset)
        self._plan, self._replicates = plan, replicates
        self._log_points, self._device, self._checkpoints = log_points, device, checkpoints
        self._snapshots = snapshots
        self._rungs, self._others = rungs, others
        self._packed = PackedModel(
            network.model.to(device), network.gated, network.rest, precision=plan.precision
        )
        self._images, self._test = open_images(dataset, rows, device)
        self._rows = as_tensor(rows, device)
        self._evaluator = Evaluator(
            self._packed,
            self._images,
            self._test,
            train_rows=self._rows,
            validation_rows=as_tensor(held_out, device),
            input_shape=dataset.input_shape,
        )
        self._diverged = Diverged(np.zeros(len(replicates), dtype=np.int64), others=others)
        self._accuracies: dict[str, NDArray[np.float64]] = {}

    def run(self) -> Generator[CurvePoint | Passage | Alive | Tickets, None, Tickets]:
        """All of them in turn."""
        plan, replicates = self._plan, self._replicates
        inits = list(dict.fromkeys(replicate.init_seed for replicate in replicates))
        rewound = yield from self._pretrained("pretrain", inits)
        weights = rewound.rows([inits.index(replicate.init_seed) for replicate in replicates])
        self._look_for_divergence(weights)
        gating = self._gating()
        learnt = yield from self._learn(gating, weights)
        kept_gates = learnt["kept"]
        kept = gating.keep(kept_gates)
        ticket = weights.where(kept)
        validation, test = self._evaluator.on_both(ticket)
        self._diverged.note(np.isfinite(validation.loss), step=max(1, int(learnt["steps"])))
        if self._diverged.must_stop:
            raise TrialFailure(
                "diverged: the hardened tickets' validation loss is infinite or NaN "
                "(lower weight_scale or the learning rate)"
            )
        if plan.retrain:
            yield from self._retrained("retrained", ticket, kept)
            yield from self._dense(weights)
        if REINITIALIZED in plan.controls:
            others = yield from self._pretrained(
                f"pretrain-{REINITIALIZED}", [fresh_init_seed(seed) for seed in inits]
            )
            fresh = others.rows([inits.index(replicate.init_seed) for replicate in replicates])
        for control in plan.controls:
            mask = control_mask(control, kept_gates, gating, self._network.gated, replicates)
            network = (fresh if control == REINITIALIZED else weights).where(mask)
            self._score(control, network)
            if plan.retrain:
                yield from self._retrained(f"{control}_retrained", network, mask)
        return Tickets(
            masks=_masks(gating.layout, kept_gates),
            val_accuracy=self._diverged.masked(validation.accuracy),
            strong_accuracy=self._diverged.masked(test.accuracy),
            loss=self._diverged.masked(validation.loss),
            density=self._diverged.masked(_figures(kept.gated.double().mean(dim=1))),
            undecided=self._diverged.masked(_figures(learnt["undecided"])),
            accuracies={
                name: self._diverged.masked(figures) for name, figures in self._accuracies.items()
            },
            diverged=self._diverged.at,
            steps=int(learnt["steps"]),
            train_seconds=float(learnt["seconds"]),
            curve=tuple(curve_of(part("curve", learnt))),
            snapshots=self._wanted(snapshots_of(part("snapshots", learnt))),
        )

    @property
    def held(self) -> int:
        """Bytes that the images take of a device's own memory, whatever the pack."""
        images = (self._images, self._test) if self._device.type != "cpu" else ()
        return sum(each.nbytes for each in images)

    def demand(self, *, saved: bool) -> Demand:
        """What the pack needs of memory while its gates are learnt; see `measured_demand`."""
        plan, first = self._plan, self._replicates[0]
        weights = initial_weights(
            plan.build,
            self._network.gated,
            self._network.rest,
            weight_init=plan.weight_init,
            weight_scale=plan.weight_scale,
            seeds=[first.init_seed],
            device=self._device,
        )
        (order,) = self._orders([first.data_seed], plan.train.batch_size)
        return measured_demand(
            self._packed,
            weights,
            self._images.take(order.next())[0],
            gates=self._gating().layout.size,
            joint=plan.joint,
            evaluated=self._evaluator.images_at_once,
            saved=saved and self._device.type == "cpu",
        )

    def _pretrained(
        self, stage: str, seeds: Sequence[int]
    ) -> Generator[Passage | Alive, None, Weights]:
        """Weights after `rewind_step` dense steps, a row for each init seed."""
        return rewound_weights(
            self._packed,
            self._plan,
            self._images,
            self._rows,
            seeds=seeds,
            stage=stage,
            checkpoints=self._checkpoints,
            reports=self._log_points,
        )

    def _look_for_divergence(self, weights: Weights) -> None:
        """Mark the replicates whose weights pre-training has lost."""
        sound = np.array(weights.finite())
        self._diverged.note(sound, step=max(1, self._plan.rewind_step))
        if self._diverged.must_stop:
            raise TrialFailure(
                f"pre-training diverged: all weights are infinite or NaN after "
                f"{self._plan.rewind_step} steps (lower pretrain.lr or weight_scale)"
            )

    def _gating(self) -> Gating:
        if self._network.sites:
            units = Units(self._network.sites, self._network.gated, self._network.rest)
            return UnitGating(self._packed, units)
        return WeightGating(self._packed, multiplies=self._multiplies)

    @property
    def _multiplies(self) -> bool:
        """Whether the family samples gates alone, which this code multiplies with parameters.

        Where weights are frozen, a family gates them itself, in one pass over memory.
        """
        is_plain = not self._network.sites and not self._plan.joint
        return not (is_plain or self._plan.gate.trains_weights)

    def _learn(
        self, gating: Gating, weights: Weights
    ) -> Generator[CurvePoint | Alive | Tickets, None, State]:
        """Learn the gates: `kept` bool (R, U), `undecided` (R,), `steps` and `seconds`."""
        plan, replicates = self._plan, self._replicates
        if (done := self._checkpoints.result(STAGE)) is not None:
            self._diverged.at[:] = done["diverged"].numpy()
            self._accuracies |= {k: v.numpy() for k, v in part("accuracies", done).items()}
            yield from curve_of(part("curve", done))
            return done | {"kept": done["kept"].to(self._device)}
        gated = weights.gated
        if self._multiplies:
            gated = torch.ones((len(replicates), gating.layout.size), device=self._device)
        learning = GateLearning(
            packed=self._packed,
            gating=gating,
            gates=plan.gate.gates(gated, gating.layout, replicates, steps=plan.train.steps),
            start=weights,
            joint=plan.joint,
            how=plan.train,
            weight_how=plan.weight_how,
            replicates=replicates,
            diverged=self._diverged,
        )
        orders = self._orders([r.data_seed for r in replicates], plan.train.batch_size)
        training = learning.run(
            self._images,
            orders,
            self._evaluator,
            augmentation=augmentation_of(plan.augment, [r.data_seed for r in replicates]),
            log_points=self._log_points,
            snapshots=self._snapshots,
            rungs=self._rungs,
            checkpoints=self._checkpoints,
        )
        for report in training:
            yield report
            # One that goes on from a checkpoint tells its curve again, with the gates of its end.
            if (
                isinstance(report, CurvePoint)
                and report.step in self._rungs
                and report.step == learning.done
            ):
                if self._others:  # which may have the device until they have come as far
                    self._checkpoints.keep(STAGE, learning.state())
                yield self._so_far(learning, weights)
        kept = learning.gates.harden()
        if plan.joint:
            self._score("joint", learning.trained().where(gating.keep(kept)))
        scores = {name: torch.from_numpy(v) for name, v in self._accuracies.items()}
        result = {
            "kept": kept,
            "undecided": learning.gates.undecided(),
            "steps": torch.tensor(learning.done),
            "seconds": torch.tensor(learning.seconds, dtype=torch.float64),
            "diverged": torch.from_numpy(self._diverged.at.copy()),
            **under("accuracies", scores),
            **under("curve", curve_state(learning.curve)),
            **under("snapshots", snapshots_state(learning.trace.snapshots)),
        }
        self._checkpoints.finish(STAGE, result)
        return result

    def _so_far(self, learning: GateLearning, weights: Weights) -> Tickets:
        """What the tickets would be if this were the last step; no test figures."""
        kept_gates = learning.gates.harden()
        kept = learning.gating.keep(kept_gates)
        validation = self._evaluator.on_validation(weights.where(kept))
        accuracies = {}
        if self._plan.joint:
            joint = self._evaluator.on_validation(learning.trained().where(kept))
            accuracies["joint_val"] = self._diverged.masked(joint.accuracy)
        return Tickets(
            masks=_masks(learning.gating.layout, kept_gates),
            val_accuracy=self._diverged.masked(validation.accuracy),
            strong_accuracy=np.full(len(self._replicates), np.nan),
            loss=self._diverged.masked(validation.loss),
            density=self._diverged.masked(_figures(kept.gated.double().mean(dim=1))),
            undecided=self._diverged.masked(_figures(learning.gates.undecided())),
            accuracies=accuracies,
            diverged=self._diverged.at.copy(),
            steps=learning.done,
            train_seconds=learning.seconds,
            curve=tuple(learning.curve),
            snapshots=(),
        )

    def _wanted(self, snapshots: Sequence[Snapshot]) -> tuple[Snapshot, ...]:
        """Those before the last step, whose mask is the ticket's; none if none were asked for."""
        last = self._plan.train.steps
        return tuple(each for each in snapshots if self._snapshots and each.step < last)

    def _dense(self, weights: Weights) -> Iterator[Passage | Alive]:
        """Train the dense network of each init seed and data order, and score it."""
        plan = [(replicate.init_seed, replicate.data_seed) for replicate in self._replicates]
        first = [plan.index(pair) for pair in dict.fromkeys(plan)]
        own = [first.index(plan.index(pair)) for pair in plan]
        yield from self._retrained("dense", weights.rows(first), None, of=first, own=own)

    def _retrained(
        self,
        name: str,
        weights: Weights,
        kept: Weights | None,
        *,
        of: Sequence[int] | None = None,
        own: Sequence[int] | None = None,
    ) -> Iterator[Passage | Alive]:
        """Train a copy of these weights, and score it under `name`.

        Parameters
        ----------
        of: the replicate whose data order each row sees; their own if None.
        own: the row whose figures each replicate gets; its own if None.
        """
        assert self._plan.retrain is not None
        if (done := self._checkpoints.result(name)) is None:
            rows = self._replicates if of is None else [self._replicates[at] for at in of]
            streams = [derive_seed(row.data_seed, "retrain-batches") for row in rows]
            trained = weights.copy()
            yield from self._train(name, trained, self._plan.retrain, streams, kept)
            test, validation = self._figures_of(trained)
            done = {"test": torch.from_numpy(test), "val": torch.from_numpy(validation)}
            self._checkpoints.finish(name, done)
        at = slice(None) if own is None else list(own)
        self._accuracies[name] = done["test"].numpy()[at]
        self._accuracies[f"{name}_val"] = done["val"].numpy()[at]

    def _train(
        self,
        stage: str,
        weights: Weights,
        how: Optimisation,
        streams: Sequence[int],
        kept: Weights | None,
    ) -> Iterator[Passage | Alive]:
        return train_weights(
            self._packed,
            weights,
            self._images,
            self._orders(streams, how.batch_size),
            how,
            kept=kept,
            augmentation=augmentation_of(self._plan.augment, streams),
            stage=stage,
            checkpoints=self._checkpoints,
            reports=self._log_points,
        )

    def _orders(self, seeds: Sequence[int], batch_size: int) -> list[BatchOrder]:
        return [BatchOrder(self._rows, batch_size=batch_size, seed=seed) for seed in seeds]

    def _score(self, name: str, weights: Weights) -> None:
        self._accuracies[name], self._accuracies[f"{name}_val"] = self._figures_of(weights)

    def _figures_of(self, weights: Weights) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Accuracies on the test and the validation split; NaN where the outputs are not finite."""
        validation, test = self._evaluator.on_both(weights)
        sound = np.isfinite(validation.loss)  # else what is predicted means nothing
        return np.where(sound, test.accuracy, np.nan), np.where(sound, validation.accuracy, np.nan)


def _masks(layout: Layout, kept: Tensor) -> tuple[LayerMask, ...]:
    layers = zip(layout.names, layout.shapes, layout.split(kept), strict=True)
    return tuple(LayerMask(name, shape, layer.cpu().numpy()) for name, shape, layer in layers)


def _figures(values: Tensor) -> NDArray[np.float64]:
    figures: NDArray[np.float64] = values.double().cpu().numpy()
    return figures
