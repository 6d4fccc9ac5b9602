"""How data pass through a model whose units can be told apart: layers, and residual blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from torch import nn

from ticketsweep.errors import ModelError
from ticketsweep.train.models.resnets import CifarBlock

LAYERS = (nn.Linear, nn.Conv2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
HOMOGENEOUS = (  # f(g * x) = g * f(x) for g >= 0, each channel by itself
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d,
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d, nn.Flatten,
)  # fmt: skip
_CHANNEL_BY_CHANNEL = (
    *HOMOGENEOUS, *NORMS, nn.ReLU6, nn.Hardtanh, nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.CELU,
    nn.SELU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Hardswish, nn.Hardsigmoid,
)  # fmt: skip


@dataclass(frozen=True)
class Purpose:
    """What a model's units are wanted for, and what to do where they cannot be told apart."""

    name: str
    remedy: str

    def refusal(self, rule: str, got: str) -> ModelError:
        """The error that says which rule a model breaks."""
        return ModelError(f"{self.name} needs {rule}, got {got} ({self.remedy})")


def trunk_of(model: nn.Module, purpose: Purpose) -> list[nn.Module]:
    """Layers and residual blocks in the order in which data pass them; none: a transformer.

    Raises
    ------
    ModelError: the model is of another kind, or has a layer whose units cannot be told apart.
    """
    from torchvision.models import ResNet, SwinTransformer, VisionTransformer

    if isinstance(model, (VisionTransformer, SwinTransformer)):
        return []
    if _is_sequence(model):
        trunk = list(_flat(model))
    elif type(model) is ResNet:
        stem = ("conv1", "bn1", "relu", "maxpool")
        stages = ("layer1", "layer2", "layer3", "layer4")
        features = [model.get_submodule(name) for name in (*stem, *stages, "avgpool")]
        trunk = list(_flat([*features, nn.Flatten(), model.get_submodule("fc")]))
    else:
        kinds = "an nn.Sequential, or torchvision's ResNet, VisionTransformer or SwinTransformer"
        raise purpose.refusal(kinds, type(model).__name__)
    _check(trunk, {id(module): name for name, module in model.named_modules()}, purpose)
    return trunk


def _is_sequence(module: nn.Module) -> TypeGuard[nn.Sequential]:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _flat(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    for module in modules:
        if _is_sequence(module):
            yield from _flat(module)  # not children(), which leaves out repeated modules
        else:
            yield module


def branches(module: nn.Module) -> tuple[list[nn.Module], list[nn.Module]] | None:
    """Body and projection (empty: the identity) of a residual block; None for other modules."""
    if isinstance(module, (*LAYERS, *_CHANNEL_BY_CHANNEL)):
        return None
    from torchvision.models.resnet import BasicBlock, Bottleneck

    bodies: dict[type[nn.Module], tuple[str, ...]] = {
        CifarBlock: ("conv1", "bn1", "relu1", "conv2", "bn2"),
        BasicBlock: ("conv1", "bn1", "relu", "conv2", "bn2"),
        Bottleneck: ("conv1", "bn1", "relu", "conv2", "bn2", "relu", "conv3", "bn3"),
    }
    if type(module) not in bodies:
        return None
    body = [module.get_submodule(name) for name in bodies[type(module)]]
    projection = getattr(module, "downsample", None)
    return body, [] if projection is None else list(_flat([projection]))


def _check(trunk: Sequence[nn.Module], names: dict[int, str], purpose: Purpose) -> None:
    """Refuse what a walk would misread, up to the last layer: nothing reads what follows it."""
    modules: list[nn.Module] = []
    for part in trunk:
        body, projection = branches(part) or ([part], [])
        modules += [*body, *projection]
    last = max((at for at, part in enumerate(modules) if isinstance(part, LAYERS)), default=-1)
    seen: set[int] = set()
    is_flat = False
    for module in modules[: last + 1]:
        fault = ""
        if not isinstance(module, (*LAYERS, *_CHANNEL_BY_CHANNEL)):
            fault = "layers whose units can be told apart"
        elif isinstance(module, nn.Flatten):
            is_flat = True
            if (module.start_dim, module.end_dim) != (1, -1):
                fault = "nn.Flatten to flatten everything but the batch"
        elif isinstance(module, nn.Conv2d) and module.groups != 1:
            fault = "convolutions of one group"
        elif isinstance(module, nn.Linear) and not is_flat:
            fault = "nn.Flatten before linear layers"
        elif id(module) in seen:
            fault = "every layer to be used once"
        if fault:
            raise purpose.refusal(fault, f"{names[id(module)]} ({type(module).__name__})")
        if isinstance(module, (*LAYERS, *NORMS)):
            seen.add(id(module))
