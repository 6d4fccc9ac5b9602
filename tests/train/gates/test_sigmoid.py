from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ticketsweep.train.gates.sigmoid import SigmoidGates, SigmoidSettings
from ticketsweep.train.pack import Layout


def gates_on(weights: Tensor, layout: Layout, *, strength: float, end: float) -> SigmoidGates:
    """Gates of three steps, annealed from 1 to `end`."""
    how = SigmoidSettings(strength, 0.0, 1.0, end, "exponential", 0.0)
    return SigmoidGates(how, weights, layout, steps=3)


@pytest.mark.parametrize("step", [0, 1, 2])
def test_the_step_in_place_equals_the_plain_formula(
    step: int, layout_of: Callable[..., Layout], gated: Callable[..., Tensor],
    gradient: Callable[..., Tensor],
) -> None:  # fmt: skip
    layout = layout_of([6, 5, 3])
    generator = torch.Generator().manual_seed(step)
    weights, coefficients, start = (
        torch.randn(2, layout.size, generator=generator) for _ in range(3)
    )
    gates = gates_on(weights, layout, strength=3.0, end=0.25)
    with torch.no_grad():
        gates.parameter.add_(start)
    s = start.clone().requires_grad_()
    z = torch.sigmoid(s * 2.0**step)  # temperatures 1, 1/2, 1/4
    objective = ((z * weights).square() * coefficients).sum() + 3.0 * z.mean(dim=1).sum()
    (wanted,) = torch.autograd.grad(objective, s)
    torch.testing.assert_close(gated(gates, step), z * weights)
    torch.testing.assert_close(gradient(gates, step, coefficients), wanted, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gates.expected_density(step), z.detach().mean(dim=1))


def test_gradients_are_those_of_finite_differences(
    layout_of: Callable[..., Layout], gated: Callable[..., Tensor]
) -> None:
    layout = layout_of([4, 3, 2])
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, layout.size, dtype=torch.float64, generator=generator)
    gates = gates_on(weights, layout, strength=0.0, end=0.25)
    with torch.no_grad():
        gates.parameter.add_(torch.randn(weights.shape, generator=generator))
    assert torch.autograd.gradcheck(lambda _: gated(gates, 1), (gates.parameter,))


def test_an_annealed_gate_is_its_hardened_self(
    layout_of: Callable[..., Layout], gated: Callable[..., Tensor]
) -> None:
    layout = layout_of([4, 3])
    gates = gates_on(torch.ones(1, 12), layout, strength=1.0, end=1e-6)
    with torch.no_grad():
        gates.parameter.copy_(torch.linspace(-1, 1, 12)[None])
    assert torch.equal(gated(gates, 2) > 0.5, gates.harden())
    assert gates.undecided().tolist() == [0.0]
    assert torch.isfinite(gated(gates, 2)).all()


def test_a_gate_is_undecided_between_1_and_99_percent_at_the_last_temperature(
    layout_of: Callable[..., Layout],
) -> None:
    gates = gates_on(torch.ones(1, 6), layout_of([3, 2]), strength=0.0, end=0.5)
    with torch.no_grad():
        gates.parameter.copy_(torch.tensor([[-2.4, -2.2, 0.0, 0.1, 2.2, 2.4]]))
    assert gates.harden().tolist() == [[False, False, False, True, True, True]]
    assert gates.undecided().tolist() == [4 / 6]
