"""What gate families share: gated weights as one autograd function.

Every family computes its gated weights and their gradient itself, in buffers that are reused: a
fresh temporary for each operation costs more than the arithmetic.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from ticketsweep.train.pack import Layers


class Gated(Protocol):
    """The two halves of a differentiable step."""

    def forward(self, step: int) -> Layers:
        """Gated weights (R, *shape) of each layer."""

    def backward(self, gradients: Layers) -> Tensor:
        """From the loss's gradients by them: the gradient of loss plus penalty, (R, G)."""


class GatedWeights(torch.autograd.Function):
    """`GatedWeights.apply(gates.parameter, gates, step)`: the gated weights, layer by layer."""

    @staticmethod
    def forward(ctx: Any, _parameter: Tensor, gates: Gated, step: int) -> Layers:
        """See `Gated.forward`."""
        ctx.gates = gates
        return gates.forward(step)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """See `Gated.backward`."""
        return ctx.gates.backward(gradients), None, None
