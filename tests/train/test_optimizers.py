from __future__ import annotations

import pytest
import torch

from ticketsweep.train.optimizers import OPTIMIZERS, SGD_MOMENTUM


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_an_optimizer_equals_torchs_own(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(3, 1000, generator=generator)
    theirs = ours.clone().requires_grad_()
    ours.grad = torch.empty_like(ours)
    step = OPTIMIZERS[name](ours)
    reference: torch.optim.Optimizer = (
        torch.optim.Adam([theirs], fused=True)
        if name == "adam"
        else torch.optim.SGD([theirs], momentum=SGD_MOMENTUM, fused=True)
    )
    for at in range(20):
        gradient = torch.randn(ours.shape, generator=generator)
        ours.grad.copy_(gradient)
        theirs.grad = gradient
        reference.param_groups[0]["lr"] = 0.1 / (at + 1)
        reference.step()
        step(0.1 / (at + 1))
    torch.testing.assert_close(ours, theirs.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_an_optimizer_wants_its_gradient_in_place(name: str) -> None:
    with pytest.raises(ValueError, match="buffer that stays in place"):
        OPTIMIZERS[name](torch.zeros(3))
