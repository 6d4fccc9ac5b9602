from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import stats

from ticketsweep.seeds import Replicate, replicate_plan
from ticketsweep.train.gates.random import RandomSettings
from ticketsweep.train.pack import Layout


def masks(layout: Layout, plan: tuple[Replicate, ...], density: float) -> torch.Tensor:
    weights = torch.ones(len(plan), layout.size)
    gates = RandomSettings(density).gates(weights, layout, plan, steps=10)
    assert gates.rounds == ()
    return gates.harden()


def test_every_layer_keeps_its_share_and_every_weight_is_as_likely(
    layout_of: Callable[..., Layout],
) -> None:
    layout = layout_of([6, 5, 4])
    plan = tuple(Replicate(at, at, at, at) for at in range(3000))
    for layer in layout.split(masks(layout, plan, 0.3)):
        kept = layer.flatten(1)
        assert set(kept.sum(dim=1).tolist()) == {round(0.3 * kept.shape[1])}
        # Drawn without replacement, so the counts vary a little less than chi-square has it.
        assert stats.chisquare(kept.sum(dim=0).numpy()).pvalue > 1e-3


def test_replicates_overlap_by_chance_whichever_seed_they_share(
    layout_of: Callable[..., Layout],
) -> None:
    layout = layout_of([60, 50])
    kept = masks(layout, replicate_plan(0, init=2, data=2, gate=2), 0.2).numpy()
    shared = [(a & b).sum() for at, a in enumerate(kept) for b in kept[:at]]
    null = stats.hypergeom(3000, 600, 600)
    assert np.abs((np.array(shared) - null.mean()) / null.std()).max() < 4
