from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from ticketsweep.train.gates.kernels import choose, kernels_for
from ticketsweep.train.gates.kernels.plain import PlainKernels

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize(("widths", "seeds"), [([784, 300, 10], [1, 2**52 + 1]), ([1, 1], [0])])
def test_the_fused_step_on_a_device_equals_the_plain_one_on_the_cpu(
    widths: list[int], seeds: list[int], case_of: Callable[..., object]
) -> None:
    case = case_of(widths, seeds)
    wanted = case.results(PlainKernels(case.layout, seeds, torch.device("cpu")))
    tensors = ("values", "weights", "gradients", "scale")
    there = replace(case, **{name: getattr(case, name).cuda() for name in tensors})
    kernels = kernels_for(case.layout, seeds, torch.device("cuda"))
    for name, value in there.results(kernels).items():
        torch.testing.assert_close(value.cpu(), wanted[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_device_has_kernels_of_its_own() -> None:
    assert choose("cuda").name == "triton"
