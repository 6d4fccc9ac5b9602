"""The gated step: noise, gate, product and the gradient of loss and penalty, in one pass each way.

Three ways of computing the same: `compiled` for the CPU (Numba), `fused` for CUDA (Triton), and
`plain`, by torch's operations, which is the reference and stands in where the others cannot run.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ticketsweep.train.gates.kernels.plain import PlainKernels
from ticketsweep.train.pack import Layers, Layout


class Kernels(Protocol):
    """Gates of R replicates whose weights lie in flat tensors, float32 (R, G), on one device.

    A clipped gate is known by the gated weight, which is then 0 or the weight itself, so that
    nothing need be kept from the forward pass for the backward one. (Where a gate within rounding
    of 1 gives the weight itself, it counts as clipped.)
    """

    def gaussian(
        self, mu: Tensor, weights: Tensor, gated: Tensor, *, step: int, sigma: float
    ) -> None:
        """Put `clip(mu + sigma * noise, 0, 1) * weights` into `gated`; noise is the step's own."""

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
        """Put the gradient by mu in `gated`: of the loss, plus `scale * exp(-mu^2 / 2 sigma^2)`.

        Parameters
        ----------
        gradients: of the loss by the gated weights (R, *shape), layer by layer.
        gated: what `gaussian` put there last, which is what has to be known of the gates.
        sigma: of the penalty.
        scale: (R,).
        """

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
        """Put `sigmoid((logit(u) + log_alpha) / beta)` into `s`, and the gated weights in `gated`.

        Parameters
        ----------
        limits: gamma and zeta, between which s is stretched before it is clipped to [0, 1].
        """

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
        """Put the gradient by log_alpha in `gated`: of the loss, plus `scale * p * (1 - p)`.

        Parameters
        ----------
        gradients, gated: see `gaussian_gradient`.
        slope: of the stretched s: its derivative by log_alpha is `slope * s * (1 - s)`.
        shift, least: p is `sigmoid(max(log_alpha - shift, least))`.
        scale: (R,).
        """

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
        """Put `sigmoid(max(scores / temperature, least))` in `z`, and `z * weights` in `gated`."""

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
        """Put the gradient by the scores in `out`: of the loss, plus that of `scale * z`.

        Parameters
        ----------
        gradients: see `gaussian_gradient`.
        scale: (R,).
        """


@dataclass(frozen=True)
class Choice:
    """What computes the gated step on a kind of device, and, if it is `plain`, why."""

    name: str
    why: str = ""


@functools.cache
def choose(device: str) -> Choice:
    """What this process uses on a device of this type (`cpu`, `cuda`, …).

    If that is `plain`, one line of the log says why, once.
    """
    choice = _choice(device)
    if choice.why:
        logging.getLogger("ticketsweep").warning(
            "gates are not compiled on %s: %s", device, choice.why
        )
    return choice


def _choice(device: str) -> Choice:
    if device == "cpu":
        return _tried("numba", _try_numba, "a step takes two to four times as long")
    if device == "cuda":
        return _tried("triton", _try_triton, "the gates of a step take many times as long")
    return Choice("plain", f"there are no kernels for {device}")


def _tried(name: str, attempt: Callable[[], object], result: str) -> Choice:
    try:
        attempt()
    except Exception as error:  # no such module, no compiler, or an installation that is broken
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return Choice("plain", f"{name} cannot be used ({reason[0]}); {result}")
    return Choice(name)


def _try_numba() -> None:
    import numba

    if getattr(numba.config, "DISABLE_JIT", False):
        raise RuntimeError("NUMBA_DISABLE_JIT is set")


def _try_triton() -> None:
    """Launch a kernel: without a C compiler, that is where Triton fails."""
    from ticketsweep.train.gates.kernels.fused import FusedKernels

    one, device = torch.ones((1, 1), device="cuda"), torch.device("cuda")
    layout = Layout(("w",), ((1, 1),), (1,))
    FusedKernels(layout, [0], device).gaussian(one, one, one.clone(), step=0, sigma=1.0)


def kernels_for(layout: Layout, seeds: Sequence[int], device: torch.device) -> Kernels:
    """Kernels for rows of this layout, a seed of noise for each, as `choose` says."""
    match choose(device.type).name:
        case "numba":
            from ticketsweep.train.gates.kernels.compiled import CompiledKernels

            return CompiledKernels(layout, seeds)
        case "triton":
            from ticketsweep.train.gates.kernels.fused import FusedKernels

            return FusedKernels(layout, seeds, device)
    return PlainKernels(layout, seeds, device)
