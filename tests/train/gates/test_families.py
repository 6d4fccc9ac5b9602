"""Laws that hold for every family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ticketsweep.config import parse_config
from ticketsweep.seeds import Replicate, replicate_plan
from ticketsweep.train.gates import FAMILIES
from ticketsweep.train.gates.gated import penalty_strengths
from ticketsweep.train.gates.interface import Family, Gates
from ticketsweep.train.optimizers import OPTIMIZERS

PLAN = replicate_plan(0, init=2, data=2, gate=1)
WIDTHS = [20, 7, 4]
STEPS = 6


def family_of(name: str) -> Family:
    """The family with the settings that it has by default."""
    gate = parse_config({"gate": {"family": name}}, source="test").gate
    return FAMILIES[name](**gate.model_dump(exclude={"family", "granularity"}))


def weights_of(replicate: Replicate, size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(replicate.init_seed))


@pytest.fixture
def started(layout_of: Callable[..., Any]) -> Callable[..., Gates]:
    def start(name: str, plan: tuple[Replicate, ...] = PLAN) -> Gates:
        layout = layout_of(WIDTHS)
        weights = torch.stack([weights_of(replicate, layout.size) for replicate in plan])
        return family_of(name).gates(weights, layout, plan, steps=STEPS)

    return start


@pytest.fixture
def trained(started: Callable[..., Gates], gradient: Callable[..., Tensor]) -> Callable[..., Any]:
    """Gates after all steps of training, and what they computed in each."""

    def train(name: str, plan: tuple[Replicate, ...] = PLAN) -> tuple[Gates, list[Tensor]]:
        gates, seen = started(name, plan), []
        for step in range(STEPS) if gates.rounds else ():
            if step in gates.rounds:
                update = OPTIMIZERS["adam"](gates.parameter)
            found = [gradient(gates, step, torch.tensor(1.0)), gates.expected_density(step)]
            update(0.05)
            seen += [*found, gates.parameter.detach().clone(), gates.harden(), gates.undecided()]
        return gates, [*seen, gates.harden(), gates.undecided()]

    return train


@pytest.mark.parametrize("name", FAMILIES)
def test_a_replicate_does_not_depend_on_its_pack(name: str, trained: Callable[..., Any]) -> None:
    """But for the last bit: a sigmoid is vectorised, and rounds otherwise at the end of a row."""
    _, packed = trained(name)
    for at, replicate in enumerate(PLAN):
        _, alone = trained(name, (replicate,))
        for theirs, own in zip(packed, alone, strict=True):
            torch.testing.assert_close(theirs[at], own[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_rewound_weights_are_left_as_they_are(
    name: str, layout_of: Callable[..., Any], gradient: Callable[..., Tensor]
) -> None:
    layout = layout_of(WIDTHS)
    weights = torch.randn(len(PLAN), layout.size)
    before = weights.clone()
    gates = family_of(name).gates(weights, layout, PLAN, steps=STEPS)
    update = OPTIMIZERS["adam"](gates.parameter)
    for step in range(STEPS):
        gradient(gates, step, torch.tensor(1.0))
        update(0.1)
    gates.harden()
    assert torch.equal(weights, before)


@pytest.mark.parametrize("name", FAMILIES)
def test_figures_are_shares_of_each_replicate(name: str, trained: Callable[..., Any]) -> None:
    gates, _ = trained(name)
    kept = gates.harden()
    assert kept.dtype == torch.bool
    assert kept.shape == gates.parameter.shape
    for share in (gates.undecided(), gates.expected_density(STEPS - 1)):
        assert share.shape == (len(PLAN),)
        assert ((share >= 0) & (share <= 1)).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_every_step_has_its_own_gradient(
    name: str, started: Callable[..., Gates], gradient: Callable[..., Tensor]
) -> None:
    """The buffers are reused: nothing of one step may be left in the next."""
    few, many = started(name), started(name)
    for step in range(3):
        gradient(many, step, torch.tensor(100.0 + step))
    generators = [getattr(gates, "_generators", []) for gates in (few, many)]
    for one, other in zip(*generators, strict=True):
        one.set_state(other.get_state())
    wanted = gradient(few, 3, torch.tensor(1.0))
    assert torch.equal(gradient(many, 3, torch.tensor(1.0)), wanted)
    assert not torch.equal(wanted, torch.zeros_like(wanted))


@pytest.mark.parametrize("name", ["gaussian", "hard_concrete", "edge_popup", "random"])
def test_gate_seeds_decide_what_is_drawn(name: str, started: Callable[..., Gates]) -> None:
    one, other = (started(name, (Replicate(0, 1, 2, gate_seed=seed),)) for seed in (3, 4))
    first, second = (torch.cat([x.flatten() for x in g.sample(0)]).clone() for g in (one, other))
    assert not torch.equal(first, second)


def test_a_penalty_rises_over_its_share_of_the_steps() -> None:
    assert penalty_strengths(2.0, warmup=0.0, steps=3) == [2.0, 2.0, 2.0]
    assert penalty_strengths(2.0, warmup=0.5, steps=4) == [0.0, 1.0, 2.0, 2.0]
    assert penalty_strengths(2.0, warmup=1.0, steps=4) == [0.0, 0.5, 1.0, 1.5]
