from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from ticketsweep.train.gates.kernels import Kernels
from ticketsweep.train.pack import Layout


@dataclass
class Case:
    """Random gates (R, G), and what each of the six functions of kernels makes of them."""

    layout: Layout
    seeds: list[int]
    values: Tensor
    weights: Tensor
    gradients: Tensor
    scale: Tensor

    def results(self, kernels: Kernels, *, step: int = 3) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        layers = self.layout.split(self.gradients)
        first, second = torch.empty_like(self.values), torch.empty_like(self.values)
        both = self.values, self.weights
        kernels.gaussian(*both, first, step=step, sigma=0.4)
        found["gaussian"] = first.clone()
        kernels.gaussian_gradient(layers, *both, first, sigma=0.7, scale=self.scale)
        found["gaussian gradient"] = first.clone()
        kernels.hard_concrete(*both, second, first, step=step, beta=0.6, limits=(-0.1, 1.1))
        found["hard concrete s"], found["hard concrete"] = second.clone(), first.clone()
        kernels.hard_concrete_gradient(
            layers, *both, second, first, slope=2.0, shift=-1.4, least=-16.0, scale=self.scale
        )
        found["hard concrete gradient"] = first.clone()
        kernels.sigmoid(*both, second, first, temperature=0.3, least=-16.0)
        found["sigmoid z"], found["sigmoid"] = second.clone(), first.clone()
        kernels.sigmoid_gradient(
            layers, self.weights, second, first, temperature=0.3, scale=self.scale
        )
        found["sigmoid gradient"] = first.clone()
        return found


def make_case(widths: list[int], seeds: list[int]) -> Case:
    shapes = tuple((fan_out, fan_in) for fan_in, fan_out in itertools.pairwise(widths))
    names = tuple(str(at) for at in range(len(shapes)))
    layout = Layout(names, shapes, tuple(a * b for a, b in shapes))
    generator = torch.Generator().manual_seed(1)
    size = (len(seeds), layout.size)
    values, weights, gradients = (torch.randn(size, generator=generator) for _ in range(3))
    scale = torch.rand(len(seeds), generator=generator)
    return Case(layout, seeds, values + 0.5, weights, gradients, scale)


@pytest.fixture
def case_of() -> object:
    return make_case
