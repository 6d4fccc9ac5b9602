from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from ticketsweep.train.gates.edge_popup import EdgePopupGates, initial_scores
from ticketsweep.train.pack import Layout

QUICK = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def gates_on(
    weights: Tensor, layout: Layout, scores: Tensor, *, density: float, ranked_by: str = "absolute"
) -> EdgePopupGates:
    return EdgePopupGates(
        weights, layout, scores, density=density, ranked_by=ranked_by, rounds=(0,)
    )


def best_of(scores: list[float], density: float) -> list[bool]:
    """By sorting places: the highest first, of equals the first."""
    k = max(1, round(density * len(scores)))
    best = sorted(range(len(scores)), key=lambda at: (-scores[at], at))[:k]
    return [at in best for at in range(len(scores))]


@QUICK
@given(
    replicates=st.integers(1, 3),
    density=st.floats(0.01, 1.0),
    ranked_by=st.sampled_from(["absolute", "signed"]),
    distinct=st.sampled_from([2, 5, 1000]),
    seed=st.integers(0, 99),
)
def test_each_layer_of_each_replicate_keeps_exactly_its_highest_scores(
    replicates: int, density: float, ranked_by: str, distinct: int, seed: int,
    layout_of: Callable[..., Layout],
) -> None:  # fmt: skip
    layout = layout_of([5, 4, 3])
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-distinct, distinct, (replicates, layout.size), generator=generator)
    gates = gates_on(
        torch.ones(scores.shape), layout, scores.float(), density=density, ranked_by=ranked_by
    )
    ranked = scores.abs() if ranked_by == "absolute" else scores
    kept = torch.split(gates.harden(), list(layout.sizes), dim=1)
    for layer, values in zip(kept, torch.split(ranked, list(layout.sizes), dim=1), strict=True):
        assert layer.tolist() == [best_of(row, density) for row in values.tolist()]


@pytest.mark.parametrize("ranked_by", ["absolute", "signed"])
def test_the_gradient_goes_straight_through_the_choice(
    ranked_by: str, layout_of: Callable[..., Layout], gated: Callable[..., Tensor],
    gradient: Callable[..., Tensor],
) -> None:  # fmt: skip
    layout = layout_of([6, 5, 3])
    generator = torch.Generator().manual_seed(0)
    weights, coefficients, start = (
        torch.randn(2, layout.size, generator=generator) for _ in range(3)
    )
    gates = gates_on(weights, layout, start, density=0.3, ranked_by=ranked_by)
    scores = start.clone().requires_grad_()
    ranked = scores.abs() if ranked_by == "absolute" else scores
    z = (gates.harden().float() - ranked).detach() + ranked
    objective = ((z * weights).square() * coefficients).sum()
    (wanted,) = torch.autograd.grad(objective, scores)
    torch.testing.assert_close(gated(gates, 0), weights * gates.harden())
    torch.testing.assert_close(gradient(gates, 0, coefficients), wanted, rtol=1e-4, atol=1e-6)


def test_scores_start_as_torchs_own_layers_do(layout_of: Callable[..., Layout]) -> None:
    layout = layout_of([100, 60, 30])
    first, second = initial_scores(layout, [1, 2])
    assert not torch.equal(first, second)
    assert torch.equal(initial_scores(layout, [2])[0], second)
    for layer, shape in zip(layout.split(first[None]), layout.shapes, strict=True):
        bound = 1 / math.sqrt(shape[1])
        uniform = stats.uniform(-bound, 2 * bound)
        assert stats.kstest(layer.flatten().numpy(), uniform.cdf).pvalue > 1e-3


def test_adding_a_layer_moves_no_other_scores(layout_of: Callable[..., Layout]) -> None:
    short, long = (initial_scores(layout_of(widths), [3]) for widths in ([8, 5], [8, 5, 4]))
    assert torch.equal(short[0], long[0, :40])


def test_no_gate_is_undecided_and_the_density_is_the_given_one(
    layout_of: Callable[..., Layout],
) -> None:
    layout = layout_of([20, 10, 5])
    gates = gates_on(torch.ones(2, 250), layout, initial_scores(layout, [1, 2]), density=0.1)
    assert gates.undecided().tolist() == [0.0, 0.0]
    assert gates.expected_density(0).tolist() == pytest.approx([0.1, 0.1])
