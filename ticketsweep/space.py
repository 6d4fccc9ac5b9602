"""Search spaces: a trial's settings with any leaf replaced by a distribution, and a `sweep:` block.

Everything wrong with a file is reported at once, before anything is started. A space samples itself
through the small `Suggest` protocol ("define by run"), so this module knows no search library.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, field_validator

from ticketsweep.config import (
    EXECUTION_FIELDS,
    Replicates,
    TrialConfig,
    parse_config,
    validate,
)
from ticketsweep.distributions import (
    USE_UNIFORM,
    Broken,
    Choice,
    Distribution,
    Integer,
    Label,
    Node,
    Suggest,
    Uniform,
    as_plain,
    corners,
    grid,
    is_distribution,
    parse_tree,
    sample,
    walk,
)
from ticketsweep.errors import MISSING, ConfigError, Fault, SweepError, did_you_mean
from ticketsweep.families import FAMILIES
from ticketsweep.names import OBJECTIVES, TEST_FIGURES
from ticketsweep.sections import Section, is_as_before
from ticketsweep.settings import apply_settings, read_yaml, take_faults

_LOADED = ("dataset", "data_root", "image_size")  # their data is loaded before the search begins
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


class Resources(Section):
    """What one trial is given. Fractions share a processor or a GPU among trials."""

    cpus: float = Field(1, gt=0, le=10_000, description="processors per trial; also its threads")
    gpus: float = Field(0, ge=0, le=1, description="share of one GPU; packs are not spread")


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


@dataclass(frozen=True)
class SweepSpec:
    """A checked search space.

    Attributes
    ----------
    settings: the `sweep:` block.
    tree: a trial's settings, dotted down as nested dicts, leaves being values or distributions.
    source: where it was read from, for messages.
    """

    settings: SweepSettings
    tree: Mapping[str, Node]
    source: str

    def sample(self, suggest: Suggest) -> TrialConfig:
        """One configuration, every distribution asked of `suggest` in the file's order."""
        raw = {key: sample(node, key, suggest) for key, node in self.tree.items()}
        return parse_config(raw, source=self.source)

    def distributions(self) -> dict[str, Distribution]:
        """Every distribution by its dotted key, those inside a choice's mappings included."""
        return dict(walk(self.tree, ""))

    def grid(self) -> Iterator[dict[str, Label]]:
        """Every point of a space of choices and whole numbers, as name -> label."""
        for point in grid(self.tree, ""):
            yield dict(point)

    def values_of(self, key: str) -> list[Any]:
        """Every value that the top-level setting `key` can take."""
        node = self.tree.get(key, TrialConfig.model_fields[key].default)
        return list(node.options) if isinstance(node, Choice) else [node]

    def as_plain(self) -> dict[str, Any]:
        """The space as plain values in one normal form, without what only decides where it runs.

        Settings that the file leaves out are written with their defaults, so that writing one down
        does not make another space, and a default that changes some day does.
        """
        full = _with_defaults(self.tree, TrialConfig())
        return {k: as_plain(v) for k, v in full.items() if k not in EXECUTION_FIELDS}

    def refuse_if_different(self, stored_space: str, stored_objectives: str) -> None:
        """Raise `SweepError` with the difference if the sweep in the store is another one.

        Parameters
        ----------
        stored_space, stored_objectives: JSON, as `as_plain` and the settings gave them.
        """
        old = {
            **_flatten(json.loads(stored_space)),
            **_flatten({"sweep": {"objectives": json.loads(stored_objectives)}}),
        }
        new = {
            **_flatten(self.as_plain()),
            **_flatten({"sweep": {"objectives": self.settings.objectives}}),
        }
        lines = [
            f"  {key}: {_show(old.get(key, MISSING))} in the storage, "
            f"{_show(new.get(key, MISSING))} in {self.source}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key, MISSING) != new.get(key, MISSING)
        ]
        if lines:
            raise SweepError(
                f"sweep {self.settings.name!r} exists with another space or other objectives; "
                "choose another --name, or run it with the space it began with:\n"
                + "\n".join(lines)
            )


def load_space(path: Path, *, settings: Sequence[str] = (), name: str | None = None,
               samples: int | None = None) -> SweepSpec:  # fmt: skip
    """A search space from a YAML file, with something in it to search.

    Parameters and errors are those of `read_space`; a space without a distribution is an error too.
    """
    spec = read_space(path, settings=settings, name=name, samples=samples)
    if not spec.distributions():
        rule = "holds no distribution, so there is nothing to search"
        remedy = (
            f"run it with `ticketsweep trial {shlex.quote(str(path))}`, "
            "or replace a value by {choice: [...]}"
        )
        raise ConfigError(spec.source, [Fault("file", MISSING, rule, remedy)])
    return spec


def read_space(path: Path, *, settings: Sequence[str] = (), name: str | None = None,
               samples: int | None = None) -> SweepSpec:  # fmt: skip
    """A space from a YAML file; one without a distribution is a single trial.

    Parameters
    ----------
    settings: `KEY=VALUE` strings laid over the file: a dotted key merges, a mapping replaces.
    name, samples: take the place of the `sweep:` block's.

    Raises
    ------
    ConfigError: with every fault of the file.
    """
    raw = apply_settings(read_yaml(path), settings)
    block = {} if raw.get("sweep") is None else raw["sweep"]
    if isinstance(block, Mapping):
        given = {"name": name, "samples": samples}
        overriding = {key: value for key, value in given.items() if value is not None}
        raw["sweep"] = {"name": path.stem, **block, **overriding}
    return parse_space(raw, source=str(path))


def load_trial(path: Path | None, *, settings: Sequence[str] = ()) -> TrialConfig:
    """One trial's configuration from a YAML file (or the defaults) with `settings` laid over it.

    A search space is accepted once every distribution in it has been given a value; its `sweep:`
    block is of no effect.

    Raises
    ------
    ConfigError: with every fault of the file.
    """
    raw = apply_settings(read_yaml(path) if path else {}, settings)
    raw.pop("sweep", None)
    source = str(path) if path else "--set"
    faults: list[Fault] = []
    tree = _parse_trial(raw, faults)
    open_choices = {key: as_plain(node) for key, node in walk(tree, "")}
    faults += [
        Fault(key, value, "must be one value for a single trial", f"--set {key}=VALUE")
        for key, value in open_choices.items()
    ]
    if faults:
        raise ConfigError(source, _each_once(faults))
    return parse_config(tree, source=source)


def parse_space(raw: Mapping[str, Any], *, source: str) -> SweepSpec:
    """A checked `SweepSpec` from plain values, or a `ConfigError` with every fault."""
    faults: list[Fault] = []
    trial = {key: value for key, value in raw.items() if key != "sweep"}
    tree = _parse_trial(trial, faults)
    block: Any = {} if raw.get("sweep") is None else raw["sweep"]
    unusable: list[Fault] = []
    block = take_faults(block, unusable)
    faults += unusable
    if isinstance(block, Mapping):
        hidden = {fault.key for fault in unusable}
        found = _faults_of_settings(block) + _faults_of_pairing(block, tree)
        faults += [fault for fault in found if fault.key not in hidden]
    elif block is not MISSING:
        faults.append(Fault("sweep", block, "must be a mapping of settings"))
    if faults:
        raise ConfigError(source, _each_once(faults))
    return SweepSpec(SweepSettings.model_validate(block), tree, source)


def _parse_trial(raw: Mapping[str, Any], faults: list[Fault]) -> dict[str, Node]:
    """A trial's settings as a tree; every fault of a value that can come out of it is noted.

    Each distribution's ends and options are tried one at a time with all others at their first
    value; no rule of a trial's settings ties the values of two fields, so nothing hides between.
    """
    sound = take_faults(raw, faults)
    malformed: list[Fault] = []
    tree = parse_tree({} if sound is MISSING else sound, "", malformed)
    faults += map(_with_sound_remedy, malformed)
    nodes = dict(walk(tree, ""))
    for point in corners(tree):
        for fault in validate(TrialConfig, point):
            if isinstance(fault.value, Broken):
                continue
            node = nodes.get(fault.key)
            if isinstance(node, Uniform) and fault.rule == "must be a whole number":
                fault = replace(fault, value=as_plain(node), remedy="use int")
            faults.append(fault)
    kinds: dict[str, object] = {}
    for key, node in walk(tree, ""):
        kind = node.labels if isinstance(node, Choice) else (type(node), getattr(node, "log", None))
        if kinds.setdefault(key, kind) != kind:
            rule = "must be the same kind of distribution in every option that has it"
            faults.append(Fault(key, as_plain(node), rule))
    return tree


def _with_sound_remedy(fault: Fault) -> Fault:
    """`fault`, without the advice to use uniform where the setting would refuse its ends too."""
    if fault.remedy != USE_UNIFORM or not isinstance(fault.value, Mapping):
        return fault
    (ends,) = fault.value.values()
    for end in ends:
        trial: Any = float(end)
        for part in reversed(fault.key.split(".")):
            trial = {part: trial}
        if any(found.key == fault.key for found in validate(TrialConfig, trial)):
            return replace(fault, remedy="")
    return fault


def _each_once(faults: Sequence[Fault]) -> list[Fault]:
    """`faults` without repetitions: a value stands in many of the trials that a space holds."""
    first: dict[tuple[str, str], Fault] = {}
    for fault in faults:
        first.setdefault((fault.key, fault.rule), fault)
    return list(first.values())


def _faults_of_settings(block: Mapping[str, Any]) -> list[Fault]:
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


def _faults_of_pairing(block: Mapping[str, Any], tree: Mapping[str, Node]) -> list[Fault]:
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
    """Faults of trials that would have no GPU, or no rung at which they may be stopped."""
    if validate(SweepSettings, block):  # reported by itself
        return []
    settings = SweepSettings.model_validate(block)
    grace = None if settings.scheduler is None else settings.scheduler.asha.grace_steps
    faults = []
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


def _with_defaults(tree: Mapping[str, Node], section: BaseModel) -> dict[str, Node]:
    """`tree` with the settings that it leaves out; what a choice holds stays as it is."""
    fields = type(section).model_fields
    full = {key: node for key, node in tree.items() if key not in fields}  # of a searched family
    for key, field in fields.items():
        usual = getattr(section, key)
        node = tree.get(key, {} if isinstance(usual, BaseModel) else usual)
        if isinstance(usual, BaseModel) and isinstance(node, Mapping):
            node = _with_defaults(node, _family_defaults(node) if key == "gate" else usual)
        if not is_as_before(field, node):  # else a space stored before the field would be another
            full[key] = node
    return full


def _family_defaults(gate: Mapping[str, Node]) -> BaseModel:
    """The defaults of a gate's family; of none where the family is searched over."""
    family = gate.get("family", TrialConfig().gate.family)
    return FAMILIES[family]() if isinstance(family, str) else Section()


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        is_block = isinstance(value, Mapping) and not is_distribution(value)
        flat.update(_flatten(value, f"{name}.") if is_block else {name: value})
    return flat


def _show(value: object) -> str:
    return "not set" if value is MISSING else json.dumps(value)
