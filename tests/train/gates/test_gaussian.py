from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from ticketsweep.train.gates.gaussian import (
    GaussianGates,
    GaussianSettings,
    expected_density,
    penalty,
    relaxed_gate,
)
from ticketsweep.train.gates.kernels.noise import normals
from ticketsweep.train.pack import Layout

SETTINGS = GaussianSettings(
    l0_strength=3.0,
    l0_warmup=0.0,
    temperature=0.7,
    temperature_end=0.5,
    temperature_schedule="linear",
    init=0.5,
)
LAST = 1  # the second of two steps, at `temperature_end`


def layout_of(widths: list[int]) -> Layout:
    shapes = tuple((fan_out, fan_in) for fan_in, fan_out in itertools.pairwise(widths))
    names = tuple(f"{at}.weight" for at in range(len(shapes)))
    return Layout(names, shapes, tuple(rows * columns for rows, columns in shapes))


def gates_of(
    widths: list[int], seeds: list[int], *, spread: float = 1.0, at: float = 0.5
) -> GaussianGates:
    """Gates of random weights and mu; `at` is the temperature of their last step."""
    layout = layout_of(widths)
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(len(seeds), layout.size, generator=generator)
    settings = dataclasses.replace(SETTINGS, temperature_end=at)
    gates = GaussianGates(settings, weights, layout, seeds, steps=2)
    with torch.no_grad():
        gates.parameter.add_(torch.randn(weights.shape, generator=generator) * spread)
    return gates


@settings(max_examples=25, deadline=None)
@given(
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=4),
    seeds=st.lists(st.integers(0, 2**53 - 1), min_size=1, max_size=4),
    temperature=st.floats(0.05, 2.0),
)
def test_the_fused_step_equals_the_plain_formula(
    widths: list[int], seeds: list[int], temperature: float
) -> None:
    gates, layout = gates_of(widths, seeds, at=temperature), layout_of(widths)
    coefficients = torch.randn(len(seeds), layout.size, generator=torch.Generator().manual_seed(1))
    noise = temperature * normals(torch.tensor(seeds), step=LAST, size=layout.size)
    mu = gates.parameter.detach().clone().requires_grad_()
    weights = torch.randn(mu.shape, generator=torch.Generator().manual_seed(5))
    gated = relaxed_gate(mu, noise) * weights
    objective = (gated.square() * coefficients).sum()
    objective += penalty(
        mu, l0_strength=SETTINGS.l0_strength, temperature=SETTINGS.temperature
    ).sum()
    (wanted,) = torch.autograd.grad(objective, mu)

    layers = gates.sample(LAST)
    torch.testing.assert_close(torch.cat([x.flatten(1) for x in layers], dim=1), gated)
    loss = sum(
        (layer.square() * part).sum()
        for layer, part in zip(layers, layout.split(coefficients), strict=True)
    )
    assert isinstance(loss, Tensor)
    torch.autograd.grad(loss, gates.parameter)
    assert gates.parameter.grad is not None
    torch.testing.assert_close(gates.parameter.grad, wanted, rtol=1e-4, atol=1e-6)


def test_every_step_has_its_own_gradient() -> None:
    """The buffers are reused: nothing of one step may be left in the next."""
    gates = gates_of([4, 3], [1, 2])
    gradients = []
    for scale in (1.0, 100.0, 1.0):
        torch.autograd.grad(sum((x * scale).sum() for x in gates.sample(LAST)), gates.parameter)
        assert gates.parameter.grad is not None
        gradients.append(gates.parameter.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[2], rtol=0, atol=0)
    assert (gradients[0] != gradients[1]).any()


def test_a_replicate_draws_the_same_noise_whatever_its_pack() -> None:
    alone, packed = gates_of([20, 7], [11]), gates_of([20, 7], [5, 11, 6])
    with torch.no_grad():
        packed.parameter[1] = alone.parameter[0]
        packed._weights[1] = alone._weights[0]
    for _ in range(3):
        torch.testing.assert_close(
            alone.sample(LAST)[0][0], packed.sample(LAST)[0][1], rtol=0, atol=0
        )


def test_replicates_draw_independent_fresh_noise() -> None:
    gates = gates_of([300, 100], [1, 2], spread=0.0, at=0.1)
    gates._weights.fill_(1.0)
    gates._schedules.temperatures[0] = 0.1
    first, second = (gates.sample(step)[0].detach().clone() for step in range(2))
    samples = np.stack([x.flatten().numpy() for x in (*first, *second)])
    off_diagonal = np.corrcoef(samples)[np.triu_indices(4, 1)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(samples.shape[1])
    assert stats.kstest((samples[0] - 0.5) / 0.1, "norm").pvalue > 1e-3


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
def test_expected_density_is_the_share_of_open_gates(temperature: float) -> None:
    mu = torch.linspace(-2, 2, 41, dtype=torch.float64)
    noise = torch.randn(20_000, 41, generator=torch.Generator().manual_seed(0)).double()
    sampled = float((relaxed_gate(mu, noise * temperature) > 0).double().mean())
    assert float(expected_density(mu, temperature=temperature)) == pytest.approx(sampled, abs=3e-3)
    assert expected_density(mu, temperature=temperature).item() == pytest.approx(
        stats.norm.cdf(mu.numpy() / temperature).mean()
    )


def test_the_penalty_does_not_depend_on_the_number_of_gates() -> None:
    few, many = torch.full((2, 10), 0.3), torch.full((2, 1000), 0.3)
    args = {"l0_strength": 2.0, "temperature": 0.5}
    torch.testing.assert_close(penalty(few, **args), penalty(many, **args))


def test_the_penalty_keeps_the_first_temperature_and_follows_its_warm_up() -> None:
    layout = layout_of([4, 3])
    settings = dataclasses.replace(SETTINGS, l0_warmup=0.5)
    gates = GaussianGates(settings, torch.zeros(1, 12), layout, [1], steps=8)
    density = 1 / (0.7 * np.sqrt(2 * np.pi)) * np.exp(-0.5 * (0.5 / 0.7) ** 2)
    for step, share in enumerate([0, 0.25, 0.5, 0.75, 1, 1, 1, 1]):
        torch.autograd.grad(sum(x.sum() for x in gates.sample(step)), gates.parameter)
        assert gates.parameter.grad is not None
        wanted = torch.full((1, 12), share * 3.0 / 12 * density)
        torch.testing.assert_close(gates.parameter.grad, wanted)


def test_hardening_keeps_gates_above_a_half_and_counts_the_undecided() -> None:
    gates = gates_of([2, 3], [1, 2])
    with torch.no_grad():
        gates.parameter.copy_(torch.tensor([[-1, 0, 0.2, 0.5, 0.51, 1.0], [2, 2, 2, 2, 2, 0.6]]))
    assert gates.harden().tolist() == [
        [False, False, False, False, True, True],
        [True, True, True, True, True, True],
    ]
    assert gates.undecided().tolist() == pytest.approx([3 / 6, 1 / 6])
