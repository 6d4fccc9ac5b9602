"""The settings of each gate family: just the fields that it uses, with units and ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from ticketsweep.sections import AddedLater, Section

Schedule = Literal["constant", "linear", "exponential", "cosine"]
_DENSITY = "share of each layer's weights that is kept; weight_scale near 1/sqrt(density) suits it"


class GateSection(Section):
    """What every family has."""

    granularity: Literal["weight", "neuron"] = Field(
        "weight", description="neuron: a gate for each unit of a layer, not for each weight"
    )
    inputs: Annotated[
        bool,
        Field(description="gates on the inputs too, where granularity is neuron"),
        AddedLater(before=False),
    ] = False
    include: Annotated[list[str], AddedLater(before=[])] = Field(
        [], description="patterns of the parameters that are gated; none: every layer's weight"
    )
    exclude: Annotated[list[str], AddedLater(before=[])] = Field(
        [], description="patterns of parameters that are not gated, nor counted in density"
    )


class PenalisedGate(GateSection):
    """What the families have whose density follows from a penalty."""

    l0_strength: float = Field(
        1.0,
        ge=0,
        le=1e6,
        description="weight of the mean gate probability in the loss; typical 0.1 to 10",
    )
    l0_warmup: Annotated[
        float,
        Field(ge=0, le=1, description="share of the steps over which the penalty rises from 0"),
        AddedLater(before=0.0),
    ] = 0.0
    target_density: Annotated[
        float | None,
        Field(gt=0, le=1, description="share of gates kept that the penalty is steered to"),
        AddedLater(before=None),
    ] = None


class GaussianGate(PenalisedGate):
    """The Gaussian gate of CRBG: z = clip(mu + eps, 0, 1), eps ~ N(0, temperature^2)."""

    family: Literal["gaussian"] = "gaussian"
    temperature: float = Field(
        1.0,
        gt=0,
        le=100,
        description="sigma of the gate's noise at the first step; typical 0.1 to 1",
    )
    temperature_end: float = Field(
        0.05, gt=0, le=100, description="sigma at the last step; typical 0.05 to 0.2"
    )
    temperature_schedule: Schedule = "exponential"
    init: float = Field(0.5, ge=-10, le=10, description="mu of every gate at the first step")


class HardConcreteGate(PenalisedGate):
    """The hard concrete gate of Louizos et al. (2018)."""

    family: Literal["hard_concrete"] = "hard_concrete"
    temperature: float = Field(
        2 / 3, gt=0, le=100, description="beta at the first step; typical 2/3"
    )
    temperature_end: float = Field(2 / 3, gt=0, le=100, description="beta at the last step")
    temperature_schedule: Schedule = "constant"
    init: float = Field(0.0, ge=-10, le=10, description="log_alpha of every gate at the first step")


class SigmoidGate(PenalisedGate):
    """The gate of continuous sparsification (Savarese et al. 2020): sigmoid(s / temperature)."""

    family: Literal["sigmoid"] = "sigmoid"
    temperature: float = Field(
        1.0, gt=0, le=100, description="1 / beta at the first step; typical 1"
    )
    temperature_end: float = Field(
        0.005, ge=1e-6, le=100, description="1 / beta at the last step; typical 0.005"
    )
    temperature_schedule: Schedule = "exponential"
    init: float = Field(0.0, ge=-10, le=10, description="s of every gate at the first step")


class EdgePopupGate(GateSection):
    """Edge-popup (Ramanujan et al. 2020): the weights with the highest scores."""

    family: Literal["edge_popup"] = "edge_popup"
    density: float = Field(0.1, gt=0, le=1, description=_DENSITY)
    ranked_by: Literal["absolute", "signed"] = "absolute"


class MagnitudeGate(GateSection):
    """Iterative magnitude pruning with rewinding; `pretrain` says how its weights are trained."""

    family: Literal["magnitude"] = "magnitude"
    granularity: Literal["weight"] = "weight"
    rounds: int = Field(
        10, ge=1, le=1000, description="of training and pruning; they share train.steps"
    )
    share: float = Field(
        0.2, gt=0, lt=1, description="of the weights that are left, pruned in each round"
    )
    scope: Literal["global", "layer"] = "global"


class RandomGate(GateSection):
    """A random mask: the floor for every comparison."""

    family: Literal["random"] = "random"
    density: float = Field(0.1, gt=0, le=1, description=_DENSITY)


FAMILIES: dict[str, type[GateSection]] = {
    "gaussian": GaussianGate,
    "hard_concrete": HardConcreteGate,
    "sigmoid": SigmoidGate,
    "edge_popup": EdgePopupGate,
    "magnitude": MagnitudeGate,
    "random": RandomGate,
}


def _family_of(raw: Any) -> str | None:
    """The tag of a gate's settings; the Gaussian's where no family is named."""
    if isinstance(raw, GateSection):
        return next(name for name, section in FAMILIES.items() if type(raw) is section)
    return str(raw.get("family", "gaussian")) if isinstance(raw, Mapping) else None


Gate = Annotated[
    Annotated[GaussianGate, Tag("gaussian")]
    | Annotated[HardConcreteGate, Tag("hard_concrete")]
    | Annotated[SigmoidGate, Tag("sigmoid")]
    | Annotated[EdgePopupGate, Tag("edge_popup")]
    | Annotated[MagnitudeGate, Tag("magnitude")]
    | Annotated[RandomGate, Tag("random")],
    Discriminator(_family_of),
]
