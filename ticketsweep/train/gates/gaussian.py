"""Continuously relaxed Bernoulli gates (Tsayag & Lindenbaum, arXiv 2603.08914).

    z = clip(mu + eps, 0, 1),  eps ~ N(0, temperature^2)      sampled afresh every step
    P(z > 0) = Phi(mu / temperature)                          expected L0 norm of one gate

The module has the formulas in the plain, and the gates of a pack that compute the same in place.
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


@dataclass(frozen=True)
class GaussianSettings:
    """The family's hyperparameters.

    Attributes
    ----------
    l0_strength: of the penalty, per mean gate; >= 0.
    l0_warmup: share of the steps over which the penalty rises from 0; in [0, 1].
    temperature, temperature_end: sigma of the noise at the first and the last step; > 0.
    temperature_schedule: a key of `schedules.SCHEDULES`.
    init: mu of every gate before the first step.
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
    ) -> GaussianGates:
        """See `interface.Family`."""
        seeds = [replicate.gate_seed for replicate in replicates]
        return GaussianGates(self, weights, layout, seeds, steps=steps)


def relaxed_gate(mu: Tensor, noise: Tensor) -> Tensor:
    """`clip(mu + noise, 0, 1)`; the noise has standard deviation sigma."""
    return torch.clamp(mu + noise, 0, 1)


def expected_density(mu: Tensor, *, temperature: float) -> Tensor:
    """Mean over the last axis of `P(z > 0) = Phi(mu / temperature)`."""
    share: Tensor = torch.special.ndtr(mu / temperature)
    return share.mean(dim=-1)


def penalty(mu: Tensor, *, l0_strength: float, temperature: float) -> Tensor:
    """`l0_strength * mean Phi(mu / temperature)` over the last axis.

    The mean, where the paper has a sum, lets one strength mean the same in every architecture.
    """
    return l0_strength * expected_density(mu, temperature=temperature)


class GaussianGates:
    """The gates of a pack; see `interface.Gates`.

    A replicate's noise is a function of its seed and the step, so it is the same whatever else is
    in the pack. The penalty keeps the first temperature while the noise is annealed: with the
    annealed one its gradient would vanish for every gate that has left (-sigma, sigma).

    Parameters
    ----------
    settings: of the family.
    weights: frozen weights, float32 (R, G).
    layout: of a row of weights.
    seeds: of the gate streams, one a replicate.
    steps: of training.
    """

    rounds = (0,)
    trained_weights = None

    def __init__(
        self,
        settings: GaussianSettings,
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
        self._gated = torch.empty_like(weights)  # z * W
        self._gated_layers = layout.split(self._gated)
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
        sigma = self._schedules.temperatures[step]
        self._kernels.gaussian(self.parameter, self._weights, self._gated, step=step, sigma=sigma)
        return tuple(layer.detach() for layer in self._gated_layers)

    def backward(self, gradients: Layers) -> Tensor:
        """See `gated.Gated`."""
        # d penalty / d mu = l0_strength / G * phi(mu / T) / T
        sigma = self._schedules.temperatures[0]
        scale = 1 / (self._layout.size * sigma * math.sqrt(2 * math.pi))
        self._kernels.gaussian_gradient(
            gradients,
            self.parameter,
            self._weights,
            self._gated,
            sigma=sigma,
            scale=self._schedules.strength(self._step) * scale,
        )
        return self._gated

    @torch.no_grad()
    def expected_density(self, step: int) -> Tensor:
        """Expected share of open gates at this step's temperature, (R,)."""
        return expected_density(self.parameter, temperature=self._schedules.temperatures[step])

    @torch.no_grad()
    def undecided(self) -> Tensor:
        """Share of gates with `0 < mu < 1`, which hardening has to round, (R,)."""
        return ((self.parameter > 0) & (self.parameter < 1)).double().mean(dim=1)

    @torch.no_grad()
    def harden(self) -> Tensor:
        """Gates that are kept, `mu > 0.5`: bool (R, G)."""
        return self.parameter > 0.5

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
