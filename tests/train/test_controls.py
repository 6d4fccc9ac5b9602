from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ticketsweep.seeds import replicate_plan
from ticketsweep.train.controls import CONTROLS, control_mask, fresh_init_seed
from ticketsweep.train.learning import Gating, UnitGating, WeightGating
from ticketsweep.train.models import prunable
from ticketsweep.train.pack import Layout, PackedModel, Weights
from ticketsweep.train.units import Units, unit_sites

PLAN = replicate_plan(0, init=2, data=2, gate=1)
MODEL = nn.Sequential(nn.Flatten(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 5))
GATED = Layout.of(MODEL, prunable(MODEL))
REST = Layout.of(MODEL, ["1.bias", "3.bias"])


def gating(granularity: str) -> Gating:
    packed = PackedModel(MODEL, GATED, REST)
    if granularity == "weight":
        return WeightGating(packed, multiplies=False)
    sites = unit_sites(MODEL, input_shape=(1, 5, 8), gated=GATED.names, inputs=True)
    return UnitGating(packed, Units(sites, GATED, REST))


def control(name: str, gates: Tensor, granularity: str) -> Weights:
    return control_mask(name, gates, gating(granularity), GATED, PLAN)


def gates(granularity: str, *, density: float = 0.3) -> Tensor:
    size = gating(granularity).layout.size
    return torch.rand(len(PLAN), size, generator=torch.Generator().manual_seed(0)) < density


@pytest.mark.parametrize("granularity", ["weight", "neuron"])
@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_keeps_as_many_weights_of_each_layer_as_the_ticket(
    name: str, granularity: str
) -> None:
    ticket = gates(granularity)
    own = gating(granularity).keep(ticket)
    mask = control(name, ticket, granularity)
    for layer, other in zip(GATED.split(mask.gated), GATED.split(own.gated), strict=True):
        assert torch.equal(layer.flatten(1).sum(1), other.flatten(1).sum(1))


def test_a_reinitialized_ticket_keeps_its_mask_on_other_weights() -> None:
    ticket = gates("weight")
    assert torch.equal(control("reinitialized", ticket, "weight").gated, ticket)
    assert fresh_init_seed(5) == fresh_init_seed(5) != fresh_init_seed(6) != 6


@pytest.mark.parametrize("name", ["shuffled_mask", "random_mask"])
def test_a_random_control_overlaps_with_its_ticket_by_chance(name: str) -> None:
    ticket = gates("weight")
    mask = control(name, ticket, "weight").gated
    shared = (mask & ticket).sum(1) / ticket.sum(1)
    assert shared.tolist() == pytest.approx([0.3] * len(PLAN), abs=0.08)
    # No two replicates share their draw.
    assert len({row.numpy().tobytes() for row in mask}) == len(PLAN)
    assert torch.equal(mask, control(name, ticket, "weight").gated)


def test_shuffling_a_ticket_of_units_gives_units_and_a_random_mask_gives_weights() -> None:
    ticket = gates("neuron")
    shuffled = GATED.split(control("shuffled_mask", ticket, "neuron").gated)[0]
    assert np.array_equal(shuffled[0], shuffled[0].any(0) & shuffled[0].any(1, keepdim=True))
    drawn = GATED.split(control("random_mask", ticket, "neuron").gated)[0]
    assert not np.array_equal(drawn[0], drawn[0].any(0) & drawn[0].any(1, keepdim=True))
