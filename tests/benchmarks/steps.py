"""What gates cost: a gated step against an ordinary training step, and packs against runs in turn.

Both sides have the same batch, so data is left out; ours is the step of the training loop itself.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ticketsweep.seeds import Replicate
from ticketsweep.train.gates import FAMILIES
from ticketsweep.train.gates.interface import Family
from ticketsweep.train.learning import Diverged, GateLearning, WeightGating
from ticketsweep.train.loop import Optimisation
from ticketsweep.train.models import build_model, prunable
from ticketsweep.train.pack import Layout, PackedModel
from ticketsweep.train.weights import initial_weights

GAUSSIAN = FAMILIES["gaussian"](
    l0_strength=1.0, l0_warmup=0.0, temperature=1.0, temperature_end=0.05,
    temperature_schedule="exponential", init=0.5,
)  # fmt: skip

Shape = tuple[int, int, int]
Step = Callable[[], object]


def replicates_of(count: int) -> list[Replicate]:
    return [
        Replicate(index=r, init_seed=100 + r, data_seed=200 + r, gate_seed=300 + r)
        for r in range(count)
    ]


def gated_step(
    build: Callable[[], nn.Module], replicates: Sequence[Replicate], images: Tensor, labels: Tensor,
    *, family: Family = GAUSSIAN,
) -> Step:  # fmt: skip
    """The loop's own step of a pack, on images (R, B, C, H, W) and labels (R, B)."""
    import numpy as np

    model = build()
    names = prunable(model)
    gated = Layout.of(model, names)
    rest = Layout.of(model, [n for n, _ in model.named_parameters() if n not in set(names)])
    weights = initial_weights(
        build, gated, rest, weight_init="kaiming_normal", weight_scale=1.0,
        seeds=[r.init_seed for r in replicates], device=images.device,
    )  # fmt: skip
    packed = PackedModel(model.to(images.device), gated, rest)
    how = Optimisation(steps=10**6, batch_size=labels.shape[1], lr=0.01, lr_schedule="constant",
                       optimizer="adam")  # fmt: skip
    learning = GateLearning(
        packed=packed,
        gating=WeightGating(packed, multiplies=False),
        gates=family.gates(weights.gated, gated, replicates, steps=how.steps),
        start=weights, joint=False, how=how, weight_how=how, replicates=replicates,
        diverged=Diverged(np.zeros(len(replicates), dtype=np.int64)),
    )  # fmt: skip
    learning._new_round()
    return lambda: learning._step(images, labels, how.lr)


def ordinary_step(build: Callable[[], nn.Module], images: Tensor, labels: Tensor) -> Step:
    """A training step as anyone writes it, with torch's fused Adam."""
    model = build().to(images.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


class EdgePopup(torch.autograd.Function):
    """The subnet of Ramanujan et al.'s own code: scores sorted, straight through."""

    @staticmethod
    def forward(ctx: object, scores: Tensor, share: float, how: str) -> Tensor:
        shut = int((1 - share) * scores.numel())
        if how == "sort":
            out = scores.clone()
            _, order = scores.flatten().sort()
            flat = out.flatten()
            flat[order[:shut]] = 0
            flat[order[shut:]] = 1
            return out
        threshold = scores.flatten().kthvalue(shut).values
        return (scores > threshold).to(scores.dtype)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return gradient, None, None


def edge_popup_step(
    build: Callable[[], nn.Module], images: Tensor, labels: Tensor, how: str
) -> Step:
    """Edge-popup of one network, layer by layer, as its paper's code has it."""
    model = build()
    weights = {name: value.detach() for name, value in model.named_parameters()}
    scores = {
        name: torch.rand_like(value).requires_grad_() for name, value in weights.items()
        if value.dim() > 1
    }  # fmt: skip
    optimizer = torch.optim.Adam(scores.values(), lr=0.01, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        masked = dict(weights)
        for name, score in scores.items():
            masked[name] = weights[name] * EdgePopup.apply(score.abs(), 0.1, how)
        logits = torch.func.functional_call(model, masked, (images,))
        nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()

    return step


def seconds(step: Step, *, least: float = 0.3) -> float:
    """Median seconds of one of at least nine steps, over at least so long."""
    times: list[float] = []
    while len(times) < 9 or sum(times) < least:
        began = time.perf_counter()
        step()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def model_of(name: str, shape: Shape, classes: int = 10) -> Callable[[], nn.Module]:
    return functools.partial(build_model, name, input_shape=shape, classes=classes)


def batch(replicates: int, size: int, shape: Shape) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn((replicates, size, *shape), generator=generator)
    return images, torch.randint(0, 10, (replicates, size), generator=generator)
