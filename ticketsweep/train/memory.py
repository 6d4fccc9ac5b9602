"""How much memory a process may still take, and whether an error says that there was none left."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ticketsweep.train.pack import PackedModel, Weights

_GROUP = Path("/sys/fs/cgroup")
# (limit, usage) of a container: version 2 of control groups, and version 1
_LIMITS = (("memory.max", "memory.current"),
           ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))  # fmt: skip


# Numbers a gate while gates are learnt: W_k, the gates' parameter, their sample (whose memory the
# gradient takes), the optimizer's two, the gradient by the gated weights, one more that some
# families keep, and the hardened network that is evaluated meanwhile.
_PER_GATE = 8
_PER_WEIGHT = 6  # more, where weights are trained along; and of every parameter that has no gate
_FLOAT = 4  # bytes
_EVALUATING = 3  # the largest of a network's layers so often: its input, its output and its images


@dataclass(frozen=True)
class Demand:
    """Bytes that a replicate takes while its gates are learnt, and those of a pack of any size."""

    each: int
    fixed: int


def available_memory(device: torch.device) -> int | None:
    """Bytes that a trial on this device may take; None where that cannot be told.

    On the CPU it is a share of what the machine, or the container, has left: as large as the
    trial's share of the cores, since as many trials may run beside it.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    left = [value for value in (_of_machine(), *_of_containers()) if value is not None]
    if not left:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return round(min(left) * min(1.0, torch.get_num_threads() / (cores or 1)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _of_machine() -> int | None:
    """Linux's own estimate; elsewhere, half of what there is."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def _of_containers() -> list[int]:
    left = []
    for limit, usage in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such group, or "max"
            left.append(int((_GROUP / limit).read_text()) - int((_GROUP / usage).read_text()))
    return left


def measured_demand(
    packed: PackedModel,
    weights: Weights,
    images: Tensor,
    *,
    gates: int,
    joint: bool,
    evaluated: int,
) -> Demand:
    """What learning takes, from one forward pass of one replicate: what is kept for the gradient.

    Parameters
    ----------
    weights: of one replicate.
    images: a training batch, float32 (B, C, H, W).
    gates: of a replicate.
    joint: whether weights are trained along.
    evaluated: images that evaluation takes at once.
    """
    own = {weights.gated.untyped_storage().data_ptr(), weights.rest.untyped_storage().data_ptr()}
    kept: dict[int, int] = {}

    def remember(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    trained = Weights(weights.gated.requires_grad_(), weights.rest.requires_grad_())
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        packed(packed.split(trained), images.unsqueeze(0))
    weights.gated.requires_grad_(False)
    weights.rest.requires_grad_(False)
    frozen, rest = weights.gated.shape[1], weights.rest.shape[1]
    numbers = gates * _PER_GATE + rest * _PER_WEIGHT + (frozen * _PER_WEIGHT if joint else 0)
    if gates < frozen:  # units: each parameter is multiplied by what its gates come to
        numbers += 3 * frozen
    largest = max(kept.values(), default=0) // len(images)
    return Demand(
        each=numbers * _FLOAT + sum(kept.values()) + images.nbytes,
        fixed=_EVALUATING * evaluated * max(largest, images[0].nbytes),
    )
