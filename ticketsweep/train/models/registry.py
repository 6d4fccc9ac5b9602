"""Models by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from ticketsweep.errors import ModelError, did_you_mean
from ticketsweep.train.models.chains import edge_popup_conv, fully_connected, lenet_5
from ticketsweep.train.models.drawing import global_generator
from ticketsweep.train.models.imported import imported
from ticketsweep.train.models.resnets import cifar_resnet, resnet18, resnet_50
from ticketsweep.train.models.sizes import Shape
from ticketsweep.train.models.transformers import swin_t, vit_b_16, vit_tiny

Factory = Callable[[Shape, int, float], nn.Module]  # of input shape, classes and width

FACTORIES: dict[str, Factory] = {
    "lenet-300-100": partial(fully_connected, (300, 100)),
    "lenet-5": lenet_5,
    "conv-2": partial(edge_popup_conv, 2),
    "conv-4": partial(edge_popup_conv, 4),
    "conv-6": partial(edge_popup_conv, 6),
    "conv-8": partial(edge_popup_conv, 8),
    "resnet-20": partial(cifar_resnet, 20),
    "resnet-32": partial(cifar_resnet, 32),
    "resnet-56": partial(cifar_resnet, 56),
    "resnet18": resnet18,
    "resnet50": partial(resnet_50, "resnet50", 64),
    "wide_resnet50_2": partial(resnet_50, "wide_resnet50_2", 128),
    "vit_b_16": vit_b_16,
    "vit_tiny": vit_tiny,
    "swin_t": swin_t,
}
ACTIVATIONS = ("relu", "prelu")


def build_model(
    name: str,
    *,
    input_shape: Shape,
    classes: int,
    width: float = 1.0,
    activation: str = "relu",
) -> nn.Module:
    """Build a model on the CPU; torch's global generator is left as it was.

    Its weights are placeholders until `initial_parameters` gives them a seed.

    Parameters
    ----------
    name: a key of `FACTORIES`, `fc-H1-H2-…` with the widths of the hidden layers, or
        `package.module:factory`.
    input_shape: channels, height, width.
    classes: number of outputs.
    width: > 0, multiplies hidden units and channels (rounded, at least 1; a transformer's
        embedding to a multiple of its heads).
    activation: `prelu` puts an `nn.PReLU` in place of every `nn.ReLU`, so that activations add no
        sparsity of their own; `relu` leaves the model as it is.

    Raises
    ------
    ModelError: the name or the activation is unknown, the images have the wrong size, a model
        without `nn.ReLU` should get `prelu`, or a user's factory fails (see `imported`).
    """
    if activation not in ACTIVATIONS:
        hint = did_you_mean(activation, ACTIVATIONS)
        raise ModelError(f"activation must be a known name, got {activation!r} ({hint})")
    with global_generator():
        model = _factory(name)(input_shape, classes, width)
    if activation == "prelu":
        _put_prelu(name, model)
    return model


def _factory(name: str) -> Factory:
    if name in FACTORIES:
        return FACTORIES[name]
    if ":" in name:
        return partial(imported, name)
    if re.fullmatch(r"fc(-[0-9]+)+", name):
        hidden = tuple(int(units) for units in name.split("-")[1:])
        if 0 in hidden:
            raise ModelError(f"model: hidden widths must be >= 1, got {name!r}")
        return partial(fully_connected, hidden)
    hint = did_you_mean(name, [*FACTORIES, "fc-H1-H2-…"])
    raise ModelError(f"model must be a known name, got {name!r} ({hint})")


def _put_prelu(name: str, model: nn.Module) -> None:
    modules = model.named_modules(remove_duplicate=False)
    places = [place for place, module in modules if isinstance(module, nn.ReLU)]
    if not places:
        raise ModelError(
            f"activation prelu needs a model with nn.ReLU modules, got {name} without any "
            "(take activation relu, which leaves the model as it is)"
        )
    for place in places:
        owner, _, leaf = place.rpartition(".")
        setattr(model.get_submodule(owner), leaf, _PReLU())


class _PReLU(nn.PReLU):
    """`nn.PReLU`, whose slope follows the features' precision: under vmap, autocast forgets it."""

    def forward(self, features: Tensor) -> Tensor:
        return F.prelu(features, self.weight.to(features.dtype))
