"""Adam and SGD for one flat parameter.

They call the fused kernels of `torch.optim` (`fused=True`) directly, and give the same results bit
for bit. `torch.optim` itself imports torch's compiler when its first optimizer is built, which is
three seconds in every worker process, and its bookkeeping costs as much as a small network's step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8
SGD_MOMENTUM = 0.9
_CLIP_EPSILON = 1e-6  # torch's: keeps a gradient of zeros from being divided by its norm


class Optimizer(Protocol):
    """Moves one parameter in place.

    It acts on each element alone, so a replicate's update does not depend on its pack.
    """

    def __call__(self, lr: float) -> None:
        """Make a step from `parameter.grad`."""

    def state(self) -> dict[str, Tensor]:
        """Copies of all that the next steps depend on, but for the parameter."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state()` of such an optimizer, bit for bit on the same device."""


class Adam:
    """Adam (Kingma & Ba 2015) with torch's defaults.

    Parameters
    ----------
    parameter: float32; its `grad` is a buffer that stays in place.

    Raises
    ------
    ValueError: the parameter has no `grad`.
    """

    def __init__(self, parameter: Tensor) -> None:
        self._values, self._gradients = _detached(parameter)
        self._first, self._second = torch.zeros_like(self._values), torch.zeros_like(self._values)
        self._count = torch.zeros((), device=self._values.device)

    def __call__(self, lr: float) -> None:
        """See `Optimizer`."""
        self._count.add_(1)
        torch._fused_adam_(
            [self._values],
            [self._gradients],
            [self._first],
            [self._second],
            [],
            [self._count],
            lr=lr,
            beta1=ADAM_BETAS[0],
            beta2=ADAM_BETAS[1],
            weight_decay=0.0,
            eps=ADAM_EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        """See `Optimizer`."""
        return {
            "first": self._first.clone(),
            "second": self._second.clone(),
            "count": self._count.clone(),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Optimizer`."""
        self._first.copy_(state["first"])
        self._second.copy_(state["second"])
        self._count.copy_(state["count"])


class Sgd:
    """Gradient descent with momentum 0.9.

    Parameters
    ----------
    parameter: float32; its `grad` is a buffer that stays in place.

    Raises
    ------
    ValueError: the parameter has no `grad`.
    """

    def __init__(self, parameter: Tensor) -> None:
        self._values, self._gradients = _detached(parameter)
        self._momentum = torch.zeros_like(self._values)

    def __call__(self, lr: float) -> None:
        """See `Optimizer`."""
        torch._fused_sgd_(
            [self._values],
            [self._gradients],
            [self._momentum],
            weight_decay=0.0,
            momentum=SGD_MOMENTUM,
            lr=lr,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )

    def state(self) -> dict[str, Tensor]:
        """See `Optimizer`."""
        return {"momentum": self._momentum.clone()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Optimizer`."""
        self._momentum.copy_(state["momentum"])


OPTIMIZERS: dict[str, Callable[[Tensor], Optimizer]] = {"adam": Adam, "sgd": Sgd}


def clip_rows_(gradients: Sequence[Tensor], limit: float) -> None:
    """Scale each replicate's gradient in place, so that its norm is <= limit.

    As `torch.nn.utils.clip_grad_norm_` does for a replicate alone. A replicate with NaN becomes
    NaN, and no other is touched.

    Parameters
    ----------
    gradients: tensors (R, n), whose rows r together are the gradient of replicate r.
    """
    norms = torch.zeros((len(gradients[0]), 1), device=gradients[0].device)
    for gradient in gradients:
        norms = torch.hypot(norms, torch.linalg.vector_norm(gradient, dim=1, keepdim=True))
    scale = (limit / (norms + _CLIP_EPSILON)).clamp_(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale)


def _detached(parameter: Tensor) -> tuple[Tensor, Tensor]:
    """The parameter's values and its gradient's buffer, which the steps read and write in place."""
    if parameter.grad is None:
        raise ValueError("parameter.grad must be a buffer that stays in place, got None")
    return parameter.detach(), parameter.grad
