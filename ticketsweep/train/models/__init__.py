"""Models by name, their initial weights, and which of their parameters are pruned."""

from __future__ import annotations

import copy
import math
import re
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ticketsweep.errors import ModelError, did_you_mean
from ticketsweep.seeds import derive_seed

Factory = Callable[[tuple[int, int, int], int], nn.Module]


def build_model(name: str, *, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Build a model; its weights are placeholders until `initial_weights` gives them a seed.

    Parameters
    ----------
    name: a key of `FACTORIES`, or `fc-H1-H2-…` with the widths of the hidden layers.
    input_shape: channels, height, width.
    classes: number of outputs.

    Raises
    ------
    ModelError: the name is unknown, or a width is 0.
    """
    if name in FACTORIES:
        return FACTORIES[name](input_shape, classes)
    if re.fullmatch(r"fc(-[0-9]+)+", name):
        hidden = tuple(int(width) for width in name.split("-")[1:])
        if 0 in hidden:
            raise ModelError(f"model: hidden widths must be >= 1, got {name!r}")
        return fully_connected(hidden, input_shape, classes)
    hint = did_you_mean(name, [*FACTORIES, "fc-H1-H2-…"])
    raise ModelError(f"model must be a known name, got {name!r} ({hint})")


def fully_connected(
    hidden: tuple[int, ...], input_shape: tuple[int, int, int], classes: int
) -> nn.Module:
    """Linear layers `fc1`, `fc2`, … without bias, ReLU between them."""
    widths = [math.prod(input_shape), *hidden, classes]
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for at in range(1, len(widths)):
        layers[f"fc{at}"] = nn.Linear(widths[at - 1], widths[at], bias=False)
        if at < len(widths) - 1:
            layers[f"relu{at}"] = nn.ReLU()
    return nn.Sequential(layers)


def _lenet_300_100(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return fully_connected((300, 100), input_shape, classes)


FACTORIES: dict[str, Factory] = {
    "lenet-300-100": _lenet_300_100,
}


def prunable(model: nn.Module) -> list[str]:
    """Names of the parameters that are gated: weights of linear and convolution layers, in order.

    Raises
    ------
    ModelError: there is none.
    """
    kinds = (nn.Linear, nn.Conv2d)
    modules = dict(model.named_modules())
    names = [
        name
        for name, _ in model.named_parameters()
        if name.endswith(".weight") and isinstance(modules[name.removesuffix(".weight")], kinds)
    ]
    if not names:
        raise ModelError(
            f"model must have a prunable parameter, got {type(model).__name__} without any "
            "(the weights of nn.Linear and nn.Conv2d are prunable)"
        )
    return names


def initial_weights(
    model: nn.Module, *, weight_init: str, weight_scale: float, seed: int
) -> dict[str, Tensor]:
    """Initial value of every parameter of `model`, which is left untouched.

    Each prunable parameter has a generator of its own, seeded by its name, so that adding a layer
    does not move the others. Other parameters get their module's own initialisation.

    Parameters
    ----------
    weight_init: a key of `WEIGHT_INITS`, or `default` (the module's own).
    weight_scale: multiplies the prunable weights.
    seed: of the init stream, in [0, 2**53).

    Raises
    ------
    ModelError: `weight_init` is unknown.
    """
    if weight_init not in {"default", *WEIGHT_INITS}:
        hint = did_you_mean(weight_init, ["default", *WEIGHT_INITS])
        raise ModelError(f"weight_init must be a known name, got {weight_init!r} ({hint})")
    weights = _own_initialisation(model, seed)
    for name in prunable(model):
        if weight_init != "default":
            generator = torch.Generator().manual_seed(derive_seed(seed, "weights", name))
            weights[name] = WEIGHT_INITS[weight_init](weights[name], generator)
        weights[name] = weights[name] * weight_scale
    return weights


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
    return weight[0].numel()  # (out, in, ...) for linear and convolution layers alike


def _own_initialisation(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """Parameters after every module's `reset_parameters`, seeded by the module's name.

    A parameter whose module has no such method keeps the value that the model was built with.
    """
    fresh = copy.deepcopy(model).cpu()
    with torch.random.fork_rng(devices=[]):  # reset_parameters knows only the global generator
        for name, module in fresh.named_modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                torch.default_generator.manual_seed(derive_seed(seed, "module", name))
                reset()
    return {name: value.detach() for name, value in fresh.named_parameters()}
