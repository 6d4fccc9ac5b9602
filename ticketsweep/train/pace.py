"""How long a trial will take on this machine, from a few steps that are really trained."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from ticketsweep.errors import TrialFailure
from ticketsweep.seeds import Replicate
from ticketsweep.train.augment import augmentation_of
from ticketsweep.train.checkpoint import Checkpoints
from ticketsweep.train.data import Dataset
from ticketsweep.train.demand import Demand, measured_demand
from ticketsweep.train.images import BatchOrder, as_tensor, open_images
from ticketsweep.train.learning import (
    Diverged,
    GateLearning,
    Gating,
    UnitGating,
    WeightGating,
)
from ticketsweep.train.loop import ESTIMATE_IMAGES, Evaluator, Optimisation
from ticketsweep.train.pack import PackedModel, Weights, set_precision
from ticketsweep.train.plan import Plan, network_of, split_rows
from ticketsweep.train.units import Units
from ticketsweep.train.weights import initial_weights, train_weights

# Seconds. A step that would take longer is measured on fewer replicates or images.
_LONGEST_STEP = 0.3
_OF_STEPS = 0.2  # for the steps of one kind
_OF_EVALUATION = 0.2
_MOST_STEPS = 40
_PROBED = 4  # images
_OF_A_STEP = 3  # a step against a forward pass alone


@dataclass(frozen=True)
class Pace:
    """What the parts of a trial take, in seconds, and its memory.

    Attributes
    ----------
    setup: until the first step.
    gate_step: of gate learning, all replicates together; 0 where nothing is learnt.
    pretrain_step, retrain_step: of dense training of all initial weights, and of training all
        tickets; 0 where the plan has none.
    validation, both: one evaluation of all replicates on the validation split, and on that and
        the test split.
    demand: bytes.
    """

    setup: float
    gate_step: float
    pretrain_step: float
    retrain_step: float
    validation: float
    both: float
    demand: Demand


def trial_seconds(
    plan: Plan, pace: Pace, replicates: Sequence[Replicate], *, log_points: int
) -> float:
    """What a trial of this plan takes, by the pace of one with the same network and batches.

    Steps, rewinding step, retraining and controls are the plan's own.
    """
    pairs = len({(each.init_seed, each.data_seed) for each in replicates})
    pretrainings = 2 if "reinitialized" in plan.controls else 1
    seconds = pace.setup + pretrainings * plan.rewind_step * pace.pretrain_step
    seconds += plan.train.steps * pace.gate_step
    if pace.gate_step:
        seconds += min(log_points, plan.train.steps) * pace.validation
    evaluated = 1 + int(plan.joint) + len(plan.controls)
    if plan.retrain is not None:
        trained = 1 + len(plan.controls) + pairs / len(replicates)  # the dense networks too
        seconds += trained * plan.retrain.steps * pace.retrain_step
        evaluated += 2 + len(plan.controls)
    return seconds + evaluated * pace.both


def measured_pace(
    plan: Plan, dataset: Dataset, replicates: Sequence[Replicate], *, device: str
) -> Pace:
    """The pace of a trial, from some steps of each kind of training and an evaluation.

    Of a network whose steps take long, steps with fewer replicates or images are timed, and what
    all take is reckoned from them.

    Parameters
    ----------
    device: as torch names it.

    Raises
    ------
    DataError, ModelError: see `check_plan`.
    """
    began = time.perf_counter()
    bench = _Bench(plan, dataset, replicates, torch.device(device))
    inits = list(dict.fromkeys(each.init_seed for each in replicates))
    image = bench.image_seconds()
    weights = bench.weights([each.init_seed for each in replicates[: _rows(image, 1, replicates)]])
    setup = time.perf_counter() - began

    def of_gates(rows: int, batch: int) -> float:
        return bench.gate_step(replicates[:rows], batch)

    def of_weights(how: Optimisation, seeds: Sequence[int]) -> Callable[[int, int], float]:
        return lambda rows, batch: bench.weight_step(
            seeds[:rows], replace(how, steps=_MOST_STEPS, batch_size=batch)
        )

    gate_step = _reckoned(of_gates, len(replicates), plan.train.batch_size, image)
    pretrain_step = retrain_step = 0.0
    if plan.rewind_step:
        batch = plan.weight_how.batch_size
        pretrain_step = _reckoned(of_weights(plan.weight_how, inits), len(inits), batch, image)
    if plan.retrain is not None:
        seeds = [each.init_seed for each in replicates]
        batch = plan.retrain.batch_size
        retrain_step = _reckoned(of_weights(plan.retrain, seeds), len(seeds), batch, image)
    per_image = bench.evaluation(weights, image) * len(replicates) / len(weights.gated)
    estimated = bench.estimated
    return Pace(
        setup=setup,
        gate_step=gate_step,
        pretrain_step=pretrain_step,
        retrain_step=retrain_step,
        validation=per_image * (estimated + bench.held_out),
        both=per_image * (estimated + bench.held_out + len(dataset.test_labels)),
        demand=bench.demand(image),
    )


def _rows(image: float, batch: int, replicates: Sequence[Replicate]) -> int:
    """How many replicates a step of so many images may have, at least 1."""
    return max(1, min(len(replicates), int(_LONGEST_STEP / (_OF_A_STEP * image * batch))))


def _reckoned(step: Callable[[int, int], float], rows: int, batch: int, image: float) -> float:
    """What a step of so many replicates and images a replicate takes.

    Parameters
    ----------
    step: measures one.
    image: what a forward pass of one image takes.
    """
    affordable = int(_LONGEST_STEP / (_OF_A_STEP * image))  # images
    if rows * batch <= affordable:
        return step(rows, batch)
    if batch <= affordable:
        fewer = affordable // batch
        return step(fewer, batch) * rows / fewer
    small = max(2, min(affordable, batch) // 2)
    if 2 * small >= batch:
        return rows * step(1, batch)
    # Gates and optimizers do not care how many images there are.
    one, two = step(1, small), step(1, 2 * small)
    return rows * (one + max(two - one, 0.0) / small * (batch - small))


class _Bench:
    """A plan's network and data, on which steps are timed."""

    def __init__(
        self,
        plan: Plan,
        dataset: Dataset,
        replicates: Sequence[Replicate],
        device: torch.device,
    ) -> None:
        set_precision(plan.precision)
        rows, held_out = split_rows(plan, dataset)
        self._plan, self._dataset, self._device = plan, dataset, device
        self._first = replicates[0]
        self._network = network = network_of(plan, dataset)
        self._packed = PackedModel(
            network.model.to(device), network.gated, network.rest, precision=plan.precision
        )
        self._images, self._test = open_images(dataset, rows, device)
        self._rows = as_tensor(rows, device)
        self._held_out = as_tensor(held_out, device)

    @property
    def held_out(self) -> int:
        """Images of the validation split."""
        return len(self._held_out)

    @property
    def estimated(self) -> int:
        """Training images that batch norm's statistics are estimated from."""
        return min(len(self._rows), ESTIMATE_IMAGES) if self._packed.has_batch_norm else 0

    def weights(self, seeds: Sequence[int]) -> Weights:
        """Initial weights, a row for each seed."""
        distinct = list(dict.fromkeys(seeds))
        drawn = initial_weights(
            self._plan.build,
            self._packed.gated,
            self._packed.rest,
            weight_init=self._plan.weight_init,
            weight_scale=self._plan.weight_scale,
            seeds=distinct,
            device=self._device,
        )
        return drawn.rows([distinct.index(seed) for seed in seeds])

    @torch.no_grad()
    def image_seconds(self) -> float:
        """What a forward pass of one network takes, an image."""
        layers = self._packed.split(self.weights([self._first.init_seed]))
        images = self._images.take(self._rows[:_PROBED])[0].unsqueeze(0)
        seconds = []
        for _ in range(2):  # the first is slower
            began = time.perf_counter()
            self._packed(layers, images).sum().item()
            seconds.append(time.perf_counter() - began)
        return seconds[-1] / _PROBED

    def gate_step(self, replicates: Sequence[Replicate], batch: int) -> float:
        """Seconds of a step of gate learning; 0 for a family that learns nothing."""
        plan = self._plan
        weights = self.weights([each.init_seed for each in replicates])
        gating, multiplies = self._gating()
        gated = weights.gated
        if multiplies:
            gated = torch.ones((len(replicates), gating.layout.size), device=self._device)
        learning = GateLearning(
            packed=self._packed,
            gating=gating,
            gates=plan.gate.gates(gated, gating.layout, replicates, steps=plan.train.steps),
            start=weights,
            joint=plan.joint,
            how=replace(plan.train, batch_size=batch),
            weight_how=plan.weight_how,
            replicates=replicates,
            diverged=Diverged(torch.zeros(len(replicates), dtype=torch.int64).numpy()),
        )
        seeds = [each.data_seed for each in replicates]
        steps = learning.run(
            self._images,
            self._orders(seeds, batch),
            self._evaluator(_PROBED),
            augmentation=augmentation_of(plan.augment, seeds),
            log_points=1,
            snapshots=False,
            rungs=range(1, min(_MOST_STEPS, plan.train.steps) + 1),
            checkpoints=Checkpoints(None),
        )
        seconds, before, began = [], 0.0, time.perf_counter()
        with contextlib.closing(steps), contextlib.suppress(TrialFailure):
            for _ in steps:
                seconds.append(learning.seconds - before)
                before = learning.seconds
                if len(seconds) > 1 and time.perf_counter() - began > _OF_STEPS:
                    break
        return _typical(seconds)

    def weight_step(self, seeds: Sequence[int], how: Optimisation) -> float:
        """Seconds of a step of dense training, a network for each seed."""
        steps = train_weights(
            self._packed,
            self.weights(seeds),
            self._images,
            self._orders(range(len(seeds)), how.batch_size),
            how,
            kept=None,
            augmentation=augmentation_of(self._plan.augment, list(range(len(seeds)))),
            stage="",
            checkpoints=Checkpoints(None),
            reports=how.steps,
        )
        seconds = []
        began = before = time.perf_counter()
        with contextlib.closing(steps):
            for _ in steps:
                if self._device.type == "cuda":
                    torch.cuda.synchronize()
                now = time.perf_counter()
                seconds.append(now - before)
                before = now
                if len(seconds) > 1 and now - began > _OF_STEPS:
                    break
        return _typical(seconds)

    def evaluation(self, weights: Weights, image: float) -> float:
        """Seconds of an image in an evaluation of these networks, all of them together."""
        most = max(_PROBED, int(_OF_EVALUATION / (image * len(weights.gated))))
        evaluator = self._evaluator(most)
        seen = min(most, self.held_out) + min(most, self.estimated)
        began = time.perf_counter()
        evaluator.on_validation(weights)
        seconds = time.perf_counter() - began
        if seconds < _OF_EVALUATION:
            began = time.perf_counter()
            evaluator.on_validation(weights)
            seconds = time.perf_counter() - began
        return seconds / seen

    def demand(self, image: float) -> Demand:
        """What learning and its checkpoints take of memory; see `measured_demand`."""
        wanted = self._plan.train.batch_size
        affordable = max(2, int(_LONGEST_STEP / (_OF_A_STEP * image)))
        if wanted <= affordable:
            return self._demand(wanted)
        small, large = (self._demand(n) for n in (affordable // 2, affordable))
        slope = (large.each - small.each) / (affordable - affordable // 2)
        return Demand(round(large.each + slope * (wanted - affordable)), large.fixed)

    def _demand(self, batch: int) -> Demand:
        (order,) = self._orders([0], batch)
        return measured_demand(
            self._packed,
            self.weights([self._first.init_seed]),
            self._images.take(order.next())[0],
            gates=self._gating()[0].layout.size,
            joint=self._plan.joint,
            evaluated=self._evaluator(_PROBED).images_at_once,
            saved=self._device.type == "cpu",
        )

    def _gating(self) -> tuple[Gating, bool]:
        """The gates, and whether they are multiplied with parameters here; see `Stages`."""
        network, plan = self._network, self._plan
        if network.sites:
            units = Units(network.sites, network.gated, network.rest)
            return UnitGating(self._packed, units), not plan.gate.trains_weights
        multiplies = plan.joint and not plan.gate.trains_weights
        return WeightGating(self._packed, multiplies=multiplies), multiplies

    def _evaluator(self, images: int) -> Evaluator:
        """One that looks at no more than so many images of each split."""
        return Evaluator(
            self._packed,
            self._images,
            self._test,
            train_rows=self._rows[:images],
            validation_rows=self._held_out[:images],
            input_shape=self._dataset.input_shape,
        )

    def _orders(self, seeds: Sequence[int], batch: int) -> list[BatchOrder]:
        return [BatchOrder(self._rows, batch_size=batch, seed=seed) for seed in seeds]


def _typical(seconds: Sequence[float]) -> float:
    """The median of steps after the first, which is slower; 0 if there was none."""
    return statistics.median(seconds[1:] or seconds) if seconds else 0.0
