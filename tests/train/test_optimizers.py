from __future__ import annotations

import pytest
import torch

from ticketsweep.train.optimizers import OPTIMIZERS, SGD_MOMENTUM, clip_rows_


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


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_an_optimizer_that_is_restored_goes_on_bit_for_bit(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    gradients = torch.randn(9, 3, 50, generator=generator)

    def trained(interrupted: int) -> torch.Tensor:
        parameter = torch.ones(3, 50)
        parameter.grad = torch.empty_like(parameter)
        step = OPTIMIZERS[name](parameter)
        for at, gradient in enumerate(gradients):
            if at == interrupted:
                state = step.state()
                parameter.grad.copy_(gradients[0])
                values = parameter.clone()
                step(5.0)  # moves neither the state nor what is restored from it
                parameter.copy_(values)
                step = OPTIMIZERS[name](parameter)
                step.restore(state)
            parameter.grad.copy_(gradient)
            step(0.1)
        return parameter

    assert all(torch.equal(trained(at), trained(-1)) for at in range(9))


@pytest.mark.parametrize("limit", [0.5, 5.0, 500.0])
def test_each_row_is_clipped_as_torch_clips_it_alone(limit: float) -> None:
    generator = torch.Generator().manual_seed(2)
    gradient = torch.randn(4, 40, generator=generator) * torch.tensor([[0.01], [1.0], [9.0], [0.0]])
    clipped = gradient.clone()
    clip_rows_([clipped], limit)
    for row, ours in zip(gradient, clipped, strict=True):
        alone = torch.zeros_like(row)
        alone.grad = row.clone()
        torch.nn.utils.clip_grad_norm_([alone], limit)
        torch.testing.assert_close(ours, alone.grad, rtol=1e-6, atol=0)
        assert float(ours.norm()) <= limit * (1 + 1e-6)


@pytest.mark.parametrize("lost", [float("nan"), float("inf")])
def test_a_row_without_a_norm_is_clipped_by_itself(lost: float) -> None:
    gradient = torch.full((3, 4), 2.0)
    gradient[1, 2] = lost
    clip_rows_([gradient], 1.0)
    torch.testing.assert_close(gradient[::2], torch.full((2, 4), 0.5))
    assert not torch.isfinite(gradient[1]).all()
