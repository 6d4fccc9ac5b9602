"""The `sweep:` block of a search space: how it is searched, and what ties it to its trials."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from ticketsweep.config import Replicates, TrialConfig, validate
from ticketsweep.distributions import Choice, Integer, Node, Uniform, as_plain, corners, walk
from ticketsweep.errors import MISSING, Fault, did_you_mean
from ticketsweep.names import OBJECTIVES, TEST_FIGURES
from ticketsweep.sections import Section

_LOADED = ("dataset", "data_root", "image_size")  # their data is loaded before the search begins
_MOST_GPUS = 64  # of a trial
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


class Resources(Section):
    """What one trial is given. Fractions share a processor or a GPU among trials.

    Over several GPUs, which are one machine's, a trial's packs are spread.
    """

    cpus: float = Field(1, gt=0, le=10_000, description="processors per trial; also its threads")
    gpus: float = Field(
        0,
        ge=0,
        le=_MOST_GPUS,
        description="a share of one GPU, or whole ones that packs are spread over",
    )

    @field_validator("gpus")
    @classmethod
    def _is_a_share_or_whole(cls, gpus: float) -> float:
        if gpus > 1 and gpus % 1:
            raise ValueError(
                "must be at most 1 or a whole number (a trial has a share of one GPU, or whole "
                "ones: 1 or 2, say)"
            )
        return gpus


class Asha(Section):
    """Stopping trials early by asynchronous successive halving."""

    metric: Literal["loss", "val_accuracy"] = Field(
        "loss", description="of the ticket so far, on the validation split"
    )
    grace_steps: int | None = Field(
        None, ge=1, le=10**9, description="to the first rung; null: steps / reduction_factor^3"
    )
    reduction_factor: int = Field(3, ge=2, le=100, description="1 in so many goes on at a rung")


class Scheduler(Section):
    """What decides whether a trial goes on to its end."""

    asha: Asha


def _scheduler(value: object) -> object:
    named: dict[str, object] = {"none": None, "asha": {"asha": {}}}
    return named.get(value, value) if isinstance(value, str) else value


class SweepSettings(Section):
    """The `sweep:` block."""

    name: str = Field(min_length=1, description="names the sweep in the mask database")
    samples: int = Field(20, ge=1, le=10**7, description="number of distinct trials")
    objectives: dict[str, Literal["max", "min"]] = Field(
        {"val_accuracy": "max", "sparsity": "max"}, min_length=1
    )
    sampler: Literal["tpe", "nsga2", "random", "grid"] = "tpe"
    start_with: list[dict[str, Any]] = Field(
        [], description="settings to try first; what they leave out is drawn"
    )
    scheduler: Annotated[Scheduler | None, BeforeValidator(_scheduler)] = Field(
        None, description="none, asha, or {asha: {metric: loss, grace_steps: N, ...}}"
    )
    seed: int = Field(0, ge=0, lt=2**53, description="root of the search's own randomness")
    concurrency: int | None = Field(
        None, ge=1, le=10**6, description="trials at once; null: what the resources allow"
    )
    resources: Resources = Resources()
    max_failures: int = Field(
        2, ge=0, le=1000, description="how often a failed trial is tried again"
    )
    storage_seconds: float = Field(
        300, ge=0, le=1e6, description="how long a storage is waited for that is full or away"
    )
    stall_seconds: float = Field(
        1800, ge=1, le=1e7, description="without progress, after which a trial's worker is killed"
    )

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(
                "must be letters, digits, '.', '_' or '-', at most 100, and not begin with '.' "
                "(it becomes the name of a folder)"
            )
        return name


def faults_of_settings(block: Mapping[str, Any]) -> list[Fault]:
    """Faults of the `sweep:` block by itself."""
    faults = [replace(fault, key=f"sweep.{fault.key}") for fault in validate(SweepSettings, block)]
    objectives = block.get("objectives")
    for metric in objectives if isinstance(objectives, Mapping) else ():
        key = f"sweep.objectives.{metric}"
        if metric in TEST_FIGURES:
            rule = "is a test figure; the search must not look at it"
            faults.append(Fault(key, MISSING, rule, f"use {TEST_FIGURES[metric]}"))
        elif metric not in OBJECTIVES:
            hint = did_you_mean(str(metric), OBJECTIVES)
            faults.append(Fault(key, MISSING, "is not a trial metric", hint))
    return faults


def faults_of_pairing(block: Mapping[str, Any], tree: Mapping[str, Node]) -> list[Fault]:
    """Faults of the `sweep:` block together with the trials that it searches."""
    faults = _faults_of_absence(block, tree) + _faults_of_sharing(block, tree)
    objectives = block.get("objectives")
    if isinstance(objectives, Mapping) and "stability" in objectives:
        counts = tree.get("replicates", {})
        if _fewest_sharing_an_init(counts) < 2:
            rule = "must share an init where stability is an objective"
            remedy = "let data or gate be 2 or more"
            faults.append(Fault("replicates", as_plain(counts), rule, remedy))
    faults += [
        Fault(key, as_plain(tree[key]), "must be one value or a choice", "use choice")
        for key in _LOADED
        if isinstance(tree.get(key), (Uniform, Integer))
    ]
    if block.get("sampler") == "grid":
        rule = "must be a choice or an int where sweep.sampler is grid"
        faults += [
            Fault(key, as_plain(node), rule)
            for key, node in walk(tree, "")
            if isinstance(node, Uniform)
        ]
    return faults


def _faults_of_sharing(block: Mapping[str, Any], tree: Mapping[str, Node]) -> list[Fault]:
    """Faults of trials with no GPU or too many, or no rung at which they may be stopped."""
    if validate(SweepSettings, block):  # reported by itself
        return []
    settings = SweepSettings.model_validate(block)
    grace = None if settings.scheduler is None else settings.scheduler.asha.grace_steps
    faults = []
    most, gpus = max(map(_replicates_of, corners(tree)), default=1), settings.resources.gpus
    if gpus > max(1, most):
        rule = f"must be <= {most}: no trial has more replicates, and each is trained on one GPU"
        faults.append(Fault("sweep.resources.gpus", int(gpus), rule))
    for trial in corners(tree):
        if trial.get("device") == "cuda" and settings.resources.gpus == 0:
            rule = "must be auto or cpu where sweep.resources.gpus is 0"
            faults.append(Fault("device", "cuda", rule, "or let sweep.resources.gpus be 1"))
        train = trial.get("train")
        steps = TrialConfig().train.steps if not isinstance(train, Mapping) else train.get("steps")
        if grace is not None and isinstance(steps, int) and grace >= steps:
            rule = f"must be < train.steps, {steps}: nothing would be stopped early"
            faults.append(Fault("sweep.scheduler.asha.grace_steps", grace, rule))
    return faults


def _replicates_of(trial: Mapping[str, object]) -> int:
    counts = trial.get("replicates", {})
    if not isinstance(counts, Mapping) or validate(Replicates, counts):  # reported by itself
        return _MOST_GPUS
    counted = Replicates.model_validate(counts)
    return counted.init * counted.data * counted.gate


def _faults_of_absence(block: Mapping[str, Any], tree: Mapping[str, Node]) -> list[Fault]:
    """Faults of settings that can come to a value with which an objective would not be there."""
    objectives = block.get("objectives")
    wanted = objectives if isinstance(objectives, Mapping) else {}
    faults = []
    for trial in corners(tree):
        if "joint_val_accuracy" in wanted and trial.get("weights", "frozen") == "frozen":
            rule = "must be joint where joint_val_accuracy is an objective"
            faults.append(Fault("weights", "frozen", rule, "or use val_accuracy"))
        retrain = trial.get("retrain", {})
        unset = MISSING if retrain else 0  # a fault that is reported by itself
        steps = retrain.get("steps", unset) if isinstance(retrain, Mapping) else MISSING
        if "retrained_val_accuracy" in wanted and steps == 0:
            rule = "must be >= 1 where retrained_val_accuracy is an objective"
            faults.append(Fault("retrain.steps", 0, rule, "or use val_accuracy"))
    return faults


def _fewest_sharing_an_init(counts: Node) -> int:
    """The smallest number of replicates with one init that a `replicates` block can come to."""
    if isinstance(counts, Choice):
        return min(_fewest_sharing_an_init(option) for option in counts.options)
    default = Replicates()
    if not isinstance(counts, Mapping):  # a fault that is reported by itself
        return default.data * default.gate
    data, gate = (
        min((n for n in corners(counts.get(key, usual)) if isinstance(n, int)), default=usual)
        for key, usual in (("data", default.data), ("gate", default.gate))
    )
    return data * gate
