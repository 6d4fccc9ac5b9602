"""What determines a trial: frozen models with units and ranges, and the fingerprint made of them.

Nothing below this module reads a configuration: the training, store and analysis code take plain
values. Nothing here imports torch, so a file of settings is checked in milliseconds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from ticketsweep.distributions import DISTRIBUTIONS
from ticketsweep.errors import MISSING, ConfigError, Fault, did_you_mean

# Part of every fingerprint. Raise it when the same configuration would train to another result, so
# that results of the old code are not taken for results of the new.
FINGERPRINT_FORMAT = 1

# They decide where and how fast a trial runs, not what it finds, so a laptop and a cluster agree
# on a trial's id.
EXECUTION_FIELDS = frozenset({"data_root", "device"})

MODELS = {
    "lenet-300-100": "fully connected, hidden layers of 300 and 100 units (LeCun et al. 1998)",
    "fc-H1-H2-…": "fully connected with any hidden widths, for example fc-64 or fc-500-500-500",
}
DATASETS = {
    "digits": "scikit-learn's 1,797 grey 8x8 digits; inside the wheel, nothing to download",
    "mnist": "70,000 grey 28x28 digits, through torchvision",
    "fashion-mnist": "70,000 grey 28x28 pictures of clothes, through torchvision",
    "parquet:DIR": "a folder of Parquet files in Hugging Face's image layout (image, label)",
}
GATES = {
    "gaussian": "continuously relaxed Bernoulli gates, clip(mu + sigma*eps, 0, 1) (CRBG)",
}
_FULLY_CONNECTED = re.compile(r"fc(-[1-9][0-9]{0,5})+")


def _known_model(name: str) -> str:
    if name != "lenet-300-100" and not _FULLY_CONNECTED.fullmatch(name):
        raise ValueError(f"must be a model this version has ({did_you_mean(name, MODELS)})")
    return name


def _known_dataset(name: str) -> str:
    scheme, colon, folder = name.partition(":")
    if colon and scheme == "parquet" and folder:
        return name
    if name not in DATASETS:
        raise ValueError(f"must be a data set this version has ({did_you_mean(name, DATASETS)})")
    return name


class Section(BaseModel):
    """Base of every block of settings: frozen, no unknown keys, no silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _one_zero(cls, value: Any) -> Any:
        """-0.0 is 0.0, since equal configurations must have equal fingerprints."""
        return value + 0.0 if isinstance(value, float) else value


class GaussianGate(Section):
    """The Gaussian gate of CRBG: z = clip(mu + eps, 0, 1), eps ~ N(0, temperature^2)."""

    family: Literal["gaussian"] = "gaussian"
    granularity: Literal["weight"] = "weight"
    l0_strength: float = Field(
        1.0,
        ge=0,
        le=1e6,
        description="weight of the mean gate probability in the loss; typical 0.1 to 10",
    )
    temperature: float = Field(
        1.0,
        gt=0,
        le=100,
        description="sigma of the gate's noise at the first step; typical 0.1 to 1",
    )
    temperature_end: float = Field(
        0.05, gt=0, le=100, description="sigma at the last step; typical 0.05 to 0.2"
    )
    temperature_schedule: Literal["constant", "linear", "exponential", "cosine"] = "exponential"
    init: float = Field(0.5, ge=-10, le=10, description="mu of every gate at the first step")


class Training(Section):
    """How the gates are learnt."""

    steps: int = Field(2800, ge=1, le=10**9, description="gate-learning steps")
    batch_size: int = Field(256, ge=1, le=10**6, description="images per step and replicate")
    lr: float = Field(
        0.03, gt=0, le=1e3, description="learning rate of the gates; typical 0.01 to 0.1"
    )
    optimizer: Literal["adam", "sgd"] = "adam"
    lr_schedule: Literal["constant", "cosine"] = "cosine"


class Pretraining(Section):
    """How the dense network is trained up to `rewind_step`. Of no effect where that is 0."""

    batch_size: int = Field(128, ge=1, le=10**6, description="images per step")
    lr: float = Field(0.001, gt=0, le=1e3, description="learning rate of the weights")
    optimizer: Literal["adam", "sgd"] = "adam"


class Replicates(Section):
    """How many seeds of each kind; they are crossed, so their product is the pack's size."""

    init: int = Field(2, ge=1, le=1000, description="seeds of the initial weights")
    data: int = Field(2, ge=1, le=1000, description="seeds of the data order")
    gate: int = Field(1, ge=1, le=1000, description="seeds of the gate noise")


class TrialConfig(Section):
    """One configuration: everything that determines a trial's result, and where it runs."""

    model: Annotated[str, AfterValidator(_known_model)] = "lenet-300-100"
    dataset: Annotated[str, AfterValidator(_known_dataset)] = "digits"
    data_root: str | None = Field(
        None, min_length=1, description="folder of torchvision's data; null: the user's cache"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    validation: float = Field(
        0.1, gt=0, lt=1, description="share of the training split that the search looks at"
    )
    rewind_step: int = Field(
        0, ge=0, le=10**9, description="steps of dense training before the weights freeze; 0: none"
    )
    weights: Literal["frozen"] = "frozen"
    weight_init: Literal["uniform", "signed_constant", "kaiming_normal", "default"] = "uniform"
    weight_scale: float = Field(
        1.0,
        gt=0,
        le=1e3,
        description="multiplies the initial weights; sparse tickets want 1.5 to 2",
    )
    pretrain: Pretraining = Pretraining()
    gate: GaussianGate = GaussianGate()
    train: Training = Training()
    replicates: Replicates = Replicates()
    seed: int = Field(0, ge=0, lt=2**53, description="root of every seed of the trial")

    def science(self) -> dict[str, Any]:
        """The fields that determine the result, defaults included, as plain values."""
        return self.model_dump(mode="json", exclude=set(EXECUTION_FIELDS))


def trial_id(config: TrialConfig, *, data_digest: str) -> str:
    """16 hexadecimal digits: the fingerprint of what determines a trial's result.

    Parameters
    ----------
    data_digest: digest of the data set's content. It takes the place of a folder's path, so moved
        data keeps its trials and changed data does not. Data sets with a name of their own are
        what they are called.
    """
    science = config.science()
    scheme, colon, _ = config.dataset.partition(":")
    if colon:
        science["dataset"] = f"{scheme}:{data_digest}"
    text = json.dumps([FINGERPRINT_FORMAT, science], sort_keys=True, allow_nan=False)
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
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "string_unicode": "must be text",  # half a character, as a broken escape leaves it
    "model_type": "must be a mapping of settings",
    "dict_type": "must be a mapping",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}


def _faults(model: type[BaseModel], error: ValidationError) -> list[Fault]:
    return [_fault(model, details) for details in error.errors(include_url=False)]


def _fault(model: type[BaseModel], details: ErrorDetails) -> Fault:
    """One pydantic error in our words: the key as the user wrote it, the rule, the remedy."""
    path = [str(part) for part in details["loc"] if part != "[key]"]
    key = ".".join(path)
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind in ("extra_forbidden", "invalid_key"):
        known = list(_section_at(model, path).model_fields)
        top_level = ["sweep"] if model is TrialConfig and len(path) == 1 else []
        return Fault(key, MISSING, "is not a setting", did_you_mean(path[-1], known + top_level))
    field = _section_at(model, path).model_fields.get(path[-1])
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
    if kind == "missing":
        return Fault(key, MISSING, "is required", remedy)
    rule = _TYPES[kind]
    if model is TrialConfig and isinstance(value, Mapping) and len(value) == 1:
        word = str(next(iter(value)))
        return Fault(key, value, f"{rule} or a distribution", did_you_mean(word, DISTRIBUTIONS))
    if kind == "int_type" and isinstance(value, float) and value.is_integer():
        remedy = f"write {value:.0f}"
    return Fault(key, value, rule, remedy)


def _number(bound: float) -> str:
    return f"{bound:.0f}" if float(bound).is_integer() else f"{bound:g}"


def _section_at(model: type[BaseModel], path: Sequence[str]) -> type[BaseModel]:
    """The section that holds the setting at `path`, or the innermost one on the way to it."""
    for part in path[:-1]:
        field = model.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type):
            break
        if not issubclass(field.annotation, BaseModel):
            break
        model = field.annotation
    return model
