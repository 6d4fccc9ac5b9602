"""What gates and packs cost on a CUDA device; needs no more than `train/` does.

    python -m tests.benchmarks.gpu              the table
    python -m tests.benchmarks.gpu profile      where the time of a pack's step goes

Times are of the whole step, the device awaited at its end; both sides have the same batch.
"""

from __future__ import annotations

import functools
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import torch
import torchvision
import triton
from torch import Tensor, nn

from tests.benchmarks.cases import Case
from tests.benchmarks.steps import (
    Shape,
    Step,
    batch,
    gated_step,
    model_of,
    packed_and_in_turn,
    replicates_of,
)
from ticketsweep.train.gates.kernels import kernels_for
from ticketsweep.train.models import prunable
from ticketsweep.train.pack import Layout, set_precision

CUDA = torch.device("cuda")


def seconds(step: Step, *, least: float = 0.3) -> float:
    """Median seconds of one of at least nine runs of a step, over at least so long."""
    times: list[float] = []
    while len(times) < 9 or sum(times) < least:
        torch.cuda.synchronize()
        began = time.perf_counter()
        step()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def cases() -> Iterator[Case]:
    yield from bandwidth_cases()
    yield from step_cases()
    yield from pack_cases()


def pack_cases() -> Iterator[Case]:
    """A step of a pack against a step of each of its replicates in turn."""
    for name, replicates, size, shape, precision, target in (
        ("lenet-300-100", 64, 128, (1, 28, 28), "float32", "<= 1/20 = 0.05"),
        ("lenet-300-100", 8, 128, (1, 28, 28), "float32", "none"),
        ("resnet-20", 16, 128, (3, 32, 32), "float32", "<= 1/4 = 0.25"),
        ("resnet-20", 16, 128, (3, 32, 32), "tf32", "<= 1/4 = 0.25"),
    ):
        set_precision(precision)
        images, labels = (each.to(CUDA) for each in batch(replicates, size, shape))
        yield _case(
            f"a step of {replicates} replicates in a pack, {name}, batch {size}, {precision}",
            f"{replicates} steps, one replicate each", target,
            *packed_and_in_turn(model_of(name, shape), images, labels),
        )  # fmt: skip


def step_cases() -> Iterator[Case]:
    """A gated step of one replicate in bfloat16 against an ordinary one."""
    for what, build, size in (
        ("ResNet-50, 224x224, batch 64, bf16", torchvision.models.resnet50, 64),
        ("ViT-B/16, 224x224, batch 64, bf16", torchvision.models.vit_b_16, 64),
    ):
        shape: Shape = (3, 224, 224)
        make = functools.partial(build, num_classes=10)
        images, labels = (each.to(CUDA) for each in batch(1, size, shape))
        yield _case(
            f"gated step, {what}", "an ordinary step, the same optimizer", "<= 1.15",
            gated_step(make, replicates_of(1), images, labels, precision="bf16"),
            ordinary_step(make, images[0], labels[0]),
        )  # fmt: skip


def ordinary_step(build: Callable[[], nn.Module], images: Tensor, labels: Tensor) -> Step:
    """A training step under autocast as anyone writes it, with torch's fused Adam."""
    model = build().to(CUDA)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()

    return step


def bandwidth_cases() -> Iterator[Case]:
    """The gates' kernels against a copy, each by the seconds that a gigabyte takes.

    Forward they read mu and weight and write the product, 12 bytes a gate; backward they read the
    gradient, mu, weight and product and write the gradient by mu, 20 bytes. A copy moves 8.
    """
    with torch.device("meta"):
        model = torchvision.models.vit_b_16()
    layout = Layout.of(model, prunable(model))
    mu, weights, gradient = (torch.randn((1, layout.size), device=CUDA) for _ in range(3))
    gated, scale = torch.empty_like(mu), torch.ones(1, device=CUDA)
    kernels = kernels_for(layout, [1], CUDA)
    layers = layout.split(gradient)
    gigabytes = layout.size / 1e9

    def per_gigabyte(step: Step, moved: int) -> Callable[[], float]:
        return lambda: seconds(step) / (gigabytes * moved)

    copy = per_gigabyte(lambda: gated.copy_(weights), 8)

    def forward() -> None:
        kernels.gaussian(mu, weights, gated, step=0, sigma=0.5)

    def backward() -> None:
        kernels.gaussian_gradient(layers, mu, weights, gated, sigma=0.5, scale=scale)

    for what, step, moved in (
        ("noise, gate and product", forward, 12),
        ("gradient of loss and penalty", backward, 20),
    ):
        yield Case(
            f"{what}, {layout.size:,} gates, a gigabyte moved", "a copy on the device, likewise",
            "<= 1/0.7 = 1.43", per_gigabyte(step, moved), copy,
        )  # fmt: skip


def profile() -> None:
    """Print the wall time of a step, and what of it the device is busy with, by kernel."""
    for name, replicates, size, shape in (
        ("lenet-300-100", 64, 128, (1, 28, 28)),
        ("lenet-300-100", 1, 128, (1, 28, 28)),
        ("resnet-20", 16, 128, (3, 32, 32)),
    ):
        images, labels = (each.to(CUDA) for each in batch(replicates, size, shape))
        set_precision("float32")
        step = gated_step(model_of(name, shape), replicates_of(replicates), images, labels)
        for _ in range(5):
            step()
        wall = seconds(step)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as traced:
            for _ in range(10):
                step()
            torch.cuda.synchronize()
        events = traced.key_averages()
        busy = sum(event.self_device_time_total for event in events) / 10
        count = sum(event.count for event in events) // 10
        print(f"\n{name}, R = {replicates}: {wall * 1e3:.2f} ms a step, the device busy for "
              f"{busy / 1e3:.2f} ms of it, {count} kernels")  # fmt: skip
        for event in sorted(events, key=lambda each: -each.self_device_time_total)[:8]:
            print(f"  {event.self_device_time_total / 1e4:7.3f} ms  {event.count // 10:4d}x  "
                  f"{event.key[:90]}")  # fmt: skip


def _case(what: str, against: str, target: str, ours: Step, other: Step) -> Case:
    return Case(what, against, target, lambda: seconds(ours), lambda: seconds(other))


def main() -> None:
    from tests.benchmarks.__main__ import HEAD, of_case

    print(f"{torch.cuda.get_device_name()}, Python {platform.python_version()}, torch "
          f"{torch.__version__}, triton {triton.__version__}\n\n{HEAD}")  # fmt: skip
    for case in cases():
        print(of_case(case, 7).row(), flush=True)


if __name__ == "__main__":
    profile() if sys.argv[1:] == ["profile"] else main()
