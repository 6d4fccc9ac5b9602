"""A pack: R sets of parameters of one model in flat tensors, and one forward pass for all of them.

All gated weights of a replicate lie in one row of a tensor (R, G), so that noise, gates and the
optimizer each are one operation whatever the number of layers; layers are views of that tensor.
What is not gated (biases, norms, class tokens) lies in a second tensor (R, O).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from ticketsweep.train.memory import is_out_of_memory

Layers = tuple[Tensor, ...]

_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Layout:
    """Where each of some parameters lies in a row of `size` numbers."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, model: nn.Module, names: Sequence[str]) -> Layout:
        """The layout of these parameters of a model."""
        parameters = dict(model.named_parameters())
        shapes = tuple(tuple(parameters[name].shape) for name in names)
        return cls(tuple(names), shapes, tuple(parameters[name].numel() for name in names))

    @property
    def size(self) -> int:
        """Numbers in a row."""
        return sum(self.sizes)

    def split(self, flat: Tensor) -> Layers:
        """Views (R, *shape) of a tensor (R, size), layer by layer."""
        if not self.names:
            return ()
        rows = flat.shape[0]
        parts = torch.split(flat, list(self.sizes), dim=1)
        return tuple(
            part.view(rows, *shape) for part, shape in zip(parts, self.shapes, strict=True)
        )

    def flatten(self, parameters: Sequence[Mapping[str, Tensor]]) -> Tensor:
        """One row (R, size) for each mapping from names to parameters."""
        if not self.names:
            return torch.empty((len(parameters), 0))
        rows = [torch.cat([row[name].reshape(-1) for name in self.names]) for row in parameters]
        return torch.stack(rows)


@dataclass(frozen=True)
class Weights:
    """Every parameter of R replicates: `gated` (R, G) and `rest` (R, O); of bool, what is kept."""

    gated: Tensor
    rest: Tensor

    def rows(self, rows: Sequence[int]) -> Weights:
        """Copies of these replicates."""
        at = list(rows)
        return Weights(self.gated[at], self.rest[at])

    def copy(self) -> Weights:
        """The same in memory of its own."""
        return Weights(self.gated.clone(), self.rest.clone())

    def where(self, kept: Weights) -> Weights:
        """These, and zeros for what is not kept."""
        return Weights(self.gated * kept.gated, self.rest * kept.rest)

    def finite(self) -> list[bool]:
        """Whether each replicate is without infinities and NaN."""
        both = torch.isfinite(self.gated).all(dim=1) & torch.isfinite(self.rest).all(dim=1)
        rows: list[bool] = both.tolist()
        return rows


class PackedModel:
    """Applies a model with R sets of parameters.

    A model of linear layers alone is called through `torch.func.vmap`, which makes every layer one
    batched matrix product: against a loop over the replicates, a step of 8 replicates takes 0.28 to
    0.36 (fc-32, batch 128), 0.44 to 0.55 (fc-100-50, batch 128) and 7.5 to 7.3 ms (LeNet-300-100,
    batch 256) a replicate on one CPU core: never slower by 10 %, and faster where it matters. A
    pack of one is called plainly, since it cannot win back vmap's 0.4 ms a step.

    On the CPU, convolutions and attention go through the loop: vmap makes grouped convolutions of
    them, and a step takes 1.7 times as long (ResNet-20, R = 4), 1.2 (Conv-4, R = 4), 1.5 (ViT,
    R = 4), 1.1 (ResNet-18, R = 2). So do, on any device, bf16, since autocast does not reach into
    vmap, and multi-head attention, whose fused kernels vmap does not know everywhere.

    Batch norm normalises by the batch while training. Its running statistics belong to no ticket:
    they are estimated for the network that is evaluated (`estimate`), since those of another mask
    or of noisy gates would be wrong.

    Parameters
    ----------
    model: on the device of the parameters; what it holds itself is of no effect, but for constants
        among its buffers. Its modules' modes are changed.
    gated, rest: layouts which between them have every parameter.
    precision: float32, tf32 (as `set_precision` made it) or bf16 (autocast).

    Attributes
    ----------
    statistics: names of the buffers that `estimate` gives values for, in its order.
    """

    def __init__(
        self, model: nn.Module, gated: Layout, rest: Layout, *, precision: str = "float32"
    ) -> None:
        self.gated, self.rest = gated, rest
        self._model = model
        self._slots = _slots(model, gated.names + rest.names)
        self._is_bf16 = precision == "bf16"
        self._norms = tuple(
            module
            for module in model.modules()
            if isinstance(module, _BatchNorm) and module.running_mean is not None
        )
        self.statistics = tuple(
            f"{name}.{kind}"
            for name, module in model.named_modules()
            for kind in _STATISTICS
            if module in self._norms
        )
        self._statistics: tuple[Slots, ...] = tuple(
            ((module._buffers, kind),) for module in self._norms for kind in _STATISTICS
        )
        on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
        looped = (nn.MultiheadAttention, _ConvNd) if on_cpu else nn.MultiheadAttention
        self._loops = self._is_bf16 or any(isinstance(m, looped) for m in model.modules())
        self._own_images: Callable[..., Tensor] = vmap(self._logits, in_dims=(0, 0, 0))
        self._same_images: Callable[..., Tensor] = vmap(self._logits, in_dims=(0, 0, None))
        self._has_run_at_once = False
        if not on_cpu:
            _wake_autograd(next(model.parameters()).device)
        self._mode = ""
        self._set_mode("train")

    @property
    def has_batch_norm(self) -> bool:
        """Whether an evaluation needs `estimate`."""
        return bool(self._norms)

    def split(self, weights: Weights) -> Layers:
        """Every parameter (R, *shape), in the order in which calls take them."""
        return self.gated.split(weights.gated) + self.rest.split(weights.rest)

    def __call__(self, parameters: Layers, images: Tensor) -> Tensor:
        """Logits (R, B, K) in training mode of images (R, B, C, H, W), a batch each replicate."""
        self._set_mode("train")
        if not self._loops and len(images) > 1:
            logits = self._at_once(self._own_images, parameters, (), images)
            if logits is not None:
                return logits
        pairs = zip(_rows(parameters), images, strict=True)
        return _stacked([self._logits(row, (), own) for row, own in pairs])

    @torch.no_grad()
    def estimate(self, parameters: Layers, batches: Iterable[Tensor]) -> Layers:
        """Batch norm's statistics for these parameters: means over batches (B, C, H, W).

        Returns
        -------
        Running mean and variance (R, channels) of each batch norm in turn; () without one.
        """
        statistics = tuple(
            torch.zeros((len(parameters[0]), norm.num_features), device=parameters[0].device)
            for norm in self._norms
            for _ in range(2)
        )
        self._set_mode("estimate")
        for at, images in enumerate(batches if statistics else ()):
            for norm in self._norms:
                norm.momentum = 1 / (at + 1)  # then the running value is the mean of all so far
            self._on_same_images(parameters, statistics, images)
        return statistics

    def evaluate(self, parameters: Layers, statistics: Layers, images: Tensor) -> Tensor:
        """Logits (R, B, K) in evaluation mode of images (B, C, H, W) that all replicates see."""
        self._set_mode("evaluate")
        return self._on_same_images(parameters, statistics, images)

    def _on_same_images(self, parameters: Layers, statistics: Layers, images: Tensor) -> Tensor:
        replicates = len(parameters[0])
        if not self._loops and replicates > 1:
            logits = self._at_once(self._same_images, parameters, statistics, images)
            if logits is not None:
                return logits
        pairs = zip(_rows(parameters), _rows(statistics) or [()] * replicates, strict=True)
        return _stacked([self._logits(row, own, images) for row, own in pairs])

    def _at_once(
        self, packed: Callable[..., Tensor], parameters: Layers, statistics: Layers, images: Tensor
    ) -> Tensor | None:
        """What vmap gives; None for a module that it cannot run, as some of users' are."""
        try:
            logits = packed(parameters, statistics, images)
        except RuntimeError as error:
            if self._has_run_at_once or is_out_of_memory(error):
                raise
            self._loops = True  # a fault of the module's own comes up again there
            return None
        self._has_run_at_once = True
        return logits

    def _logits(self, parameters: Layers, statistics: Layers, images: Tensor) -> Tensor:
        slots = self._slots
        if statistics:
            slots, parameters = slots + self._statistics, parameters + statistics
        with _filled(slots, parameters), self._autocast(images.device):
            logits: Tensor = self._model(images)
        return logits.float() if self._is_bf16 else logits

    def _autocast(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        if not self._is_bf16:
            return contextlib.nullcontext()
        return torch.autocast(device.type, dtype=torch.bfloat16)

    def _set_mode(self, mode: str) -> None:
        if mode == self._mode:
            return
        self._mode = mode
        self._model.train(mode != "evaluate")
        for norm in self._norms:
            # While training, running statistics would cost time and mean nothing.
            norm.track_running_stats = mode != "train"


Slots = tuple[tuple[dict[str, Tensor | None], str], ...]  # where modules hold one of their tensors


def _slots(model: nn.Module, names: Iterable[str]) -> tuple[Slots, ...]:
    """For each of these parameters, where a model holds it: a tied one in several places."""
    places: dict[int, list[tuple[dict[str, Tensor | None], str]]] = {}
    for module in model.modules():
        held = cast("dict[str, Tensor | None]", module._parameters)
        for key, parameter in held.items():
            places.setdefault(id(parameter), []).append((held, key))
    return tuple(tuple(places[id(model.get_parameter(name))]) for name in names)


@contextlib.contextmanager
def _filled(slots: Sequence[Slots], tensors: Layers) -> Iterator[None]:
    """Tensors in the place of a model's own, which are back there at the end.

    `torch.func.functional_call` does the same, but looks for every name anew, which takes as long
    as a layer of a small network.
    """
    own = [(held, key, held[key]) for places in slots for held, key in places]
    try:
        for places, tensor in zip(slots, tensors, strict=True):
            for held, key in places:
                held[key] = tensor
        yield
    finally:
        for held, key, before in own:
            held[key] = before


@functools.cache
def _wake_autograd(device: torch.device) -> None:
    """Let autograd's own thread meet the device, once a process.

    It warns of a missing context where cuBLAS is the first that it calls there, as it is where the
    gradient of the loss is not left to autograd.
    """
    one = torch.ones((), device=device, requires_grad=True)
    torch.autograd.grad(one.exp(), one)


def set_precision(precision: str) -> None:
    """Let this process's float32 products on CUDA be rounded to TF32 with `tf32`, else not."""
    kind = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = kind
    torch.backends.cudnn.conv.fp32_precision = kind  # type: ignore[attr-defined]


def _rows(layers: Layers) -> list[Layers]:
    """Each replicate's, as views: what an estimate writes reaches the statistics themselves.

    Not by an index, whose gradient is a tensor of zeros for the whole pack.
    """
    if layers and len(layers[0]) == 1:
        return [tuple(layer.squeeze(0) for layer in layers)]
    return list(zip(*(layer.unbind(0) for layer in layers), strict=True))


def _stacked(logits: list[Tensor]) -> Tensor:
    return logits[0].unsqueeze(0) if len(logits) == 1 else torch.stack(logits)
