"""A user's own model, `package.module:factory`: imported, built, made deterministic, tried out."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.rnn import RNNBase

from ticketsweep.errors import ModelError
from ticketsweep.train.models.sizes import Shape
from ticketsweep.train.sources import NotImportable, attribute_of, not_importable, said


def imported(name: str, input_shape: Shape, classes: int, width: float) -> nn.Module:
    """The module that a user's factory returns for `input_shape=(C, H, W), classes=K`.

    The working folder is importable, as with `python -m`. Dropout, stochastic depth and dropout of
    attention are switched off.

    Parameters
    ----------
    name: `package.module:factory`.
    width: handed to the factory as `width=` unless it is 1.

    Raises
    ------
    ModelError: the factory cannot be imported or called, raises, takes no width, or returns
        something else than a module that maps images (B, C, H, W) to finite logits (B, K),
        the same ones each time.
    """
    with torch.device(
        "cpu"
    ):  # it is tried out, also where others' models are built for shapes alone
        return _imported(name, input_shape, classes, width)


def _imported(name: str, input_shape: Shape, classes: int, width: float) -> nn.Module:
    factory = _factory(name)
    sizes: dict[str, object] = {"input_shape": input_shape, "classes": classes}
    if width != 1:
        if not _takes_width(factory):
            raise ModelError(
                f"width must be 1 with model {name}, got {width:g} (its factory takes no width; "
                "give it the parameter `width`)"
            )
        sizes["width"] = width
    try:
        model = factory(**sizes)
    except (Exception, SystemExit) as error:
        call = ", ".join(f"{key}={value}" for key, value in sizes.items())
        raise ModelError(
            f"model {name} failed when called with {call}: {said(error)} "
            "(these are the channels, height and width of images, and the number of outputs)"
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"model {name} must return a torch.nn.Module, got {type(model).__name__} "
            "(return the module itself, not its class or output)"
        )
    _switch_randomness_off(model)
    _try_out(name, model, input_shape, classes)
    return model


def _factory(name: str) -> Callable[..., object]:
    module, _, attribute = name.partition(":")
    try:
        factory = attribute_of(name)
    except NotImportable as error:
        raise not_importable(name, str(error)) from error
    if not callable(factory):
        found = "nothing" if factory is None else type(factory).__name__
        raise ModelError(
            f"model {name} must name a function, got {found} at {attribute!r} "
            f"(define `def {attribute}(input_shape, classes)` in {module})"
        )
    return factory


def _takes_width(factory: Callable[..., object]) -> bool:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # a callable of a C extension need not have a signature
        return False
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return takes_all or "width" in parameters


def _switch_randomness_off(model: nn.Module) -> None:
    from torchvision.models.swin_transformer import ShiftedWindowAttention
    from torchvision.ops import StochasticDepth

    for module in model.modules():
        if isinstance(module, (_DropoutNd, StochasticDepth)):
            module.p = 0.0
        elif isinstance(module, (nn.MultiheadAttention, RNNBase)):
            module.dropout = 0.0
        elif isinstance(module, ShiftedWindowAttention):
            module.attention_dropout = module.dropout = 0.0


def _try_out(name: str, model: nn.Module, input_shape: Shape, classes: int) -> None:
    for part, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.momentum is None:
            raise ModelError(
                f"model {name} must give {part} a momentum, got None (statistics are estimated "
                "again before each evaluation, so any number will do)"
            )
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise ModelError(
                f"model {name} must let {part} track running statistics, got "
                "track_running_stats=False (its outputs would depend on how many images are "
                "evaluated at once)"
            )
    images = torch.rand((2, *input_shape), generator=torch.Generator().manual_seed(0))
    for training in (False, True):  # and leaves the module in training mode, as built
        model.train(training)
        first, again = (_logits(name, model, images) for _ in range(2))
        for logits in (first, again):
            if not isinstance(logits, Tensor) or logits.shape != (2, classes):
                got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
                raise ModelError(
                    f"model {name} must map images {(2, *input_shape)} to logits {(2, classes)}, "
                    f"got {got} (end with nn.Linear(…, classes))"
                )
            if not logits.isfinite().all():
                raise ModelError(
                    f"model {name} must return finite logits, got nan or inf for images in [0, 1] "
                    "(look at its initial weights and normalisation)"
                )
        if not torch.allclose(first, again, rtol=1e-4, atol=1e-5):
            mode = "training" if training else "evaluation"
            raise ModelError(
                f"model {name} must be deterministic, got two outputs for one input in {mode} "
                "mode (take out randomness other than nn.Dropout, which is switched off)"
            )


@torch.no_grad()
def _logits(name: str, model: nn.Module, images: Tensor) -> Tensor:
    # on copies of the buffers, so that trying out leaves no trace in running statistics
    buffers = {key: buffer.clone() for key, buffer in model.named_buffers()}
    try:
        logits: Tensor = functional_call(model, buffers, (images,))
    except (Exception, SystemExit) as error:
        raise ModelError(
            f"model {name} failed on images {tuple(images.shape)}: {said(error)} "
            "(let the factory build it for its input_shape, in float32 on the CPU)"
        ) from error
    return logits
