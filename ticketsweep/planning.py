"""What a trial's configuration asks for: its data, its id, and its stages in plain values."""

from __future__ import annotations

import dataclasses
import functools
import os
from pathlib import Path

from ticketsweep.config import FAMILY_FORMATS, FINGERPRINT_FORMAT, TrialConfig, trial_id
from ticketsweep.families import GateSection
from ticketsweep.train.data import Dataset, load_dataset
from ticketsweep.train.gates import FAMILIES
from ticketsweep.train.loop import Optimisation
from ticketsweep.train.models import build_model
from ticketsweep.train.plan import Plan, check_plan
from ticketsweep.train.sources import source_digest

CURVE_POINTS = 12  # logged per trial: enough for a curve, too few to cost anything

DataKey = tuple[str, int | None]
_OF_EVERY_GATE = {"family", *GateSection.model_fields}  # of no concern to a family


def data_key(config: TrialConfig) -> DataKey:
    """What of a configuration decides which images are loaded, apart from where they lie."""
    return config.dataset, config.image_size


def load_data(config: TrialConfig) -> Dataset:
    """The trial's data set, from `data_root`, `$TICKETSWEEP_DATA` or the user's cache.

    Raises
    ------
    DataError: the data is missing or not in the layout it should have.
    """
    root = config.data_root or os.environ.get("TICKETSWEEP_DATA")
    return load_dataset(
        config.dataset, data_root=Path(root) if root else None, image_size=config.image_size
    )


def identify(config: TrialConfig, dataset: Dataset, *, version: int | None = None) -> str:
    """The trial's id, as today or as of an earlier version of its gate family's fingerprints.

    Raises ModelError where the source of one's own model is not found.
    """
    digest = source_digest(config.model) if ":" in config.model else None
    return trial_id(config, data_digest=dataset.digest, model_digest=digest, version=version)


def identities(config: TrialConfig, dataset: Dataset) -> set[str]:
    """The ids that a trial of this configuration has today, and had in earlier versions.

    Raises ModelError where the source of one's own model is not found.
    """
    latest = FAMILY_FORMATS.get(config.gate.family, FINGERPRINT_FORMAT)
    return {identify(config, dataset, version=each) for each in range(1, latest + 1)}


def check_trial(config: TrialConfig, dataset: Dataset) -> None:
    """Refuse a trial that does not fit its model or data, before anything is trained.

    Its device is left to the machine that will run it.

    Raises
    ------
    UserError: with the setting, the rule and the remedy.
    """
    check_plan(plan_of(config, dataset), dataset)


def plan_of(config: TrialConfig, dataset: Dataset) -> Plan:
    """What a configuration asks for, in plain values."""
    gate, train, pretrain, retrain = config.gate, config.train, config.pretrain, config.retrain
    family = FAMILIES[gate.family](**gate.model_dump(exclude=_OF_EVERY_GATE))
    learning = Optimisation(**train.model_dump(exclude={"augment", "precision"}))
    weight_how = Optimisation(**pretrain.model_dump(), steps=train.steps, lr_schedule="constant")
    if family.trains_weights:
        learning = dataclasses.replace(weight_how, batch_size=train.batch_size)
    return Plan(
        build=functools.partial(
            build_model,
            config.model,
            input_shape=dataset.input_shape,
            classes=dataset.classes,
            width=config.width,
            activation=config.activation,
        ),
        validation=config.validation,
        weight_init=config.weight_init,
        weight_scale=config.weight_scale,
        rewind_step=config.rewind_step,
        weight_how=weight_how,
        gate=family,
        granularity=gate.granularity,
        inputs=gate.inputs,
        include=gate.include,
        exclude=gate.exclude,
        joint=config.weights == "joint",
        train=learning,
        augment=train.augment,
        precision=train.precision,
        retrain=Optimisation(**retrain.model_dump()) if retrain.steps else None,
        controls=config.controls,
    )
