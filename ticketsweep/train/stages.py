"""The stages of a trial: pre-train, learn the gates, harden, evaluate."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ticketsweep.errors import TrialFailure
from ticketsweep.seeds import Replicate, derive_seed
from ticketsweep.train.data import Dataset, check_sizes, split_validation
from ticketsweep.train.gates.interface import Family
from ticketsweep.train.images import (
    BatchOrder,
    Images,
    as_tensor,
    channel_statistics,
    take_batches,
)
from ticketsweep.train.loop import evaluate, replicate_losses
from ticketsweep.train.models import initial_weights
from ticketsweep.train.optimizers import OPTIMIZERS
from ticketsweep.train.pack import Layout, PackedModel
from ticketsweep.train.schedules import learning_rates, log_steps


@dataclass(frozen=True)
class Optimisation:
    """How parameters are trained.

    Attributes
    ----------
    steps: >= 1; one step is one batch.
    batch_size: images a step and replicate, >= 1.
    lr: learning rate of the first step, > 0.
    lr_schedule: constant | cosine (towards 0).
    optimizer: adam | sgd (momentum 0.9).
    """

    steps: int
    batch_size: int
    lr: float
    lr_schedule: str
    optimizer: str


class Pretraining(Protocol):
    """What pre-training needs to know; an `Optimisation` has it. Its learning rate is constant."""

    @property
    def batch_size(self) -> int:
        """Images a step and init seed."""

    @property
    def lr(self) -> float:
        """Learning rate of every step."""

    @property
    def optimizer(self) -> str:
        """`adam` or `sgd`."""


@dataclass(frozen=True)
class CurvePoint:
    """A logged step; arrays are float64 (R,), a figure for each replicate.

    Attributes
    ----------
    step: number of steps done.
    loss: mean training cross-entropy of the sampled networks since the last point, no penalty.
    val_accuracy: of the mask as hardened now, on the validation split; a fraction.
    expected_density: expected share of open gates at this step's temperature.
    """

    step: int
    loss: NDArray[np.float64]
    val_accuracy: NDArray[np.float64]
    expected_density: NDArray[np.float64]


@dataclass(frozen=True)
class LayerMask:
    """The hardened gates of one layer: `kept` is bool (R, *shape)."""

    name: str
    shape: tuple[int, ...]
    kept: NDArray[np.bool_]


@dataclass(frozen=True)
class Tickets:
    """Hardened masks and what they are worth on W_k; arrays are float64 (R,), shares fractions.

    Attributes
    ----------
    masks: one a prunable layer, in the model's order.
    val_accuracy, loss: accuracy and mean cross-entropy on the validation split.
    strong_accuracy: on the test split, which is looked at here and nowhere else.
    density: share of prunable weights kept.
    undecided: share of gates that hardening had to round.
    steps: of training that led to them; 0 for a family that learns nothing.
    train_seconds: wall time of the steps that learn the gates, without evaluation.
    """

    masks: tuple[LayerMask, ...]
    val_accuracy: NDArray[np.float64]
    strong_accuracy: NDArray[np.float64]
    loss: NDArray[np.float64]
    density: NDArray[np.float64]
    undecided: NDArray[np.float64]
    steps: int
    train_seconds: float


def find_tickets(
    *,
    model: nn.Module,
    dataset: Dataset,
    validation: float,
    replicates: Sequence[Replicate],
    weight_init: str,
    weight_scale: float,
    rewind_step: int,
    pretrain: Pretraining,
    gate: Family,
    train: Optimisation,
    log_points: int,
    device: str,
) -> Generator[CurvePoint, None, Tickets]:
    """Learn the gates of all replicates together, and return their hardened tickets.

    A replicate's weights, batches and noise are the same bit for bit whatever else is in the pack;
    its results are the same within rounding. The same call on the same machine with the same
    number of threads gives the same masks bit for bit.

    Parameters
    ----------
    validation: share of the training split held out, in (0, 1).
    weight_init, weight_scale: see `models.initial_weights`.
    rewind_step: steps of dense training before the weights are frozen; 0 for none.
    pretrain: how those steps are trained. Their batches come from the init seed's stream, so the
        frozen weights depend on init seed and `rewind_step` alone.
    gate: a value of `gates.FAMILIES`.
    train: of what the family learns: its gates, or in `magnitude` the weights. A learning rate
        schedule spans all steps, whatever their rounds.
    log_points: about how many points of the curve are yielded; the last step always is. None are
        for a family that learns nothing.
    device: as torch names it.

    Raises
    ------
    TrialFailure: a replicate's loss or weights became infinite or NaN.
    DataError: the training split is too small for a batch beside a validation split.
    ModelError: the model has no prunable parameter, or `weight_init` is unknown.
    """
    place = torch.device(device)
    layout = Layout.of(model)
    packed = PackedModel(model, layout)
    rows, held_out = split_validation(dataset.train_labels, share=validation)
    drawn_batches = {"train.batch_size": train.batch_size}
    if rewind_step:
        drawn_batches["pretrain.batch_size"] = pretrain.batch_size
    for key, batch_size in drawn_batches.items():
        check_sizes(
            trained_on=len(rows),
            held_out=len(held_out),
            classes=dataset.classes,
            batch_size=batch_size,
            key=key,
        )
    images, test = _resident(dataset, rows, place)
    train_rows, validation_rows = as_tensor(rows, place), as_tensor(held_out, place)

    inits = list(dict.fromkeys(replicate.init_seed for replicate in replicates))
    drawn = [
        initial_weights(model, weight_init=weight_init, weight_scale=weight_scale, seed=seed)
        for seed in inits
    ]
    rewound = layout.flatten(drawn).to(place)
    if rewind_step:
        orders = [
            BatchOrder(
                train_rows,
                batch_size=pretrain.batch_size,
                seed=derive_seed(seed, "pretrain-batches"),
            )
            for seed in inits
        ]
        _pretrain(packed, layout, rewound, images, orders, pretrain, steps=rewind_step)
        _check_pretrained(rewound, inits, rewind_step)
    weights = rewound[[inits.index(replicate.init_seed) for replicate in replicates]]

    gates = gate.gates(weights, layout, replicates, steps=train.steps)
    orders = [
        BatchOrder(train_rows, batch_size=train.batch_size, seed=r.data_seed) for r in replicates
    ]
    rates = learning_rates(train.lr_schedule, lr=train.lr, steps=train.steps)

    def on_validation(kept: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return evaluate(packed, layout.split(weights * kept), images, validation_rows)

    done, train_seconds = 0, 0.0
    for logged in log_steps(train.steps, log_points) if gates.rounds else ():
        began = time.perf_counter()
        total = torch.zeros(len(replicates), device=place)
        for step in range(done, logged):
            if step in gates.rounds:
                update = OPTIMIZERS[train.optimizer](gates.parameter)
            batch, labels = take_batches(images, orders)
            losses = replicate_losses(packed(gates.sample(step), batch), labels)
            # Fills gates.parameter.grad; .backward() would add to what is there.
            torch.autograd.grad(losses.sum(), gates.parameter)
            update(rates[step])
            total += losses.detach()
        loss = (total / (logged - done)).double().cpu().numpy()
        train_seconds += time.perf_counter() - began
        _check_finite(loss, replicates, first=done + 1, last=logged)
        done = logged
        kept = gates.harden()
        val_accuracy, val_loss = on_validation(kept)
        yield CurvePoint(
            step=done,
            loss=loss,
            val_accuracy=val_accuracy,
            expected_density=_figures(gates.expected_density(done - 1)),
        )
    if not done:
        kept = gates.harden()
        val_accuracy, val_loss = on_validation(kept)
    strong_accuracy, _ = evaluate(
        packed, layout.split(weights * kept), test, torch.arange(len(test.labels), device=place)
    )
    return Tickets(
        masks=_masks(layout, kept),
        val_accuracy=val_accuracy,
        strong_accuracy=strong_accuracy,
        loss=val_loss,
        density=_figures(kept.double().mean(dim=1)),
        undecided=_figures(gates.undecided()),
        steps=done,
        train_seconds=train_seconds,
    )


def _resident(
    dataset: Dataset, rows: NDArray[np.int64], device: torch.device
) -> tuple[Images, Images]:
    """The training and the test split, both standardised by the images that are trained on."""
    mean, std = (
        as_tensor(array, device) for array in channel_statistics(dataset.train_images, rows)
    )
    splits = (
        (dataset.train_images, dataset.train_labels),
        (dataset.test_images, dataset.test_labels),
    )
    train, test = (
        Images(as_tensor(pixels, device), as_tensor(labels, device), mean, std)
        for pixels, labels in splits
    )
    return train, test


def _pretrain(
    packed: PackedModel,
    layout: Layout,
    weights: Tensor,
    images: Images,
    orders: Sequence[BatchOrder],
    how: Pretraining,
    *,
    steps: int,
) -> None:
    """Train dense weights (I, G), one row for each order of batches, in place."""
    layers = tuple(layer.requires_grad_() for layer in layout.split(weights.detach()))
    weights.grad = torch.empty_like(weights)
    gradients = layout.split(weights.grad)
    update = OPTIMIZERS[how.optimizer](weights)
    for _ in range(steps):
        batch, labels = take_batches(images, orders)
        loss = replicate_losses(packed(layers, batch), labels).sum()
        for into, gradient in zip(gradients, torch.autograd.grad(loss, layers), strict=True):
            into.copy_(gradient)
        update(how.lr)
    weights.grad = None


def _check_pretrained(weights: Tensor, inits: Sequence[int], steps: int) -> None:
    finite = torch.isfinite(weights).all(dim=1).tolist()
    if not all(finite):
        raise TrialFailure(
            f"pre-training diverged: the weights of init seed {inits[finite.index(False)]} are "
            f"infinite or NaN after {steps} steps (lower pretrain.lr or weight_scale)"
        )


def _check_finite(
    loss: NDArray[np.float64], replicates: Sequence[Replicate], *, first: int, last: int
) -> None:
    lost = np.flatnonzero(~np.isfinite(loss))
    if len(lost):
        raise TrialFailure(
            f"replicate {replicates[lost[0]].index} diverged: its loss became infinite or NaN "
            f"between steps {first} and {last} (lower weight_scale or the learning rate)"
        )


def _masks(layout: Layout, kept: Tensor) -> tuple[LayerMask, ...]:
    layers = zip(layout.names, layout.shapes, layout.split(kept), strict=True)
    return tuple(LayerMask(name, shape, layer.cpu().numpy()) for name, shape, layer in layers)


def _figures(values: Tensor) -> NDArray[np.float64]:
    figures: NDArray[np.float64] = values.double().cpu().numpy()
    return figures
