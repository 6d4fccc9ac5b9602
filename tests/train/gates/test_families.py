"""Laws that hold for every family."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ticketsweep.config import parse_config
from ticketsweep.seeds import Replicate, replicate_plan
from ticketsweep.train.gates import FAMILIES
from ticketsweep.train.gates.interface import Family, Gates
from ticketsweep.train.optimizers import OPTIMIZERS
from ticketsweep.train.pack import Layout

PLAN = replicate_plan(0, init=2, data=2, gate=1)
WIDTHS = [20, 7, 4]
STEPS = 6


def family_of(name: str, **settings: float) -> Family:
    """The family with these settings, and the others as they are by default."""
    gate = parse_config({"gate": {"family": name, **settings}}, source="test").gate.model_dump()
    return FAMILIES[name](
        **{field: gate[field] for field in inspect.signature(FAMILIES[name]).parameters}
    )


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


@pytest.mark.parametrize("interrupted", range(STEPS))
@pytest.mark.parametrize("name", FAMILIES)
def test_gates_that_are_restored_go_on_bit_for_bit(
    name: str, interrupted: int, started: Callable[..., Gates], gradient: Callable[..., Tensor]
) -> None:
    gates, target = started(name), torch.tensor(1.0)
    update = OPTIMIZERS["adam"](gates.parameter)
    for step in range(STEPS):
        if step == interrupted:
            state = gates.state()
            resumed, again = gates, update
            gates = started(name)
            update = OPTIMIZERS["adam"](gates.parameter)
            gradient(gates, 0, target)  # whatever they did before is forgotten
            update(0.05)
            gates.restore(state)
            update.restore(again.state())
        if step >= interrupted:
            gradient(resumed, step, target)
            again(0.05)
        gradient(gates, step, target)
        update(0.05)
    assert torch.equal(gates.parameter, resumed.parameter)
    assert torch.equal(gates.harden(), resumed.harden())
    assert gates.expected_density(STEPS - 1).equal(resumed.expected_density(STEPS - 1))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_state_is_not_moved_by_what_follows(
    name: str, started: Callable[..., Gates], gradient: Callable[..., Tensor]
) -> None:
    gates = started(name)
    state = gates.state()
    copies = {key: tensor.clone() for key, tensor in state.items()}
    update = OPTIMIZERS["sgd"](gates.parameter)
    for step in range(STEPS):
        gradient(gates, step, torch.tensor(1.0))
        update(0.1)
    for key, tensor in state.items():
        assert torch.equal(tensor, copies[key]), key


@pytest.mark.parametrize("lost", [0, 2])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_replicate_that_is_lost_touches_no_other(
    name: str, lost: int, started: Callable[..., Gates], gradient: Callable[..., Tensor]
) -> None:
    """From the third step on its loss is NaN, and so is its gradient."""
    seen: list[list[Tensor]] = []
    for spoilt in (1.0, float("nan")):
        gates, found = started(name), []
        for step in range(STEPS):
            if not gates.rounds or step in gates.rounds:
                update = OPTIMIZERS["adam"](gates.parameter)
            coefficients = torch.ones(len(PLAN), 1)
            coefficients[lost] = 1.0 if step < 2 else spoilt
            found.append(gradient(gates, step, coefficients))
            update(0.05)
            found += [gates.parameter.detach().clone(), gates.harden(), gates.undecided()]
            found.append(gates.expected_density(step))
        seen.append(found)
    others = [at for at in range(len(PLAN)) if at != lost]
    for sound, with_lost in zip(*seen, strict=True):
        assert torch.equal(sound[others], with_lost[others])
    assert gates.harden()[lost].dtype == torch.bool


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "magnitude"])
def test_gates_may_stand_for_units_as_well_as_for_weights(
    name: str, gated: Callable[..., Tensor], gradient: Callable[..., Tensor]
) -> None:
    """Then the weights are ones, and what is sampled are the gates themselves."""
    shapes = ((6,), (2, 3, 1), (1,))
    units = Layout(("inputs", "images", "outputs"), shapes, (6, 6, 1))
    gates = family_of(name).gates(torch.ones(len(PLAN), 13), units, PLAN, steps=STEPS)
    assert [tuple(layer.shape[1:]) for layer in gates.sample(0)] == list(shapes)
    z = gated(gates, 0)
    assert ((z >= 0) & (z <= 1)).all()
    update = OPTIMIZERS["adam"](gates.parameter)
    for step in range(STEPS):
        assert torch.isfinite(gradient(gates, step, torch.tensor(1.0))).all()
        update(0.05)
    assert gates.harden().shape == (len(PLAN), 13)


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_are_trained_by_magnitude_pruning_alone(
    name: str, started: Callable[..., Gates]
) -> None:
    gates = started(name)
    if name != "magnitude":
        assert gates.trained_weights is None
    else:
        assert gates.trained_weights is not None
        assert torch.equal(gates.trained_weights, gates.parameter)
        assert not gates.trained_weights.requires_grad


@pytest.mark.parametrize("name", ["gaussian", "hard_concrete", "edge_popup", "random"])
def test_gate_seeds_decide_what_is_drawn(name: str, started: Callable[..., Gates]) -> None:
    one, other = (started(name, (Replicate(0, 1, 2, gate_seed=seed),)) for seed in (3, 4))
    first, second = (torch.cat([x.flatten() for x in g.sample(0)]).clone() for g in (one, other))
    assert not torch.equal(first, second)


# Of the masks after 40 steps: (family, l0_warmup, digest).
GOLDEN = [
    ("gaussian", 0.0, "f9e99346c50d4fe4"),
    ("gaussian", 0.5, "6fed3e98bedd388a"),
    ("hard_concrete", 0.0, "39e3fb604f1a2c21"),
    ("hard_concrete", 0.5, "4eba216b9b9ed456"),
    ("sigmoid", 0.0, "2facbd758be7e1f3"),
    ("sigmoid", 0.5, "923b48c6ddd9776e"),
    ("edge_popup", 0.0, "da4e44b2ea0f2c7a"),
    ("magnitude", 0.0, "522cd095addd8b71"),
    ("random", 0.0, "bb0d2984b09c1f82"),
]


@pytest.mark.parametrize(("name", "warmup", "digest"), GOLDEN)
def test_masks_are_those_of_earlier_versions(
    name: str, warmup: float, digest: str, gated: Callable[..., Tensor]
) -> None:
    """Stored trials answer for their ids, so the same settings must lead to the same masks."""
    plan = replicate_plan(0, init=2, data=1, gate=2)
    layout = Layout(("0.weight", "1.weight"), ((30, 40), (8, 30)), (1200, 240))
    weights = torch.stack([weights_of(replicate, layout.size) for replicate in plan])
    target = torch.randn(4, layout.size, generator=torch.Generator().manual_seed(9))
    family = family_of(name, **({"l0_warmup": warmup} if warmup else {}))
    gates = family.gates(weights, layout, plan, steps=40)
    for step in range(40) if gates.rounds else ():
        if step in gates.rounds:
            update = OPTIMIZERS["adam"](gates.parameter)
        loss = (gated(gates, step) - target).square().mean(dim=1).sum()
        torch.autograd.grad(loss, gates.parameter)
        update(0.03)
    kept = gates.harden().numpy().tobytes()
    assert hashlib.blake2b(kept, digest_size=8).hexdigest() == digest
