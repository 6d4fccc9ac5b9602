"""Sigmoid gates: continuous sparsification (Savarese, Silva & Maire 2020, equations 4 and 5).

    z = sigmoid(s / temperature)            no noise; annealed towards a step function
    loss = cross_entropy + lambda * sum_gates z

The temperature is the paper's 1 / beta: its beta grows from 1 to about 200.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ticketsweep.seeds import Replicate
from ticketsweep.train.gates.gated import GatedWeights
from ticketsweep.train.gates.kernels import kernels_for
from ticketsweep.train.gates.penalty import Schedules
from ticketsweep.train.pack import Layers, Layout

# A gate of 1e-13 is as good as shut. Below, its products with weights and gradients would end among
# the denormal numbers, with which a matrix product takes a hundred times as long.
_SHUT = -30.0
_NEARLY = 0.01  # a sigmoid reaches neither 0 nor 1: so near to one of them, a gate is decided


@dataclass(frozen=True)
class SigmoidSettings:
    """The family's hyperparameters.

    Attributes
    ----------
    l0_strength: of the penalty, per mean gate; >= 0.
    l0_warmup: share of the steps over which the penalty rises from 0; in [0, 1].
    temperature, temperature_end: 1 / beta at the first and the last step; > 0.
    temperature_schedule: a key of `schedules.SCHEDULES`.
    init: s of every gate before the first step.
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
        self,
        weights: Tensor,
        layout: Layout,
        replicates: Sequence[Replicate],  # noqa: ARG002 - of their seeds none is used
        *,
        steps: int,
    ) -> SigmoidGates:
        """See `interface.Family`. Nothing is drawn, so gate seeds change nothing."""
        return SigmoidGates(self, weights, layout, steps=steps)


class SigmoidGates:
    """The gates of a pack; see `interface.Gates`.

    The penalty is the gate itself at the step's own temperature, as in the paper: both gradients
    vanish together for a gate that the annealing has decided.
    """

    rounds = (0,)
    trained_weights = None

    def __init__(
        self, settings: SigmoidSettings, weights: Tensor, layout: Layout, *, steps: int
    ) -> None:
        self._schedules = Schedules(settings, weights, steps=steps)
        self._step = 0
        self._layout = layout
        self._weights = weights
        self._kernels = kernels_for(layout, [0] * len(weights), weights.device)
        self._z = torch.empty_like(weights)
        self._gated = torch.empty_like(weights)
        self.parameter = torch.full_like(weights, settings.init, requires_grad=True)
        self.parameter.grad = self._gated  # where the gradient ends up

    def sample(self, step: int) -> Layers:
        """Gated weights; see `interface.Gates`."""
        layers: Layers = GatedWeights.apply(self.parameter, self, step)
        return layers

    def forward(self, step: int) -> Layers:
        """See `gated.Gated`."""
        self._step = step
        self._schedules.steer(step, self.harden)
        self._kernels.sigmoid(
            self.parameter,
            self._weights,
            self._z,
            self._gated,
            temperature=self._schedules.temperatures[step],
            least=_SHUT,
        )
        return self._layout.split(self._gated)

    def backward(self, gradients: Layers) -> Tensor:
        """See `gated.Gated`."""
        # d (loss + penalty) / dz, then dz / ds = z (1 - z) / temperature
        self._kernels.sigmoid_gradient(
            gradients,
            self._weights,
            self._z,
            self._gated,
            temperature=self._schedules.temperatures[self._step],
            scale=self._schedules.strength(self._step) / self._layout.size,
        )
        return self._gated

    @torch.no_grad()
    def expected_density(self, step: int) -> Tensor:
        """Mean gate at this step's temperature, (R,)."""
        return torch.sigmoid(self.parameter / self._schedules.temperatures[step]).mean(dim=1)

    @torch.no_grad()
    def undecided(self) -> Tensor:
        """Share of gates between 0.01 and 0.99 at the last step's temperature, (R,)."""
        z = torch.sigmoid(self.parameter / self._schedules.temperatures[-1])
        return ((z > _NEARLY) & (z < 1 - _NEARLY)).double().mean(dim=1)

    @torch.no_grad()
    def harden(self) -> Tensor:
        """Gates that are more than half open, `s > 0`: bool (R, G)."""
        return self.parameter > 0

    def state(self) -> dict[str, Tensor]:
        """See `interface.Gates`."""
        return {"parameter": self.parameter.detach().clone(), **self._schedules.state()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `interface.Gates`."""
        self.parameter.detach().copy_(state["parameter"])
        self._schedules.restore(state)
