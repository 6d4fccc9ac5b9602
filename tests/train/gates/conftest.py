from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ticketsweep.train.gates.interface import Gates
from ticketsweep.train.pack import Layout

Flat = Callable[..., Tensor]


def flat(layers: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([layer.flatten(1) for layer in layers], dim=1)


@pytest.fixture
def layout_of() -> Callable[[list[int]], Layout]:
    """The layout of linear layers of these widths."""

    def build(widths: list[int]) -> Layout:
        shapes = tuple((fan_out, fan_in) for fan_in, fan_out in itertools.pairwise(widths))
        names = tuple(f"{at}.weight" for at in range(len(shapes)))
        return Layout(names, shapes, tuple(rows * columns for rows, columns in shapes))

    return build


@pytest.fixture
def gated() -> Flat:
    """Gated weights of a step as one tensor (R, G), differentiable."""

    def sample(gates: Gates, step: int) -> Tensor:
        return flat(gates.sample(step))

    return sample


@pytest.fixture
def gradient() -> Flat:
    """What a step leaves in `parameter.grad` for the loss `sum(coefficients * gated ** 2)`."""

    def differentiate(gates: Gates, step: int, coefficients: Tensor) -> Tensor:
        loss = (flat(gates.sample(step)).square() * coefficients).sum()
        torch.autograd.grad(loss, gates.parameter)
        assert gates.parameter.grad is not None
        return gates.parameter.grad.clone()

    return differentiate
