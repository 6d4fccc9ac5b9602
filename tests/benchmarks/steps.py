"""What gates cost: a gated step against an ordinary training step, and packs against runs in turn.

    uv run python -m tests.benchmarks.steps      where the time of a step goes

Both sides have the same batch, so data is left out; ours is the step of the training loop itself.
"""

from __future__ import annotations

import functools
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from tests.benchmarks.cases import Case
from ticketsweep.seeds import Replicate
from ticketsweep.train.gates import FAMILIES
from ticketsweep.train.gates.interface import Family
from ticketsweep.train.gates.kernels import kernels_for
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
    *, family: Family = GAUSSIAN, precision: str = "float32",
) -> Step:  # fmt: skip
    """The loop's own step of a pack, on images (R, B, C, H, W) and labels (R, B)."""
    model = build()
    names = prunable(model)
    gated = Layout.of(model, names)
    rest = Layout.of(model, [n for n, _ in model.named_parameters() if n not in set(names)])
    weights = initial_weights(
        build, gated, rest, weight_init="kaiming_normal", weight_scale=1.0,
        seeds=[r.init_seed for r in replicates], device=images.device,
    )  # fmt: skip
    packed = PackedModel(model.to(images.device), gated, rest, precision=precision)
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


def step_cases() -> Iterator[Case]:
    """A gated step of one replicate on one thread."""
    torch.set_num_threads(1)
    lenet = model_of("lenet-300-100", (1, 28, 28))
    yield _against_ordinary("LeNet-300-100, batch 128", "<= 1.6", lenet, 128, (1, 28, 28))
    small = model_of("resnet18", (3, 32, 32))
    yield _against_ordinary("ResNet-18, small stem, batch 64", "<= 1.03", small, 64, (3, 32, 32))
    yield _against_ordinary(
        "ResNet-18, torchvision's stem, batch 64", "<= 1.5",
        functools.partial(torchvision.models.resnet18, num_classes=10), 64, (3, 32, 32),
    )  # fmt: skip
    images, labels = batch(1, 128, (1, 28, 28))
    for how, which, target in (
        ("sort", "an edge-popup step that sorts, as its paper's code", "<= 0.2"),
        ("kth", "the same by the k-th value", "none"),
    ):
        yield _case(
            "gated step, LeNet-300-100, batch 128", which, target,
            gated_step(lenet, replicates_of(1), images, labels),
            edge_popup_step(lenet, images[0], labels[0], how),
        )  # fmt: skip


def pack_cases() -> Iterator[Case]:
    """A step of a pack against a step of each of its replicates in turn, on one thread."""
    torch.set_num_threads(1)
    for name, replicates, size, shape, target in (
        ("fc-32", 16, 64, (1, 8, 8), "<= 1/5 = 0.2"),
        ("fc-100-50", 16, 64, (1, 8, 8), "<= 1/3 = 0.333"),
        ("lenet-300-100", 8, 128, (1, 28, 28), "<= 1"),
        ("resnet-20", 4, 32, (3, 32, 32), "<= 1"),
    ):
        images, labels = batch(replicates, size, shape)
        yield _case(
            f"a step of {replicates} replicates in a pack, {name}, batch {size}",
            f"{replicates} steps, one replicate each", target,
            *packed_and_in_turn(model_of(name, shape), images, labels),
        )  # fmt: skip


def packed_and_in_turn(
    build: Callable[[], nn.Module], images: Tensor, labels: Tensor
) -> tuple[Step, Step]:
    """A step of all replicates in a pack, and one of each after the other."""
    plan = replicates_of(len(images))
    alone = [
        gated_step(build, [each], images[at : at + 1], labels[at : at + 1])
        for at, each in enumerate(plan)
    ]

    def one_after_the_other() -> None:
        for step in alone:
            step()

    return gated_step(build, plan, images, labels), one_after_the_other


def _against_ordinary(
    what: str, target: str, build: Callable[[], nn.Module], size: int, shape: Shape
) -> Case:
    images, labels = batch(1, size, shape)
    return _case(
        f"gated step, {what}", "an ordinary step, the same optimizer", target,
        gated_step(build, replicates_of(1), images, labels),
        ordinary_step(build, images[0], labels[0]),
    )  # fmt: skip


def _case(what: str, against: str, target: str, ours: Step, other: Step) -> Case:
    return Case(what, against, target, lambda: seconds(ours), lambda: seconds(other))


def memory_ratio(name: str, shape: Shape, size: int, replicates: int) -> tuple[float, float]:
    """Bytes a replicate that learning in a pack takes, and those of what must be there.

    That is the weights, the gates, their gradient, Adam's two averages and the activations. The
    growth of the process's peak is that from a pack of two replicates to one of `replicates`.
    """
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-m", "tests.benchmarks.steps", "peak", name, *map(str, shape),
                 str(size), str(count)],
                capture_output=True, text=True, check=True,
            ).stdout
        )
        for count in (2, replicates)
    ]  # fmt: skip
    build = model_of(name, shape)
    model = build()
    kept: dict[int, int] = {}

    def remember(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    images, _ = batch(1, size, shape)
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        model(images[0])
    activations = sum(held for at, held in kept.items() if at not in own)
    numbers = sum(parameter.numel() for parameter in model.parameters())
    return (peaks[1] - peaks[0]) / (replicates - 2), 5 * 4 * numbers + activations


def peak(name: str, shape: Shape, size: int, replicates: int) -> int:
    """Bytes of this process's largest resident memory after a few steps of a pack."""
    torch.set_num_threads(1)
    images, labels = batch(replicates, size, shape)
    step = gated_step(model_of(name, shape), replicates_of(replicates), images, labels)
    for _ in range(3):
        step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def profile() -> None:
    """Print where the time of a gated step of LeNet-300-100 goes, in shares of an ordinary one."""
    torch.set_num_threads(1)
    build, (images, labels) = model_of("lenet-300-100", (1, 28, 28)), batch(1, 128, (1, 28, 28))
    step = gated_step(build, replicates_of(1), images, labels)
    ordinary = ordinary_step(build, images[0], labels[0])
    layout = Layout.of(build(), prunable(build()))
    weights, mu, gradients = (torch.randn(1, layout.size) for _ in range(3))
    gated, scale = torch.empty_like(mu), torch.ones(1)
    kernels = kernels_for(layout, [1], torch.device("cpu"))
    parts: dict[str, Step] = {
        "ordinary step": ordinary,
        "gated step": step,
        "noise, gate and product": lambda: kernels.gaussian(mu, weights, gated, step=0, sigma=0.5),
        "gradient of loss and penalty": lambda: kernels.gaussian_gradient(
            layout.split(gradients), mu, weights, gated, sigma=0.5, scale=scale
        ),
        "copy of as many numbers": lambda: gated.copy_(weights),
    }
    for _ in range(20):
        for part in parts.values():
            part()
    times = {name: [] for name in parts}
    for _ in range(7):
        for name, part in parts.items():
            times[name].append(seconds(part, least=0.1))
    for name, values in times.items():
        print(f"{statistics.median(values) * 1e3:7.3f} ms  {name}")


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


if __name__ == "__main__":
    if sys.argv[1:2] == ["peak"]:
        numbers = [int(argument) for argument in sys.argv[3:]]
        print(peak(sys.argv[2], (numbers[0], numbers[1], numbers[2]), numbers[3], numbers[4]))
    else:
        profile()
