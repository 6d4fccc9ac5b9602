"""Hard concrete gates (Louizos, Welling & Kingma 2018, equations 10 to 12).

    s = sigmoid((log u - log(1 - u) + log_alpha) / beta),  u ~ U(0, 1)      sampled at every step
    z = clip(s * (zeta - gamma) + gamma, 0, 1),            gamma = -0.1, zeta = 1.1
    P(z > 0) = sigmoid(log_alpha - beta * log(-gamma / zeta))

Annealing beta makes single samples harder, not the choice: P(z > 1/2) = sigmoid(log_alpha) at any.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ticketsweep.seeds import Replicate
from ticketsweep.train.gates.gated import GatedWeights
from ticketsweep.train.gates.kernels import kernels_for
from ticketsweep.train.gates.penalty import Schedules
from ticketsweep.train.pack import Layers, Layout

GAMMA, ZETA = -0.1, 1.1
_SHIFT = math.log(-GAMMA / ZETA)
_CERTAIN = math.log(-ZETA / GAMMA)  # |log_alpha| from which the gate without noise is 0 or 1
# A gate that is open with a probability of 1e-7 is as good as shut. Below, the penalty's gradient
# and its square would end among the denormal numbers, with which Adam takes ten times as long.
_SHUT = -16.0


@dataclass(frozen=True)
class HardConcreteSettings:
    """The family's hyperparameters.

    Attributes
    ----------
    l0_strength: of the penalty, per mean gate; >= 0.
    l0_warmup: share of the steps over which the penalty rises from 0; in [0, 1].
    temperature, temperature_end: beta at the first and the last step; > 0.
    temperature_schedule: a key of `schedules.SCHEDULES`.
    init: log_alpha of every gate before the first step.
    target_density: density at the end of training that the strength is steered to, from
        `l0_strength`; in (0, 1]. None: the strength stays as given.
    """

    l0_strength: float
    l0_warmup: float
    temperature: float
    temperature_end: float
    temperature_schedule: str
    init: float
    target_density: float | None = None

    trains_weights = False

    def gates(
        self, weights: Tensor, layout: Layout, replicates: Sequence[Replicate], *, steps: int
    ) -> HardConcreteGates:
        """See `interface.Family`."""
        seeds = [replicate.gate_seed for replicate in replicates]
        return HardConcreteGates(self, weights, layout, seeds, steps=steps)


def relaxed_gate(log_alpha: Tensor, uniform: Tensor, *, temperature: float) -> Tensor:
    """z of noise `uniform` in (0, 1)."""
    s = torch.sigmoid((torch.logit(uniform) + log_alpha) / temperature)
    return torch.clamp(s * (ZETA - GAMMA) + GAMMA, 0, 1)


def expected_density(log_alpha: Tensor, *, temperature: float) -> Tensor:
    """Mean over the last axis of P(z > 0)."""
    return torch.sigmoid(log_alpha - temperature * _SHIFT).mean(dim=-1)


class HardConcreteGates:
    """The gates of a pack; see `interface.Gates`.

    As with the Gaussian gate, the penalty keeps the first temperature while the noise is annealed,
    and a replicate's noise is a function of its seed and the step.
    """

    rounds = (0,)
    trained_weights = None

    def __init__(
        self,
        settings: HardConcreteSettings,
        weights: Tensor,
        layout: Layout,
        seeds: Sequence[int],
        *,
        steps: int,
    ) -> None:
        self._schedules = Schedules(settings, weights, steps=steps)
        self._step = 0
        self._layout = layout
        self._weights = weights
        self._kernels = kernels_for(layout, seeds, weights.device)
        self._s = torch.empty_like(weights)
        self._gated = torch.empty_like(weights)
        self.parameter = torch.full_like(weights, settings.init, requires_grad=True)
        self.parameter.grad = self._gated  # where the gradient ends up

    def sample(self, step: int) -> Layers:
        """Gated weights with fresh noise; see `interface.Gates`."""
        layers: Layers = GatedWeights.apply(self.parameter, self, step)
        return layers

    def forward(self, step: int) -> Layers:
        """See `gated.Gated`."""
        self._step = step
        self._schedules.steer(step, self.harden)
        self._kernels.hard_concrete(
            self.parameter,
            self._weights,
            self._s,
            self._gated,
            step=step,
            beta=self._schedules.temperatures[step],
            limits=(GAMMA, ZETA),
        )
        return self._layout.split(self._gated)

    def backward(self, gradients: Layers) -> Tensor:
        """See `gated.Gated`."""
        # dz / d log_alpha = (zeta - gamma) s (1 - s) / beta where the gate is not clipped, else 0;
        # d penalty / d log_alpha = l0_strength / G * p (1 - p), p = P(z > 0)
        self._kernels.hard_concrete_gradient(
            gradients,
            self.parameter,
            self._weights,
            self._s,
            self._gated,
            slope=(ZETA - GAMMA) / self._schedules.temperatures[self._step],
            shift=self._schedules.temperatures[0] * _SHIFT,
            least=_SHUT,
            scale=self._schedules.strength(self._step) / self._layout.size,
        )
        return self._gated

    @torch.no_grad()
    def expected_density(self, step: int) -> Tensor:
        """Mean P(z > 0) at this step's temperature, (R,)."""
        return expected_density(self.parameter, temperature=self._schedules.temperatures[step])

    @torch.no_grad()
    def undecided(self) -> Tensor:
        """Share of gates that are strictly between 0 and 1 without noise (equation 13), (R,)."""
        return (self.parameter.abs() < _CERTAIN).double().mean(dim=1)

    @torch.no_grad()
    def harden(self) -> Tensor:
        """Gates that are more than half open without noise, `log_alpha > 0`: bool (R, G)."""
        return self.parameter > 0

    def state(self) -> dict[str, Tensor]:
        """See `interface.Gates`."""
        return {
            "parameter": self.parameter.detach().clone(),
            **self._schedules.state(),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `interface.Gates`."""
        self.parameter.detach().copy_(state["parameter"])
        self._schedules.restore(state)
