"""How many trials run at once: what the machines have, and what a trial is given of it."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

from ticketsweep.errors import ConfigError, Fault
from ticketsweep.space import SweepSpec


def check_resources(spec: SweepSpec) -> None:
    """Refuse what this machine can never give; a cluster may still grow."""
    wanted = spec.settings.resources
    have = {"cpus": float(local_cpus())}
    if wanted.gpus:
        import torch

        have["gpus"] = float(torch.cuda.device_count())
    faults = [
        Fault(
            f"sweep.resources.{kind}",
            getattr(wanted, kind),
            f"must be <= {limit:g}, what this machine has",
            "or name a larger cluster with --address",
        )
        for kind, limit in have.items()
        if getattr(wanted, kind) > limit
    ]
    if faults:
        raise ConfigError(spec.source, faults)


def local_cpus() -> int:
    """Processors that this process may use, at least 1."""
    cpus = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0)
    cpus = cpus or float(os.cpu_count() or 1)
    with contextlib.suppress(OSError, ValueError):  # no control group, or one without a limit
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cpus = min(cpus, int(quota) / int(period))
    return max(1, int(cpus))


def fitting(spec: SweepSpec, cpus: float, gpus: float) -> int:
    """How many trials so many CPUs and GPUs allow at once."""
    wanted = spec.settings.resources
    allowed = cpus / wanted.cpus
    if wanted.gpus:
        allowed = min(allowed, gpus / wanted.gpus)
    return math.floor(allowed + 1e-9)


def concurrency(spec: SweepSpec, cpus: float, gpus: float, *, grows: bool) -> int:
    """How many trials are given out at once.

    As many as were asked for. On this machine alone, no more than it can run; a cluster may grow,
    and its autoscaler starts machines only for trials that wait. Else what the resources allow.
    """
    asked = spec.settings.concurrency
    allowed = max(1, fitting(spec, cpus, gpus))
    if asked is None:
        return allowed
    return asked if grows else min(asked, allowed)
