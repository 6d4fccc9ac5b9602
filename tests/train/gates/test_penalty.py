"""Strengths that follow a schedule, and strengths that are steered to a density."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional

from ticketsweep.config import parse_config
from ticketsweep.seeds import replicate_plan
from ticketsweep.train.gates import FAMILIES
from ticketsweep.train.gates.gaussian import GaussianSettings
from ticketsweep.train.gates.interface import Gates
from ticketsweep.train.gates.penalty import INTERVAL, Schedules, Steering, penalty_strengths
from ticketsweep.train.optimizers import OPTIMIZERS
from ticketsweep.train.pack import Layout
from ticketsweep.train.schedules import learning_rates

PENALISED = ["gaussian", "hard_concrete", "sigmoid"]
PLAN = replicate_plan(0, init=2, data=1, gate=1)


def gates_of(name: str, layout: Layout, weights: Tensor, *, steps: int, **settings: float) -> Gates:
    gate = parse_config({"gate": {"family": name}}, source="test").gate.model_dump()
    how = {
        key: gate[key]
        for key in ("l0_strength", "l0_warmup", "temperature", "temperature_end",
                    "temperature_schedule", "init")
    } | settings  # fmt: skip
    return FAMILIES[name](**how).gates(weights, layout, PLAN, steps=steps)


def masks(densities: list[float], gates: int) -> Tensor:
    """A mask (1, G) of each density."""
    counts = [round(density * gates) for density in densities]
    return torch.stack([torch.arange(gates)[None] < count for count in counts])


def test_a_penalty_rises_over_its_share_of_the_steps() -> None:
    assert penalty_strengths(2.0, warmup=0.0, steps=3) == [2.0, 2.0, 2.0]
    assert penalty_strengths(2.0, warmup=0.5, steps=4) == [0.0, 1.0, 2.0, 2.0]
    assert penalty_strengths(2.0, warmup=1.0, steps=4) == [0.0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize("target", [None, 0.1])
def test_a_strength_begins_as_given_and_rises_with_its_warm_up(target: float | None) -> None:
    settings = GaussianSettings(3.0, 0.5, 1.0, 0.1, "linear", 0.5, target)
    schedules = Schedules(settings, torch.ones(2, 10), steps=2 * INTERVAL)
    for step in range(INTERVAL):
        schedules.steer(step, lambda: torch.ones(2, 10, dtype=torch.bool))
        wanted = torch.full((2,), 3.0 * step / INTERVAL)
        torch.testing.assert_close(schedules.strength(step), wanted)
    assert schedules.temperatures[0] == 1.0
    assert schedules.temperatures[-1] == pytest.approx(0.1)


@pytest.mark.parametrize("per_count", [1, 40])
def test_steering_equals_its_formula(per_count: int) -> None:
    densities = [0.41, 0.38, 0.3, 0.31, 0.2, 0.1, 0.05, 0.0, 0.08, 0.1, 0.12]
    # A training of 58 steps, and the first of one of 2203.
    steps, target, strength = per_count * INTERVAL * 11 + 3, 0.1, 2.0
    steering = Steering(target, strength, torch.ones(1, 1000), steps=steps)
    assert steering.strength.item() == strength
    integral = math.asinh(strength)
    for at, (density, kept) in enumerate(zip(densities, masks(densities, 1000), strict=True)):
        step = INTERVAL * (at + 1)
        steering.update(step, kept)
        left = max(0.0, 1 - step / steps / 0.4)
        reference = target + (densities[0] - target) * left**4
        error = math.asinh(math.log(max(density, 0.0005) / reference) / 0.02)
        integral = min(8.0, max(-8.0, integral + INTERVAL * error * min(30 / steps, 0.03)))
        wanted = math.sinh(min(8.0, max(-8.0, integral + error)))
        assert steering.strength.item() == pytest.approx(wanted, rel=1e-4, abs=1e-4)


def test_a_strength_pushes_towards_the_target_from_both_sides_and_within_bounds() -> None:
    for density, sign in ((0.9, 1), (0.0, -1)):
        steering = Steering(0.3, 1.0, torch.ones(1, 100), steps=1000)
        kept = masks([density], 100)[0]
        for step in range(INTERVAL, 1000, INTERVAL):
            steering.update(step, kept)
        assert steering.strength.item() == pytest.approx(sign * math.sinh(8), rel=1e-4)


def test_a_replicate_is_steered_by_its_own_gates() -> None:
    rows = torch.rand(5, 3, 200, generator=torch.Generator().manual_seed(0)) < 0.3
    packed = Steering(0.2, 1.0, torch.ones(3, 200), steps=100)
    alone = [Steering(0.2, 1.0, torch.ones(1, 200), steps=100) for _ in range(3)]
    for at, kept in enumerate(rows):
        packed.update(INTERVAL * (at + 1), kept)
        for row, steering in enumerate(alone):
            steering.update(INTERVAL * (at + 1), kept[row : row + 1])
            torch.testing.assert_close(packed.strength[row], steering.strength[0])


@pytest.mark.parametrize("interrupted", [0, INTERVAL - 1, INTERVAL, INTERVAL + 1, 18])
@pytest.mark.parametrize("name", PENALISED)
def test_gates_that_are_steered_go_on_bit_for_bit(
    name: str, interrupted: int, layout_of: Callable[..., Layout], gradient: Callable[..., Tensor]
) -> None:
    layout = layout_of([20, 7, 4])
    weights = torch.randn(2, layout.size, generator=torch.Generator().manual_seed(1))

    def begin() -> tuple[Gates, Any]:
        gates = gates_of(name, layout, weights, steps=40, target_density=0.2)
        return gates, OPTIMIZERS["adam"](gates.parameter)

    (gates, update), (resumed, again) = begin(), begin()
    for step in range(40):
        if step == interrupted:
            resumed.restore(gates.state())
            again.restore(update.state())
        trained = ((gates, update), (resumed, again)) if step >= interrupted else ((gates, update),)
        for each, move in trained:
            gradient(each, step, torch.tensor(1.0))
            move(0.05)
    assert torch.equal(gates.parameter, resumed.parameter)


def ended_at(name: str, target: float, *, hidden: int, steps: int) -> list[float]:
    """Densities to which fully connected networks on digits are trained."""
    images, labels = load_digits(return_X_y=True)
    pixels = torch.tensor(images, dtype=torch.float32)
    pixels, classes = (pixels - pixels.mean()) / pixels.std(), torch.tensor(labels)
    layout = Layout(("0", "1"), ((hidden, 64), (10, hidden)), (hidden * 64, 10 * hidden))
    generator = torch.Generator().manual_seed(0)
    weights = torch.cat(
        [
            torch.randn(2, size, generator=generator).sign() * 1.5 * math.sqrt(2 / shape[1])
            for shape, size in zip(layout.shapes, layout.sizes, strict=True)
        ],
        dim=1,
    )
    gates = gates_of(name, layout, weights, steps=steps, target_density=target)
    update = OPTIMIZERS["adam"](gates.parameter)
    for step, lr in enumerate(learning_rates("cosine", lr=0.03, steps=steps)):
        batch = torch.randint(len(pixels), (64,), generator=generator)
        first, last = gates.sample(step)
        logits = functional.relu(pixels[batch] @ first.mT) @ last.mT
        loss = functional.cross_entropy(
            logits.flatten(0, 1), classes[batch].repeat(2), reduction="sum"
        )
        torch.autograd.grad(loss / 64, gates.parameter)
        update(lr)
    densities: list[float] = gates.harden().double().mean(dim=1).tolist()
    return densities


@pytest.mark.parametrize("target", [0.5, 0.1])
@pytest.mark.parametrize("name", PENALISED)
def test_training_ends_at_the_target_density(name: str, target: float) -> None:
    assert ended_at(name, target, hidden=32, steps=500) == pytest.approx([target] * 2, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("target", [0.5, 0.05, 0.02])
@pytest.mark.parametrize("name", PENALISED)
def test_longer_training_ends_at_targets_down_to_2_percent(name: str, target: float) -> None:
    assert ended_at(name, target, hidden=150, steps=2000) == pytest.approx([target] * 2, rel=0.02)
