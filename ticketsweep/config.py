"""What determines a trial: frozen models with units and ranges, and the fingerprint made of them.

Nothing below this module reads a configuration: the training, store and analysis code take plain
values. Nothing here imports torch, so a file of settings is checked in milliseconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from ticketsweep.distributions import DISTRIBUTIONS
from ticketsweep.errors import MISSING, ConfigError, Fault, did_you_mean
from ticketsweep.families import FAMILIES, Gate, GaussianGate
from ticketsweep.names import DATASETS, FOLDERS, known_controls, known_dataset, known_model
from ticketsweep.sections import AddedLater, Section, without_later

# Part of every fingerprint. Raise it when the same configuration would train to another result, so
# that results of the old code are not taken for results of the new.
FINGERPRINT_FORMAT = 1
# The same for a gate family; 2 since noise is a function of seed, step and place.
FAMILY_FORMATS = {"gaussian": 2, "hard_concrete": 2}

# They decide where and how fast a trial runs and what is kept of the way, not what it finds, so a
# laptop and a cluster agree on a trial's id.
EXECUTION_FIELDS = frozenset({"data_root", "device", "pack", "checkpoint_seconds", "snapshots"})

ClipNorm = Annotated[
    float | None,
    Field(gt=0, le=1e6, description="longest gradient of a replicate; null: not clipped"),
    AddedLater(before=None),
]


class Training(Section):
    """How the gates are learnt."""

    steps: int = Field(2800, ge=1, le=10**9, description="gate-learning steps")
    batch_size: int = Field(256, ge=1, le=10**6, description="images per step and replicate")
    lr: float = Field(
        0.03, gt=0, le=1e3, description="learning rate of the gates; typical 0.01 to 0.1"
    )
    optimizer: Literal["adam", "sgd"] = "adam"
    lr_schedule: Literal["constant", "cosine", "linear"] = "cosine"
    lr_warmup: Annotated[
        float,
        Field(ge=0, le=1, description="share of the steps over which the learning rate rises"),
        AddedLater(before=0.0),
    ] = 0.0
    clip_norm: ClipNorm = None
    augment: Annotated[Literal["none", "flip", "crop", "crop_flip"], AddedLater(before="none")] = (
        "none"
    )
    precision: Annotated[Literal["float32", "tf32", "bf16"], AddedLater(before="float32")] = (
        "float32"
    )


class Pretraining(Section):
    """How weights are trained, apart from gates.

    Up to `rewind_step`, along with the gates where `weights` is `joint`, and in each round of the
    magnitude family. Without any of them it is of no effect.
    """

    batch_size: int = Field(128, ge=1, le=10**6, description="images per step, to rewind_step")
    lr: float = Field(0.001, gt=0, le=1e3, description="learning rate of the weights")
    optimizer: Literal["adam", "sgd"] = "adam"
    clip_norm: ClipNorm = None


class Retraining(Section):
    """How tickets, and the dense network beside them, are trained from W_k."""

    steps: int = Field(0, ge=0, le=10**9, description="of retraining; 0: none")
    batch_size: int = Field(128, ge=1, le=10**6, description="images per step and replicate")
    lr: float = Field(0.001, gt=0, le=1e3, description="learning rate of the weights")
    optimizer: Literal["adam", "sgd"] = "adam"
    lr_schedule: Literal["constant", "cosine", "linear"] = "cosine"
    clip_norm: float | None = Field(
        None, gt=0, le=1e6, description="longest gradient of a replicate; null: not clipped"
    )

    @model_validator(mode="after")
    def _has_steps(self) -> Retraining:
        if self.model_fields_set and "steps" not in self.model_fields_set:
            raise PydanticCustomError("steps_missing", "is required where retrain is set")
        return self


class Replicates(Section):
    """How many seeds of each kind; they are crossed, so their product is the pack's size."""

    init: int = Field(2, ge=1, le=1000, description="seeds of the initial weights")
    data: int = Field(2, ge=1, le=1000, description="seeds of the data order")
    gate: int = Field(1, ge=1, le=1000, description="seeds of the gate noise")


class TrialConfig(Section):
    """One configuration: everything that determines a trial's result, and where it runs."""

    model: Annotated[str, AfterValidator(known_model)] = "lenet-300-100"
    dataset: Annotated[str, AfterValidator(known_dataset)] = "digits"
    data_root: str | None = Field(
        None, min_length=1, description="folder of torchvision's data; null: the user's cache"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    pack: Annotated[int | None, BeforeValidator(lambda v: None if v == "auto" else v)] = Field(
        None,
        ge=1,
        le=10**6,
        description="replicates trained together; auto: as many as fit, a pack a GPU or more",
    )
    checkpoint_seconds: float | None = Field(
        None,
        ge=0,
        le=1e6,
        description="time between a trial's checkpoints; null: as often as costs 3 % of its time",
    )
    snapshots: bool = Field(
        False, description="keep the masks of the logged steps too, to see where they settle"
    )
    width: Annotated[
        float,
        Field(gt=0, le=64, description="multiplies the hidden widths or channels of the model"),
        AddedLater(before=1.0),
    ] = 1.0
    activation: Annotated[
        Literal["relu", "prelu"],
        Field(description="prelu takes the place of every ReLU of the model"),
        AddedLater(before="relu"),
    ] = "relu"
    image_size: Annotated[
        int | None,
        Field(ge=1, le=4096, description="pixels a side of an imagefolder's images; null: 224"),
        AddedLater(before=None),
    ] = None
    validation: float = Field(
        0.1, gt=0, lt=1, description="share of the training split that the search looks at"
    )
    rewind_step: int = Field(
        0, ge=0, le=10**9, description="steps of dense training before the weights freeze; 0: none"
    )
    weights: Literal["frozen", "joint"] = Field(
        "frozen", description="joint: trained along with the gates, then rewound"
    )
    weight_init: Literal["uniform", "signed_constant", "kaiming_normal", "default"] = "uniform"
    weight_scale: float = Field(
        1.0,
        gt=0,
        le=1e3,
        description="multiplies the initial weights; sparse tickets want 1.5 to 2",
    )
    pretrain: Pretraining = Pretraining()
    gate: Gate = GaussianGate()
    train: Training = Training()
    retrain: Annotated[Retraining, AddedLater(before=Retraining())] = Retraining()
    controls: Annotated[
        list[Literal["shuffled_mask", "reinitialized", "random_mask"]],
        AfterValidator(known_controls),
        AddedLater(before=[]),
    ] = Field([], description="shuffled_mask, reinitialized, random_mask, or some of them")
    replicates: Replicates = Replicates()
    seed: int = Field(0, ge=0, lt=2**53, description="root of every seed of the trial")

    def science(self) -> dict[str, Any]:
        """The fields that determine the result, defaults included, as plain values.

        A field that was added later is left out while it has the value that reproduces the old
        behaviour (`sections.AddedLater`), so that it changes no id.
        """
        science = {
            key: value for key, value in without_later(self).items() if key not in EXECUTION_FIELDS
        }
        if not self.retrain.steps:
            science.pop("retrain", None)
        for patterns in {"include", "exclude"} & science["gate"].keys():
            science["gate"][patterns] = sorted(set(science["gate"][patterns]))
        return science


def trial_id(
    config: TrialConfig,
    *,
    data_digest: str,
    model_digest: str | None = None,
    version: int | None = None,
) -> str:
    """16 hexadecimal digits: the fingerprint of what determines a trial's result.

    Parameters
    ----------
    data_digest: digest of the data set's content. It takes the place of a folder's path, so moved
        data keeps its trials and changed data does not. Data sets with a name of their own are
        what they are called.
    model_digest: digest of the source of a user's own model; None for a model with a name.
    version: of the gate family's fingerprints, an earlier one of `FAMILY_FORMATS`; None: today's.
    """
    science = config.science()
    if model_digest is not None:
        science["model"] = f"{config.model}#{model_digest}"
    scheme, colon, _ = config.dataset.partition(":")
    if colon:
        science["dataset"] = f"{scheme if scheme in FOLDERS else 'factory'}:{data_digest}"
    if version is None:
        version = FAMILY_FORMATS.get(config.gate.family, FINGERPRINT_FORMAT)
    text = json.dumps([version, science], sort_keys=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def validate(model: type[BaseModel], raw: Mapping[str, Any]) -> list[Fault]:
    """Every fault of `raw` as a `model`; empty if there is none."""
    try:
        model.model_validate(dict(raw))
    except ValidationError as error:
        return _faults(model, error)
    return []


def parse_config(raw: Mapping[str, Any], *, source: str) -> TrialConfig:
    """`raw` as a `TrialConfig`.

    Raises
    ------
    ConfigError: with every fault of `raw`, under the name `source`.
    """
    try:
        return TrialConfig.model_validate(dict(raw))
    except ValidationError as error:
        raise ConfigError(source, _faults(TrialConfig, error)) from None


_BOUNDS = {"greater_than": ("gt", ">"), "greater_than_equal": ("ge", ">="),
           "less_than": ("lt", "<"), "less_than_equal": ("le", "<=")}  # fmt: skip
_TYPES = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "string_unicode": "must be text",  # half a character, as a broken escape leaves it
    "model_type": "must be a mapping of settings",
    "union_tag_not_found": "must be a mapping of settings",
    "dict_type": "must be a mapping",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "list_type": "must be a list",
}


def _faults(model: type[BaseModel], error: ValidationError) -> list[Fault]:
    return [_fault(model, details) for details in error.errors(include_url=False)]


def _fault(model: type[BaseModel], details: ErrorDetails) -> Fault:
    """One pydantic error in our words: the key as the user wrote it, the rule, the remedy."""
    path, section = _place(model, details["loc"])
    key = ".".join(path)
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "union_tag_invalid":
        return _unknown_family(value["family"])
    if kind in ("extra_forbidden", "invalid_key"):
        return _unknown_setting(section, path)
    field = section.model_fields.get(path[-1])
    remedy = (field.description or "") if field else ""
    if kind in _BOUNDS:
        name, symbol = _BOUNDS[kind]
        return Fault(key, value, f"must be {symbol} {_number(context[name])}", remedy)
    if kind == "literal_error":
        expected = str(context["expected"]).replace("'", "")
        near = (
            did_you_mean(value, expected.replace(" or ", ", ").split(", "))
            if isinstance(value, str)
            else ""
        )
        return Fault(key, value, f"must be {expected}", near if near.startswith("did") else "")
    if kind == "value_error":
        rule, _, hint = str(context["error"]).partition(" (")
        return Fault(key, value, rule, hint.removesuffix(")"))
    if kind == "steps_missing":
        return Fault(f"{key}.steps", MISSING, "is required where retrain is set", "of retraining")
    if kind == "missing":
        return Fault(key, MISSING, "is required", remedy)
    rule = _TYPES[kind]
    if model is TrialConfig and isinstance(value, Mapping) and len(value) == 1:
        word = str(next(iter(value)))
        if key == "dataset" and any(name.startswith(f"{word}:") for name in DATASETS):
            # `parquet:` and `parquet: DIR` are mappings in YAML.
            return Fault(key, value, "must be text", f"write {word}:DIR, without a space")
        return Fault(key, value, f"{rule} or a distribution", did_you_mean(word, DISTRIBUTIONS))
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        remedy = f"write {value:.0f}"
    return Fault(key, value, rule, remedy)


def _number(bound: float) -> str:
    return f"{bound:.0f}" if float(bound).is_integer() else f"{bound:g}"


def _place(
    model: type[BaseModel], location: Sequence[str | int]
) -> tuple[list[str], type[BaseModel]]:
    """Where a pydantic error lies: its key, part by part, and the section that has the setting.

    That is the innermost section on the way to it, if none has.
    """
    parts = [str(part) for part in location if part != "[key]"]
    path: list[str] = []
    while parts:
        path.append(parts.pop(0))
        field = model.model_fields.get(path[-1])
        if not parts or field is None:
            break
        if any(isinstance(mark, Discriminator) for mark in field.metadata):
            model = FAMILIES[parts.pop(0)]  # named by pydantic, but no part of the user's key
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            model = field.annotation
        else:
            break
    return path + parts, model


def _unknown_family(name: object) -> Fault:
    rule = f"must be one of {', '.join(FAMILIES)}"
    near = did_you_mean(name, FAMILIES) if isinstance(name, str) else ""
    return Fault("gate.family", name, rule, near if near.startswith("did") else "")


def _unknown_setting(section: type[BaseModel], path: Sequence[str]) -> Fault:
    key, name = ".".join(path), path[-1]
    own = [family for family, fields in FAMILIES.items() if fields is section]
    others = [family for family, fields in FAMILIES.items() if name in fields.model_fields]
    if own and others:
        rule = "is not a setting of this gate family"
        have = f"{others[0]} has it" if len(others) == 1 else f"{_and(others)} have it"
        return Fault(key, MISSING, rule, f"{own[0]}; {have}")
    known = [*section.model_fields, *(["sweep"] if section is TrialConfig else [])]
    return Fault(key, MISSING, "is not a setting", did_you_mean(name, known))


def _and(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
