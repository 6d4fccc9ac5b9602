"""How much memory a process may still take, and whether an error says that there was none left."""

from __future__ import annotations

import contextlib
import gc
import os
from pathlib import Path

import torch

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUP = Path("/proc/self/cgroup")
# (limit, usage, a page cache that gives way) in versions 2 and 1 of control groups
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
_NONE_LEFT = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def available_memory(device: torch.device) -> int | None:
    """Bytes that a trial on this device may take; None where that cannot be told.

    On the CPU it is a share of what the machine, or the container, has left: as large as the
    trial's share of the cores, since as many trials may run beside it.
    """
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()  # what an earlier trial of this process has left
        free, total = torch.cuda.mem_get_info(device)
        # Trials that share a device have a share of its memory each, free or not.
        share = torch.cuda.get_per_process_memory_fraction(device.index)  # refuses a bare "cuda"
        return min(free, round(total * share) - torch.cuda.memory_reserved(device))
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
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NONE_LEFT)


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
    """What each control group leaves that this process is in: a container's, a scheduler's."""
    folders = [_GROUPS, _GROUPS / "memory"]
    with contextlib.suppress(OSError):
        for line in _OWN_GROUP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers in ("", "memory"):
                root = _GROUPS / controllers
                own = root / path.lstrip("/")
                folders += [each for each in (own, *own.parents) if root in each.parents]
    left = []
    for folder in folders:
        for limit, usage, cache in _FILES:
            with contextlib.suppress(OSError, ValueError):  # no such group, or "max"
                most, used = (int((folder / name).read_text()) for name in (limit, usage))
                left.append(max(0, most - used + _statistic(folder / "memory.stat", cache)))
    return left


def _statistic(file: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            if line.startswith(f"{name} "):
                return int(line.split()[1])
    return 0
