"""Random masks of a given density, the same in every layer: the floor for every comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ticketsweep.seeds import Replicate, derive_seed
from ticketsweep.train.gates.edge_popup import EdgePopupGates, initial_scores
from ticketsweep.train.pack import Layout


@dataclass(frozen=True)
class RandomSettings:
    """The family's only hyperparameter.

    Attributes
    ----------
    density: share of each layer's weights that is kept; in (0, 1].
    """

    density: float

    trains_weights = False

    def gates(
        self,
        weights: Tensor,
        layout: Layout,
        replicates: Sequence[Replicate],
        *,
        steps: int,  # noqa: ARG002 - none is made
    ) -> EdgePopupGates:
        """See `interface.Family`. The mask is edge-popup's before its first step.

        It is drawn afresh for each combination of seeds. If it followed the gate seed alone, the
        masks of replicates that share one would be equal, and look like perfectly stable tickets.
        """
        seeds = [
            derive_seed(each.gate_seed, "random-mask", str(each.init_seed), str(each.data_seed))
            for each in replicates
        ]
        return EdgePopupGates(
            weights,
            layout,
            initial_scores(layout, seeds).to(weights),
            density=self.density,
            ranked_by="signed",
            rounds=(),
        )
