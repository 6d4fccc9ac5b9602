"""Iterative magnitude pruning with rewinding (Frankle & Carbin 2019; Frankle et al. 2020).

In each round the kept weights are trained from W_k; then a share of them, those of the smallest
magnitude, is pruned and the others are rewound to W_k. The ticket is the mask of the last round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ticketsweep.seeds import Replicate
from ticketsweep.train.gates.gated import GatedWeights
from ticketsweep.train.gates.topk import top_k
from ticketsweep.train.pack import Layers, Layout


@dataclass(frozen=True)
class MagnitudeSettings:
    """The family's hyperparameters.

    Attributes
    ----------
    rounds: of training and pruning, >= 1.
    share: of the weights that are left, pruned in each round; in (0, 1).
    scope: global | layer: among which weights the smallest are looked for.
    """

    rounds: int
    share: float
    scope: str

    trains_weights = True

    def gates(
        self,
        weights: Tensor,
        layout: Layout,
        replicates: Sequence[Replicate],  # noqa: ARG002 - of their seeds none is used
        *,
        steps: int,
    ) -> MagnitudeGates:
        """See `interface.Family`. Nothing is drawn, so gate seeds change nothing."""
        return MagnitudeGates(self, weights, layout, steps=steps)


def survivors(count: int, *, share: float) -> int:
    """How many of `count` weights a round leaves: `share` of them pruned, rounded; at least one."""
    return max(1, count - round(share * count))


class MagnitudeGates:
    """The masks of a pack and the weights that decide them; see `interface.Gates`.

    `parameter` holds the weights under training. The steps are shared out among the rounds, to
    within one; with fewer steps than rounds, rounds without a step prune by the magnitudes of W_k.
    """

    def __init__(
        self, settings: MagnitudeSettings, weights: Tensor, layout: Layout, *, steps: int
    ) -> None:
        self.rounds = tuple(steps * at // settings.rounds for at in range(settings.rounds))
        self._begun = 0  # rounds
        self._groups = [layout.size] if settings.scope == "global" else list(layout.sizes)
        # What each round leaves of each group. Counted beforehand, since every replicate keeps as
        # many, even one whose weights became NaN.
        self._left: list[list[int]] = []
        left = self._groups
        for _ in self.rounds:
            left = [survivors(count, share=settings.share) for count in left]
            self._left.append(left)
        self._layout = layout
        self._rewound = weights
        self._kept = torch.ones_like(weights, dtype=torch.bool)
        self._gated = torch.empty_like(weights)
        self._gradient = torch.empty_like(weights)
        self.parameter = weights.clone().requires_grad_()
        self.parameter.grad = self._gradient

    @property
    def trained_weights(self) -> Tensor:
        """The weights under training, pruned ones included, (R, G)."""
        return self.parameter.detach()

    def sample(self, step: int) -> Layers:
        """The weights under training, pruned ones 0; a new round first prunes and rewinds."""
        while self._begun < len(self.rounds) and self.rounds[self._begun] <= step:
            if self._begun:
                self._kept = self.harden()
                self.parameter.detach().copy_(self._rewound)
            self._begun += 1
        layers: Layers = GatedWeights.apply(self.parameter, self, step)
        return layers

    def forward(self, _step: int) -> Layers:
        """See `gated.Gated`."""
        torch.mul(self.parameter.detach(), self._kept, out=self._gated)
        return self._layout.split(self._gated)

    def backward(self, gradients: Layers) -> Tensor:
        """See `gated.Gated`."""
        torch.cat([gradient.flatten(1) for gradient in gradients], dim=1, out=self._gradient)
        return self._gradient.mul_(self._kept)

    def expected_density(self, _step: int) -> Tensor:
        """Share of the weights that this round trains, (R,)."""
        return self._kept.double().mean(dim=1)

    def undecided(self) -> Tensor:
        """Zeros: a weight is kept or it is not, (R,)."""
        return torch.zeros(len(self._kept), dtype=torch.float64, device=self._kept.device)

    @torch.no_grad()
    def harden(self) -> Tensor:
        """What the round would keep if it ended now: bool (R, G)."""
        ranked = torch.where(self._kept, self.parameter.abs(), -1.0)  # pruned weights stay pruned
        parts = torch.split(ranked, self._groups, dim=1)
        left = self._left[max(0, self._begun - 1)]
        chosen = [top_k(values, count) for values, count in zip(parts, left, strict=True)]
        return torch.cat(chosen, dim=1)

    def state(self) -> dict[str, Tensor]:
        """See `interface.Gates`."""
        return {
            "parameter": self.parameter.detach().clone(),
            "kept": self._kept.clone(),
            "begun": torch.tensor(self._begun),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `interface.Gates`."""
        self.parameter.detach().copy_(state["parameter"])
        self._kept.copy_(state["kept"])
        self._begun = int(state["begun"])
