"""What is to be done in a trial, and whether it fits the model and the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ticketsweep.errors import ModelError
from ticketsweep.train.data import Dataset, check_sizes, split_validation
from ticketsweep.train.gates.interface import Family
from ticketsweep.train.loop import Optimisation
from ticketsweep.train.models import prunable
from ticketsweep.train.pack import Layout
from ticketsweep.train.units import Site, unit_sites


@dataclass(frozen=True)
class Plan:
    """What is done to find the tickets of a trial.

    Attributes
    ----------
    build: makes the model; what it is initialised with is of no effect.
    validation: share of the training split held out, in (0, 1).
    weight_init, weight_scale: see `models.initial_parameters`.
    rewind_step: steps of dense training before the weights are frozen; 0 for none.
    weight_how: how weights are trained up to `rewind_step`, along with gates and, but for the batch
        size, in each round of a family that trains them. Its steps and schedule are not looked at:
        the rate is constant.
    gate: a value of `gates.FAMILIES`.
    granularity: weight | neuron.
    inputs: gates on the inputs too, where the granularity is neuron.
    include, exclude: patterns of what is gated; see `models.prunable` and `units.unit_sites`.
    joint: whether weights are trained along with the gates, and then rewound.
    train: of what the family learns: its gates, or in `magnitude` the weights. A learning rate
        schedule spans all steps, whatever their rounds.
    augment: none, or a key of `augment.TRANSFORMATIONS`; for all training.
    precision: float32 | tf32 | bf16; for all of the trial.
    retrain: how tickets are trained from W_k, and the dense network beside them; None: not.
    controls: names of `controls.CONTROLS`.
    """

    build: Callable[[], nn.Module]
    validation: float
    weight_init: str
    weight_scale: float
    rewind_step: int
    weight_how: Optimisation
    gate: Family
    granularity: str
    inputs: bool
    include: Sequence[str]
    exclude: Sequence[str]
    joint: bool
    train: Optimisation
    augment: str
    precision: str
    retrain: Optimisation | None
    controls: Sequence[str]


def check_plan(plan: Plan, dataset: Dataset) -> None:
    """Refuse a plan that does not fit its model or its data, before anything is trained.

    Of the model only the shapes are looked at: one of any size takes neither time nor memory.

    Raises
    ------
    DataError: the training split is too small for a batch beside a validation split.
    ModelError: the model does not suit the images, or nothing of it can be gated as asked.
    """
    split_rows(plan, dataset)
    with torch.device("meta"):
        network_of(plan, dataset)


def split_rows(plan: Plan, dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the training split that are trained on, and those held out; see `check_plan`."""
    rows, held_out = split_validation(dataset.train_labels, share=plan.validation)
    drawn_batches = {"train.batch_size": plan.train.batch_size}
    if plan.rewind_step:
        drawn_batches["pretrain.batch_size"] = plan.weight_how.batch_size
    if plan.retrain:
        drawn_batches["retrain.batch_size"] = plan.retrain.batch_size
    for key, batch_size in drawn_batches.items():
        check_sizes(
            trained_on=len(rows),
            held_out=len(held_out),
            classes=dataset.classes,
            batch_size=batch_size,
            key=key,
        )
    return rows, held_out


@dataclass(frozen=True)
class Network:
    """A model and what of it is gated: weights in `gated`, or, if there are `sites`, units."""

    model: nn.Module
    gated: Layout
    rest: Layout
    sites: tuple[Site, ...]


def network_of(plan: Plan, dataset: Dataset) -> Network:
    """The plan's model for these images; see `check_plan`."""
    model = plan.build()
    of_units = plan.granularity == "neuron"
    if plan.inputs and not of_units:
        raise ModelError(
            "gate.inputs must be false where gate.granularity is weight, got true "
            "(leave it out, or set gate.granularity to neuron)"
        )
    patterns = {"include": plan.include, "exclude": plan.exclude}
    names = prunable(model) if of_units else prunable(model, **patterns)
    rest = [name for name, _ in model.named_parameters() if name not in set(names)]
    sites: tuple[Site, ...] = ()
    if of_units:
        sites = unit_sites(
            model, input_shape=dataset.input_shape, gated=names, inputs=plan.inputs, **patterns
        )
    return Network(model, Layout.of(model, names), Layout.of(model, rest), sites)
