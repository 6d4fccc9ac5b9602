"""Controls that expose a false ticket (Frankle et al. 2021; Su et al. 2020; Ma et al. 2021).

A ticket that is no better than these has found layer-wise densities, not a ticket.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ticketsweep.seeds import Replicate, derive_seed
from ticketsweep.train.learning import Gating
from ticketsweep.train.pack import Layout, Weights

SHUFFLED_MASK, REINITIALIZED, RANDOM_MASK = "shuffled_mask", "reinitialized", "random_mask"


def control_mask(
    control: str,
    gates: Tensor,
    gating: Gating,
    weights: Layout,
    replicates: Sequence[Replicate],
) -> Weights:
    """What a control keeps of every parameter: bool (R, G) and (R, O).

    - `shuffled_mask`: the ticket's gates, permuted within each layer: units where it gates units.
    - `random_mask`: weights drawn one by one, as many in each layer as the ticket keeps. Where
      gates are those of weights, it has the distribution of a shuffled mask, and is another draw.
    - `reinitialized`: the ticket's own mask; what it is laid on is drawn afresh.

    Parameters
    ----------
    gates: bool (R, U), those that the ticket keeps.
    weights: layout of the gated weights.
    """
    return _MASKS[control](gates, gating, weights, replicates)


def _own(gates: Tensor, gating: Gating, _weights: Layout, _of: Sequence[Replicate]) -> Weights:
    return gating.keep(gates)


def _shuffled(gates: Tensor, gating: Gating, _weights: Layout, of: Sequence[Replicate]) -> Weights:
    return gating.keep(_permuted(gates, gating.layout, of, SHUFFLED_MASK))


def _random(gates: Tensor, gating: Gating, weights: Layout, of: Sequence[Replicate]) -> Weights:
    kept = gating.keep(gates)
    # Shuffling exact counts draws a random mask with just these counts.
    return Weights(_permuted(kept.gated, weights, of, RANDOM_MASK), torch.ones_like(kept.rest))


_MASKS: dict[str, Callable[[Tensor, Gating, Layout, Sequence[Replicate]], Weights]] = {
    SHUFFLED_MASK: _shuffled,
    REINITIALIZED: _own,
    RANDOM_MASK: _random,
}
CONTROLS = tuple(_MASKS)


def fresh_init_seed(init_seed: int) -> int:
    """Seed of the weights that `reinitialized` draws in the place of this seed's."""
    return derive_seed(init_seed, REINITIALIZED)


def _permuted(mask: Tensor, layout: Layout, replicates: Sequence[Replicate], label: str) -> Tensor:
    """Bool (R, n), each layer of each replicate permuted by a seed of its own."""
    rows = []
    for row, replicate in zip(mask.cpu(), replicates, strict=True):
        seeds = (replicate.gate_seed, label, str(replicate.init_seed), str(replicate.data_seed))
        layers = []
        for name, layer in zip(layout.names, torch.split(row, list(layout.sizes)), strict=True):
            generator = torch.Generator().manual_seed(derive_seed(*seeds, name))
            layers.append(layer[torch.randperm(len(layer), generator=generator)])
        rows.append(torch.cat(layers))
    return torch.stack(rows).to(mask.device)
