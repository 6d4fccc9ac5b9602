"""The gated step by torch's own operations: the reference, and what runs where nothing else can."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ticketsweep.train.gates.kernels import noise
from ticketsweep.train.pack import Layers, Layout


class PlainKernels:
    """See `Kernels`."""

    def __init__(self, layout: Layout, seeds: Sequence[int], device: torch.device) -> None:
        self._size = layout.size
        self._seeds = torch.tensor(seeds, dtype=torch.int64, device=device)

    def gaussian(
        self, mu: Tensor, weights: Tensor, gated: Tensor, *, step: int, sigma: float
    ) -> None:
        """See `Kernels`."""
        normals = noise.normals(self._seeds, step=step, size=self._size)
        torch.add(mu.detach(), normals, alpha=sigma, out=gated).clamp_(0, 1).mul_(weights)

    def gaussian_gradient(
        self,
        gradients: Layers,
        mu: Tensor,
        weights: Tensor,
        gated: Tensor,
        *,
        sigma: float,
        scale: Tensor,
    ) -> None:
        """See `Kernels`."""
        density = torch.square(mu.detach()).mul_(-0.5 / sigma**2).exp_()
        _through(gradients, weights, gated).addcmul_(density, scale[:, None])

    def hard_concrete(
        self,
        log_alpha: Tensor,
        weights: Tensor,
        s: Tensor,
        gated: Tensor,
        *,
        step: int,
        beta: float,
        limits: tuple[float, float],
    ) -> None:
        """See `Kernels`."""
        gamma, zeta = limits
        uniforms = noise.uniforms(self._seeds, step=step, size=self._size)
        torch.logit(uniforms, out=s).add_(log_alpha.detach()).div_(beta).sigmoid_()
        torch.mul(s, zeta - gamma, out=gated).add_(gamma).clamp_(0, 1).mul_(weights)

    def hard_concrete_gradient(
        self,
        gradients: Layers,
        log_alpha: Tensor,
        weights: Tensor,
        s: Tensor,
        gated: Tensor,
        *,
        slope: float,
        shift: float,
        least: float,
        scale: Tensor,
    ) -> None:
        """See `Kernels`."""
        _through(gradients, weights, gated).mul_(s.addcmul_(s, s, value=-1)).mul_(slope)
        p = torch.sub(log_alpha.detach(), shift, out=s).clamp_(min=least).sigmoid_()
        gated.addcmul_(p.addcmul_(p, p, value=-1), scale[:, None])

    def sigmoid(
        self,
        scores: Tensor,
        weights: Tensor,
        z: Tensor,
        gated: Tensor,
        *,
        temperature: float,
        least: float,
    ) -> None:
        """See `Kernels`."""
        torch.div(scores.detach(), temperature, out=z).clamp_(min=least).sigmoid_()
        torch.mul(z, weights, out=gated)

    def sigmoid_gradient(
        self,
        gradients: Layers,
        weights: Tensor,
        z: Tensor,
        out: Tensor,
        *,
        temperature: float,
        scale: Tensor,
    ) -> None:
        """See `Kernels`."""
        _join(gradients, out).mul_(weights).add_(scale[:, None])
        out.mul_(torch.addcmul(z, z, z, value=-1)).div_(temperature)


def _through(gradients: Layers, weights: Tensor, gated: Tensor) -> Tensor:
    """In `gated`: the gradient by relaxed gates that are not clipped, 0 for those that are."""
    is_clipped = (gated == 0) | (gated == weights)
    return _join(gradients, gated).mul_(weights).masked_fill_(is_clipped, 0)


def _join(gradients: Layers, out: Tensor) -> Tensor:
    return torch.cat([gradient.flatten(1) for gradient in gradients], dim=1, out=out)
