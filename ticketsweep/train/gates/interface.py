"""What a gate family offers to the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor

from ticketsweep.seeds import Replicate
from ticketsweep.train.pack import Layers, Layout


class Gates(Protocol):
    """The gates of a pack: G gates for each of R replicates, all in one flat tensor.

    A replicate's row is computed from its own rows and seeds alone, so that it does not depend on
    its pack. A row whose values became infinite or NaN stays in the pack: nothing raises, and no
    other row changes.
    """

    @property
    def parameter(self) -> Tensor:
        """What the optimizer moves, float32 (R, G); its `grad` is a buffer that stays in place."""

    @property
    def rounds(self) -> tuple[int, ...]:
        """The steps before which the optimizer begins afresh: (0,), or () if nothing is trained."""

    @property
    def trained_weights(self) -> Tensor | None:
        """The weights (R, G) that the family itself trains; None where it gates those it got."""

    def sample(self, step: int) -> Layers:
        """Gated weights (R, *shape) of each layer at this step, counted from 0; steps ascend.

        Differentiating them fills `parameter.grad` with the gradient of loss plus penalty, where
        the loss is a sum over replicates. They are valid until the next call.
        """

    def expected_density(self, step: int) -> Tensor:
        """Expected share of open gates at this step, (R,)."""

    def undecided(self) -> Tensor:
        """Share of gates strictly between shut and open, which hardening has to round, (R,)."""

    def harden(self) -> Tensor:
        """Gates that are kept if training ends now: bool (R, G)."""

    def state(self) -> dict[str, Tensor]:
        """Copies of all that the next steps depend on, but for the optimizer's own state."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state()` of gates that were built alike, bit for bit on the same device."""


class Family(Protocol):
    """A family's hyperparameters; the fields of the same name in `config` have their ranges."""

    @property
    def trains_weights(self) -> bool:
        """Whether it trains weights and prunes them, where others gate those they get."""

    def gates(
        self, weights: Tensor, layout: Layout, replicates: Sequence[Replicate], *, steps: int
    ) -> Gates:
        """Gates on these weights before the first step.

        Parameters
        ----------
        weights: W_k, float32 (R, G), a row for each replicate; left as they are. Or ones, where
            the caller multiplies: a gate then stands for a whole unit, or for a weight that is
            trained along. `magnitude` needs weights.
        layout: of a row of weights, or of units: then a shape may be (n,) or (C, H, W).
        steps: of training, all rounds together, >= 1.
        """
