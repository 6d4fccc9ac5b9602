from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import special
from torch import Tensor

from ticketsweep.train.gates.hard_concrete import (
    GAMMA,
    ZETA,
    HardConcreteGates,
    HardConcreteSettings,
    expected_density,
    relaxed_gate,
)
from ticketsweep.train.gates.kernels.noise import uniforms
from ticketsweep.train.gates.kernels.plain import PlainKernels
from ticketsweep.train.pack import Layout

QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def gates_on(
    weights: Tensor, layout: Layout, seeds: list[int], *, strength: float, at: float
) -> HardConcreteGates:
    """Gates of two steps; `at` is the temperature of the last."""
    how = HardConcreteSettings(strength, 0.0, 0.6, at, "linear", 0.0)
    return HardConcreteGates(how, weights, layout, seeds, steps=2)


@QUICK
@given(
    seeds=st.lists(st.integers(0, 2**53 - 1), min_size=1, max_size=3),
    temperature=st.floats(0.1, 2.0),
)
def test_the_step_in_place_equals_the_plain_formula(
    seeds: list[int], temperature: float, layout_of: Callable[..., Layout],
    gated: Callable[..., Tensor], gradient: Callable[..., Tensor],
) -> None:  # fmt: skip
    layout = layout_of([6, 5, 3])
    generator = torch.Generator().manual_seed(5)
    shape = len(seeds), layout.size
    weights, coefficients, offset = (torch.randn(shape, generator=generator) for _ in range(3))
    fused = gates_on(weights, layout, seeds, strength=3.0, at=temperature)
    with torch.no_grad():
        fused.parameter.add_(offset)
    log_alpha = offset.clone().requires_grad_()
    noise = uniforms(torch.tensor(seeds), step=1, size=layout.size)
    plain = relaxed_gate(log_alpha, noise, temperature=temperature) * weights
    penalty = 3.0 * torch.sigmoid(log_alpha - 0.6 * torch.log(torch.tensor(-GAMMA / ZETA)))
    objective = (plain.square() * coefficients).sum() + penalty.mean(dim=1).sum()
    (wanted,) = torch.autograd.grad(objective, log_alpha)

    torch.testing.assert_close(gated(fused, 1), plain)
    again = gates_on(weights, layout, seeds, strength=3.0, at=temperature)
    with torch.no_grad():
        again.parameter.add_(offset)
    torch.testing.assert_close(gradient(again, 1, coefficients), wanted, rtol=1e-4, atol=1e-6)


def test_gradients_are_those_of_finite_differences(
    layout_of: Callable[..., Layout], gated: Callable[..., Tensor], gradient: Callable[..., Tensor]
) -> None:
    layout, seeds = layout_of([4, 3, 2]), [1, 2]
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(2, layout.size, dtype=torch.float64, generator=generator)
    gates = gates_on(weights, layout, seeds, strength=0.0, at=0.5)
    gates._kernels = PlainKernels(layout, seeds, weights.device)  # the others know float32 alone
    with torch.no_grad():
        gates.parameter.add_(torch.randn(weights.shape, generator=generator))
    found = gradient(gates, 1, torch.tensor(1.0))
    values, step = gates.parameter.detach(), 1e-6
    around = []
    for sign in (1, -1):
        values += sign * step
        around.append(gated(gates, 1).detach().square())
        values -= sign * step
    torch.testing.assert_close(found, (around[0] - around[1]) / (2 * step), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("temperature", [0.1, 2 / 3, 2.0])
def test_expected_density_is_the_share_of_open_gates(temperature: float) -> None:
    log_alpha = torch.linspace(-4, 4, 41, dtype=torch.float64)
    noise = torch.rand(20_000, 41, generator=torch.Generator().manual_seed(0)).double()
    gates = relaxed_gate(log_alpha, noise.clamp(min=1e-12), temperature=temperature)
    closed_form = expected_density(log_alpha, temperature=temperature)
    assert float(closed_form) == pytest.approx(float((gates > 0).double().mean()), abs=3e-3)
    shifted = log_alpha.numpy() - temperature * special.logit(-GAMMA / (ZETA - GAMMA))
    assert float(closed_form) == pytest.approx(special.expit(shifted).mean())


@pytest.mark.parametrize("temperature", [0.1, 2 / 3])
def test_hardening_is_the_majority_of_samples_at_any_temperature(temperature: float) -> None:
    log_alpha = torch.tensor([-1.0, -0.1, 0.1, 1.0])
    noise = torch.rand(20_000, 4, generator=torch.Generator().manual_seed(0)).clamp(min=1e-6)
    share = (relaxed_gate(log_alpha, noise, temperature=temperature) > 0.5).double().mean(dim=0)
    torch.testing.assert_close(share, torch.sigmoid(log_alpha.double()), rtol=0, atol=0.015)


def test_a_gate_is_decided_where_it_is_clipped_without_noise(
    layout_of: Callable[..., Layout],
) -> None:
    gates = gates_on(torch.ones(1, 6), layout_of([3, 2]), [1], strength=0.0, at=0.5)
    values = torch.tensor([[-9.0, -2.39, 0.0, 0.01, 2.39, 2.41]])
    with torch.no_grad():
        gates.parameter.copy_(values)
    assert gates.harden().tolist() == [[False, False, False, True, True, True]]
    plain = torch.clamp(torch.sigmoid(values) * (ZETA - GAMMA) + GAMMA, 0, 1)
    undecided = ((plain > 0) & (plain < 1)).double().mean(dim=1)
    assert gates.undecided().tolist() == undecided.tolist() == [4 / 6]
