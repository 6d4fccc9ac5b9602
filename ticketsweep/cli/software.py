"""What is installed here, whether it fits together, and whether it works."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from ticketsweep.cli.findings import Finding

_OURS = "ticketsweep"
_SECONDS_ONLINE = 5.0
_DRIVER = Path("/proc/driver/nvidia")
_MOST_NAMED = 3  # packages that do not fit
_INSTALL = "`uv sync` in the clone, or `pip install -e .`, installs what fits"


def python() -> Finding:
    """The interpreter, and whether this version of it is meant."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    found = f"{version}, {platform.platform(terse=True)}"
    wanted = importlib.metadata.metadata(_OURS)["Requires-Python"] or ""
    if not SpecifierSet(wanted).contains(version, prereleases=True):
        return Finding(
            "python", "fault", f"{found}; ticketsweep wants {wanted}", "take another Python"
        )
    return Finding("python", "ok", found)


def packages() -> Finding:
    """Whether every package that is needed is there, in a version that the others take."""
    seen: set[str] = set()
    faults = list(_misfits(_OURS, seen))
    if not faults:
        return Finding("packages", "ok", f"{len(seen) - 1} packages, which fit together")
    told = "; ".join(faults[:_MOST_NAMED])
    if len(faults) > _MOST_NAMED:
        told += f"; and {len(faults) - _MOST_NAMED} more"
    return Finding("packages", "fault", told, _INSTALL)


def _misfits(name: str, seen: set[str]) -> Iterator[str]:
    """What a package needs, and what that needs, and is not there as it is needed."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    seen.add(canonicalize_name(name))
    for line in importlib.metadata.requires(name) or ():
        wanted = Requirement(line)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            yield f"{name} needs {wanted.name}, which is not installed"
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            yield f"{name} needs {wanted.name} {wanted.specifier}, installed is {version}"
        if canonicalize_name(wanted.name) not in seen:
            yield from _misfits(wanted.name, seen)


def torch() -> Finding:
    """PyTorch, and what it sees of GPUs."""
    import torch

    version = f"torch {torch.__version__}"
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
        told = [f"{each.name} with {each.total_memory / 2**30:.0f} GiB" for each in devices]
        return Finding("torch", "ok", f"{version}, CUDA: {', '.join(told)}")
    threads = torch.get_num_threads()
    where = f"{version}, no CUDA device, {threads} thread{'s' if threads > 1 else ''}"
    if not _DRIVER.exists():
        return Finding("torch", "ok", where)
    if torch.version.cuda is None:
        remedy = "there is a GPU, and this torch is built for CPUs: install one for CUDA"
    elif os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        remedy = "$CUDA_VISIBLE_DEVICES hides the GPUs: unset it"
    else:
        remedy = (
            f"the driver is older than CUDA {torch.version.cuda}, for which torch is built: "
            "update it, or install another torch"
        )
    return Finding("torch", "note", where, remedy)


def torchvision() -> Finding:
    """Whether its compiled part goes with this torch; all of it takes seconds to import."""
    import torch

    version = f"torchvision {importlib.metadata.version('torchvision')}"
    package = importlib.util.find_spec("torchvision")
    folder = Path(package.origin).parent if package and package.origin else Path()
    for library in sorted(folder.glob("_C*.so")):
        try:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
        except OSError as error:
            reason = str(error).splitlines()[0]
            return Finding(
                "torchvision", "fault", f"{version} does not go with this torch: {reason}", _INSTALL
            )
    return Finding("torchvision", "ok", version)


def gates() -> Finding:
    """What computes the gated step."""
    import torch

    from ticketsweep.train.gates.kernels import choose

    device = "cuda" if torch.cuda.is_available() else "cpu"
    choice = choose(device)
    if not choice.why:
        return Finding("gates", "ok", f"compiled for {device} by {choice.name}")
    remedy = ""
    if device == "cuda" and compiler() is None:
        remedy = "Triton needs a C compiler: install gcc, or name one in $CC"
    return Finding("gates", "note", f"{choice.name} on {device}: {choice.why}", remedy)


def compiler() -> str | None:
    """The C compiler that Triton would take."""
    named = os.environ.get("CC")
    found = (shutil.which(name) for name in ([named] if named else ["cc", "gcc", "clang"]))
    return next(filter(None, found), None)


def compilers() -> Finding:
    """What compiles on this machine. Only Triton, for CUDA, needs a compiler of the system's."""
    found = [f"numba {importlib.metadata.version('numba')}"]
    try:
        found.append(f"triton {importlib.metadata.version('triton')}")
    except importlib.metadata.PackageNotFoundError:
        found.append("no triton (for GPUs alone)")
    found.append(compiler() or "no C compiler (for GPUs alone)")
    return Finding("compilers", "ok", ", ".join(found))


def overlaps() -> Finding:
    """What counts pairs of masks."""
    from ticketsweep.analysis.pairs import pair_counter

    return Finding("overlaps", "ok", f"pairs of masks are counted by {pair_counter()}")


def ray() -> Finding:
    """Whether Ray can be imported."""
    importlib.import_module("ticketsweep.sweep")  # which sets Ray's environment
    version = f"ray {importlib.import_module('ray').__version__}"
    if address := os.environ.get("RAY_ADDRESS"):
        return Finding(
            "ray",
            "note",
            f"{version}, $RAY_ADDRESS is {address}",
            "`run` starts a Ray of its own unless told --address",
        )
    return Finding("ray", "ok", version)


def local_ray() -> Finding:
    """Start a local Ray as `run` does, and end it."""
    from ticketsweep.store.paths import Storage
    from ticketsweep.sweep.cluster import connect

    with tempfile.TemporaryDirectory() as folder:
        storage = Storage.open(folder, create=True)
        began = time.monotonic()
        with connect(None, cpus=1, shared_bytes=0, storage=storage, sweep="doctor"):
            started = time.monotonic() - began
        ended = time.monotonic() - began - started
    return Finding("local ray", "ok", f"starts in {started:.1f} s and ends in {ended:.1f} s")


def tracking() -> Finding:
    """W&B, and whether a key is configured, which is never shown."""
    from ticketsweep.sweep.tracking.login import default_mode, has_key

    version = f"wandb {importlib.metadata.version('wandb')}"
    mode = default_mode()
    key = "a key is configured" if has_key() else "no key is configured"
    told = f"{version}, {key}: runs are {'not tracked' if mode == 'off' else mode}"
    if mode == "online" and not has_key():
        return Finding("tracking", "fault", told, "`wandb login`, or unset $WANDB_MODE")
    remedy = "`wandb login` for online runs" if mode == "offline" and not has_key() else ""
    return Finding("tracking", "ok", told, remedy)


def server() -> Finding:
    """Whether W&B's server answers, which is asked nothing but that."""
    address = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").rstrip("/")
    began = time.monotonic()
    try:
        with urllib.request.urlopen(f"{address}/healthz", timeout=_SECONDS_ONLINE):
            pass
    except urllib.error.HTTPError:
        pass  # it is there
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        remedy = "look at the network and its proxy, or run with --wandb offline"
        return Finding("server", "note", f"{address} cannot be reached: {reason}", remedy)
    return Finding("server", "ok", f"{address} answers in {time.monotonic() - began:.1f} s")


def browser() -> Finding:
    """What draws the figures of a report; nothing else needs it."""
    from choreographer.browsers.chromium import Chromium  # plotly's; kaleido is slow to import

    path = Chromium.find_browser(skip_local=False)
    if path is not None and Path(path).is_file():
        return Finding("browser", "ok", str(path))
    return Finding("browser", "note", "none", "`report --figures` alone needs Chrome or Chromium")
