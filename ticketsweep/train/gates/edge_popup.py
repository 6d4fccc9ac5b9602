"""Edge-popup (Ramanujan et al. 2020): the weights with the highest scores, a given share a layer.

    z = 1 for the k highest |score| of its layer, else 0;  k = density * size of the layer
    d loss / d score = d loss / d z * sign(score)           straight through the choice

Nothing is penalised: the density is given.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ticketsweep.seeds import Replicate, derive_seed
from ticketsweep.train.gates.gated import GatedWeights
from ticketsweep.train.gates.topk import kept_count, top_k
from ticketsweep.train.pack import Layers, Layout


@dataclass(frozen=True)
class EdgePopupSettings:
    """The family's hyperparameters.

    Attributes
    ----------
    density: share of each layer's weights that is kept; in (0, 1].
    ranked_by: absolute | signed: whether weights are ranked by |score| or by the score.
    """

    density: float
    ranked_by: str

    trains_weights = False

    def gates(
        self,
        weights: Tensor,
        layout: Layout,
        replicates: Sequence[Replicate],
        *,
        steps: int,  # noqa: ARG002 - nothing changes along them
    ) -> EdgePopupGates:
        """See `interface.Family`. Gate seeds decide the first scores."""
        seeds = [replicate.gate_seed for replicate in replicates]
        scores = initial_scores(layout, seeds).to(weights)
        return EdgePopupGates(
            weights, layout, scores, density=self.density, ranked_by=self.ranked_by, rounds=(0,)
        )


def initial_scores(layout: Layout, seeds: Sequence[int]) -> Tensor:
    """U[-a, a], a = 1 / sqrt(fan_in), float32 (R, G), each layer and seed from a stream of its own.

    It is `kaiming_uniform_(a=sqrt(5))`, as in the authors' code.
    """
    rows = []
    for seed in seeds:
        layers = []
        for name, shape, size in zip(layout.names, layout.shapes, layout.sizes, strict=True):
            generator = torch.Generator().manual_seed(derive_seed(seed, "scores", name))
            bound = 1 / math.sqrt(math.prod(shape[1:]))
            layers.append(torch.empty(size).uniform_(-bound, bound, generator=generator))
        rows.append(torch.cat(layers))
    return torch.stack(rows)


class EdgePopupGates:
    """The gates of a pack; see `interface.Gates`. A gate is 0 or 1 at every step.

    In a row with NaN, which ranks above every number, a layer may keep fewer.

    Parameters
    ----------
    scores: before the first step, float32 (R, G).
    density, ranked_by: see `EdgePopupSettings`.
    rounds: (0,), or () to leave the scores as they are.
    """

    trained_weights = None

    def __init__(
        self,
        weights: Tensor,
        layout: Layout,
        scores: Tensor,
        *,
        density: float,
        ranked_by: str,
        rounds: tuple[int, ...],
    ) -> None:
        self.rounds = rounds
        self._layout = layout
        self._weights = weights
        self._counts = [kept_count(density, size) for size in layout.sizes]
        self._is_absolute = ranked_by == "absolute"
        self._gated = torch.empty_like(weights)
        self._gradient = torch.empty_like(weights)
        self.parameter = scores.clone().requires_grad_()
        self.parameter.grad = self._gradient

    def sample(self, step: int) -> Layers:
        """The chosen weights; see `interface.Gates`."""
        layers: Layers = GatedWeights.apply(self.parameter, self, step)
        return layers

    def forward(self, _step: int) -> Layers:
        """See `gated.Gated`."""
        torch.mul(self._weights, self.harden(), out=self._gated)
        return self._layout.split(self._gated)

    def backward(self, gradients: Layers) -> Tensor:
        """See `gated.Gated`."""
        torch.cat([gradient.flatten(1) for gradient in gradients], dim=1, out=self._gradient)
        self._gradient.mul_(self._weights)
        if self._is_absolute:
            self._gradient.mul_(torch.sign(self.parameter.detach(), out=self._gated))
        return self._gradient

    @torch.no_grad()
    def expected_density(self, _step: int) -> Tensor:
        """Share of the gates that are open, (R,)."""
        return self.harden().double().mean(dim=1)

    def undecided(self) -> Tensor:
        """Zeros: no gate is ever between 0 and 1, (R,)."""
        return torch.zeros(len(self._weights), dtype=torch.float64, device=self._weights.device)

    @torch.no_grad()
    def harden(self) -> Tensor:
        """The gates with the highest scores of each layer: bool (R, G)."""
        ranked = self.parameter.abs() if self._is_absolute else self.parameter
        parts = torch.split(ranked, list(self._layout.sizes), dim=1)
        kept = [top_k(part, count) for part, count in zip(parts, self._counts, strict=True)]
        return torch.cat(kept, dim=1)

    def state(self) -> dict[str, Tensor]:
        """See `interface.Gates`."""
        return {"parameter": self.parameter.detach().clone()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `interface.Gates`."""
        self.parameter.detach().copy_(state["parameter"])
