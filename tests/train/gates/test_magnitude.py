from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from ticketsweep.train.gates.magnitude import MagnitudeGates, MagnitudeSettings, survivors
from ticketsweep.train.optimizers import OPTIMIZERS
from ticketsweep.train.pack import Layout

WIDTHS = [6, 5, 3]
BATCH = 7


def pruned_plainly(
    rewound: Tensor, layout: Layout, images: Tensor, labels: Tensor, *, rounds: int, steps: int,
    share: float, scope: str,
) -> tuple[list[float], list[bool]]:  # fmt: skip
    """Iterative magnitude pruning of one replicate by torch.optim; last weights, and the mask."""
    kept = [True] * layout.size
    trained = rewound.clone()
    bounds = [round_ * steps // rounds for round_ in range(rounds + 1)]
    groups = [range(layout.size)]
    if scope == "layer":
        groups = [range(layout.sizes[0]), range(layout.sizes[0], layout.size)]
    for first, last in itertools.pairwise(bounds):
        trained = rewound.clone().requires_grad_()
        optimizer = torch.optim.Adam([trained], lr=0.05)
        for step in range(first, last):
            optimizer.zero_grad()
            one, two = layout.split((trained * torch.tensor(kept))[None])
            logits = functional.relu(images[step] @ one[0].T) @ two[0].T
            functional.cross_entropy(logits, labels[step]).backward()
            optimizer.step()
        size = trained.detach().abs().tolist()
        for group in groups:
            left = sorted((at for at in group if kept[at]), key=lambda at: size[at])
            for at in left[: min(round(share * len(left)), len(left) - 1)]:
                kept[at] = False
    return trained.detach().tolist(), kept


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize(("rounds", "steps"), [(1, 5), (3, 11), (4, 3)])
def test_a_pack_is_pruned_as_each_replicate_alone(
    rounds: int, steps: int, scope: str, layout_of: Callable[..., Layout]
) -> None:
    layout = layout_of(WIDTHS)
    generator = torch.Generator().manual_seed(rounds)
    weights = torch.randn(3, layout.size, generator=generator)
    images = torch.randn(steps, 3, BATCH, WIDTHS[0], generator=generator)
    labels = torch.randint(WIDTHS[-1], (steps, 3, BATCH), generator=generator)
    how = MagnitudeSettings(rounds=rounds, share=0.3, scope=scope)
    gates = MagnitudeGates(how, weights, layout, steps=steps)
    for step in range(steps):
        if step in gates.rounds:
            update = OPTIMIZERS["adam"](gates.parameter)
        one, two = gates.sample(step)
        logits = torch.bmm(
            functional.relu(torch.bmm(images[step], one.transpose(1, 2))), two.transpose(1, 2)
        )
        loss = functional.cross_entropy(
            logits.flatten(0, 1), labels[step].flatten(), reduction="sum"
        )
        torch.autograd.grad(loss / BATCH, gates.parameter)
        update(0.05)
    for replicate, row in enumerate(weights):
        trained, kept = pruned_plainly(
            row, layout, images[:, replicate], labels[:, replicate],
            rounds=rounds, steps=steps, share=0.3, scope=scope,
        )  # fmt: skip
        assert gates.harden()[replicate].tolist() == kept
        torch.testing.assert_close(
            gates.parameter[replicate].detach(), torch.tensor(trained), rtol=1e-4, atol=1e-5
        )


@given(count=st.integers(1, 10**6), share=st.floats(0.001, 0.999))
def test_a_round_prunes_its_share_and_never_the_last_weight(count: int, share: float) -> None:
    left = survivors(count, share=share)
    assert 1 <= left <= count
    assert left == 1 or abs(count - left - share * count) <= 0.5 + 1e-9


def test_the_density_is_what_the_rounds_leave(layout_of: Callable[..., Layout]) -> None:
    layout = layout_of([40, 30, 10])
    weights = torch.randn(2, layout.size)
    gates = MagnitudeGates(MagnitudeSettings(5, 0.2, "layer"), weights, layout, steps=5)
    for step in range(5):
        gates.sample(step)
        assert gates.expected_density(step).tolist() == pytest.approx([0.8**step] * 2, abs=2e-3)
    for layer in layout.split(gates.harden()):
        share = layer.flatten(1).double().mean(dim=1)
        assert share.tolist() == pytest.approx([0.8**5] * 2, abs=5e-3)
    assert gates.undecided().tolist() == [0.0, 0.0]


def test_layers_that_differ_in_scale_are_pruned_alike_only_layer_by_layer(
    layout_of: Callable[..., Layout],
) -> None:
    layout = layout_of([10, 10, 10])
    weights = torch.cat([torch.rand(1, 100) + 1, torch.rand(1, 100)], dim=1)
    for scope, shares in (("global", [1.0, 0.0]), ("layer", [0.5, 0.5])):
        gates = MagnitudeGates(MagnitudeSettings(1, 0.5, scope), weights, layout, steps=1)
        gates.sample(0)
        kept = [float(layer.double().mean()) for layer in layout.split(gates.harden())]
        assert kept == shares
