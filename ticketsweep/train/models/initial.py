"""Initial parameters of a model, a function of the seed alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ticketsweep.errors import ModelError, did_you_mean
from ticketsweep.seeds import derive_seed
from ticketsweep.train.models.chains import Chain
from ticketsweep.train.models.drawing import global_generator


def initial_parameters(
    build: Callable[[], nn.Module],
    gated: Sequence[str],
    *,
    weight_init: str,
    weight_scale: float,
    seed: int,
) -> dict[str, Tensor]:
    """Initial value of every parameter of the model that `build` builds, float32 on the CPU.

    Each gated weight of two or more dimensions has a generator of its own, seeded by its name, so
    that adding a layer does not move the others. All other parameters get the model's own values:
    layer by layer in our plain chains, and as the constructor draws them in any other model,
    since constructors initialise class tokens, positions and residual branches themselves.

    Parameters
    ----------
    build: builds the model on the CPU, drawing from torch's global generator if it draws.
    gated: names of the gated parameters.
    weight_init: a key of `WEIGHT_INITS`, or `default` (the model's own values).
    weight_scale: multiplies the gated weights of two or more dimensions.
    seed: of the init stream, in [0, 2**53).

    Raises
    ------
    ModelError: `weight_init` is unknown.
    """
    if weight_init not in {"default", *WEIGHT_INITS}:
        hint = did_you_mean(weight_init, ["default", *WEIGHT_INITS])
        raise ModelError(f"weight_init must be a known name, got {weight_init!r} ({hint})")
    values = _own_values(build, seed)
    for name in gated:
        if values[name].ndim < 2:
            continue
        if weight_init != "default":
            generator = torch.Generator().manual_seed(derive_seed(seed, "weights", name))
            values[name] = WEIGHT_INITS[weight_init](values[name], generator)
        values[name] = values[name] * weight_scale
    return values


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    """U[-a, a], a = sqrt(6 / fan_in): Kaiming's variance 2 / fan_in (He et al. 2015, eq. 10)."""
    bound = math.sqrt(6 / _fan_in(like))
    return torch.empty(like.shape).uniform_(-bound, bound, generator=generator)


def _signed_constant(like: Tensor, generator: torch.Generator) -> Tensor:
    """±sqrt(2 / fan_in), signs by fair coin (Ramanujan et al. 2020, section 3.2)."""
    signs = torch.empty(like.shape).bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
    return signs * math.sqrt(2 / _fan_in(like))


def _kaiming_normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """N(0, 2 / fan_in) (He et al. 2015)."""
    return torch.empty(like.shape).normal_(0, math.sqrt(2 / _fan_in(like)), generator=generator)


WEIGHT_INITS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "uniform": _uniform,
    "signed_constant": _signed_constant,
    "kaiming_normal": _kaiming_normal,
}


def _fan_in(weight: Tensor) -> int:
    return weight[0].numel()  # (out, in, ...) for linear, convolution and projection weights


def _own_values(build: Callable[[], nn.Module], seed: int) -> dict[str, Tensor]:
    with global_generator() as generator:
        generator.manual_seed(derive_seed(seed, "module"))
        model = build()
        if isinstance(model, Chain):
            for name, module in model.named_modules():
                reset = getattr(module, "reset_parameters", None)
                if callable(reset):
                    generator.manual_seed(derive_seed(seed, "module", name))
                    reset()
    return {name: value.detach().float() for name, value in model.named_parameters()}
