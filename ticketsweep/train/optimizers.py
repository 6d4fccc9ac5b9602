"""Adam and SGD for one flat parameter.

They call the fused kernels of `torch.optim` (`fused=True`) directly, and give the same results bit
for bit. `torch.optim` itself imports torch's compiler when its first optimizer is built, which is
three seconds in every worker process, and its bookkeeping costs as much as a small network's step.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

ADAM_BETAS = (0.9, 0.999)
ADAM_EPSILON = 1e-8
SGD_MOMENTUM = 0.9

Step = Callable[[float], None]


def adam(parameter: Tensor) -> Step:
    """Adam (Kingma & Ba 2015) with torch's defaults; each call makes a step from `parameter.grad`.

    It acts on each element alone, so a replicate's update does not depend on its pack.
    """
    values, gradients = _detached(parameter)
    first, second = torch.zeros_like(values), torch.zeros_like(values)
    count = torch.zeros((), device=values.device)

    def step(lr: float) -> None:
        count.add_(1)
        torch._fused_adam_(
            [values],
            [gradients],
            [first],
            [second],
            [],
            [count],
            lr=lr,
            beta1=ADAM_BETAS[0],
            beta2=ADAM_BETAS[1],
            weight_decay=0.0,
            eps=ADAM_EPSILON,
            amsgrad=False,
            maximize=False,
        )

    return step


def sgd(parameter: Tensor) -> Step:
    """Gradient descent with momentum 0.9; each call makes a step from `parameter.grad`."""
    values, gradients = _detached(parameter)
    momentum = torch.zeros_like(values)

    def step(lr: float) -> None:
        torch._fused_sgd_(
            [values],
            [gradients],
            [momentum],
            weight_decay=0.0,
            momentum=SGD_MOMENTUM,
            lr=lr,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )

    return step


OPTIMIZERS: dict[str, Callable[[Tensor], Step]] = {"adam": adam, "sgd": sgd}


def _detached(parameter: Tensor) -> tuple[Tensor, Tensor]:
    """The parameter's values and its gradient's buffer, which the steps read and write in place."""
    if parameter.grad is None:
        raise ValueError("parameter.grad must be a buffer that stays in place, got None")
    return parameter.detach(), parameter.grad
