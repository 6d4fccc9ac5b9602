"""`ticketsweep doctor`: what this machine has for a sweep, and what is wrong with it."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import typer

from ticketsweep.cli.options import FormatOption, ResultFormat, StorageOption
from ticketsweep.errors import MissingStorage, TicketsweepError

_FAULTS = 1  # exit code


@dataclass(frozen=True)
class Finding:
    """What was found of one thing: `note` is worth knowing, `fault` keeps something from working.

    `remedy` is empty where there is nothing to do.
    """

    what: str
    state: Literal["ok", "note", "fault"]
    found: str
    remedy: str = ""


def doctor(storage: StorageOption = None, output: FormatOption = ResultFormat.TABLE) -> None:
    """Look at this machine: versions, device, what computes gates and overlaps, data, storage.

    Exit code 0: nothing is in the way of a sweep; 1: something is, and stands there with its
    remedy.
    """
    from ticketsweep.display.records import document
    from ticketsweep.display.terminal import Column, emit, show, stdout_console, table

    findings = list(examine(storage))
    if output is ResultFormat.JSON:
        emit(document({"findings": [asdict(finding) for finding in findings]}))
    else:
        words = [
            f"{each.found} ({each.remedy})" if each.remedy else each.found for each in findings
        ]
        parts = table(
            [
                Column("", [each.state for each in findings], right=False),
                Column("what", [each.what for each in findings], right=False),
                Column("found", words, right=False, wrap=True),
            ]
        )
        show(stdout_console(), parts)
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(_FAULTS)


def examine(storage: str | None) -> Iterator[Finding]:
    """Every finding, of a storage by its URI or of the default one."""
    yield Finding("python", "ok", f"{platform.python_version()}, {platform.platform(terse=True)}")
    for check in (_torch, _torchvision, _gates, _overlaps, _memory, _ray, _tracking, _data):
        yield _guarded(check.__name__.strip("_"), check)
    yield _guarded("storage", lambda: _storage(storage))


def _guarded(what: str, check: Callable[[], Finding]) -> Finding:
    """A finding, also where looking for it ends in an error: a broken installation may do that."""
    try:
        return check()
    except TicketsweepError as error:
        return Finding(what, "fault", str(error))
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        return Finding(
            what, "fault", f"{type(error).__name__}: {reason[0]}", "install ticketsweep afresh"
        )


def _torch() -> Finding:
    import torch

    version = f"torch {torch.__version__}"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]
        return Finding("torch", "ok", f"{version}, CUDA: {', '.join(names)}")
    threads = torch.get_num_threads()
    where = f"{version}, no CUDA device, {threads} thread{'s' if threads > 1 else ''}"
    if Path("/proc/driver/nvidia").exists():
        remedy = "the driver is older than torch's CUDA: update it, or install another torch"
        return Finding("torch", "note", where, remedy)
    return Finding("torch", "ok", where)


def _torchvision() -> Finding:
    module = importlib.import_module("torchvision")
    return Finding("torchvision", "ok", f"torchvision {module.__version__}")


def _gates() -> Finding:
    import torch

    from ticketsweep.train.gates.kernels import choose

    device = "cuda" if torch.cuda.is_available() else "cpu"
    choice = choose(device)
    if choice.why:
        return Finding("gates", "note", f"{choice.name} on {device}: {choice.why}")
    return Finding("gates", "ok", f"compiled for {device} by {choice.name}")


def _overlaps() -> Finding:
    from ticketsweep.analysis.pairs import pair_counter

    return Finding("overlaps", "ok", f"pairs of masks are counted by {pair_counter()}")


def _memory() -> Finding:
    import torch

    from ticketsweep.train.memory import available_memory

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    free = available_memory(device)
    if free is None:
        return Finding("memory", "note", "free memory cannot be told", "set pack: N if it is short")
    return Finding("memory", "ok", f"{free / 2**30:.1f} GiB that a trial on {device} may take")


def _ray() -> Finding:
    version = f"ray {importlib.metadata.version('ray')}"
    if address := os.environ.get("RAY_ADDRESS"):
        return Finding(
            "ray",
            "note",
            f"{version}, $RAY_ADDRESS is {address}",
            "`run` starts a Ray of its own unless told --address",
        )
    return Finding("ray", "ok", version)


def _tracking() -> Finding:
    from ticketsweep.sweep.tracking import default_mode

    version = f"wandb {importlib.metadata.version('wandb')}"
    if default_mode() == "online":
        return Finding("tracking", "ok", f"{version}, online")
    remedy = "`wandb login` for online runs"
    return Finding("tracking", "ok", f"{version}, offline", remedy)


def _data() -> Finding:
    from ticketsweep.train.torchvision_data import CACHE

    named = os.environ.get("TICKETSWEEP_DATA")
    root = Path(named or CACHE).expanduser()
    if named and not root.is_dir():
        return Finding(
            "data",
            "fault",
            f"$TICKETSWEEP_DATA names {named!r}, which is no folder",
            "correct it, or make the folder to have data downloaded into it",
        )
    known = ("MNIST", "FashionMNIST", "cifar-10-batches-py", "cifar-100-python")
    there = [name for name in known if (root / name).exists()]
    found = f"{', '.join(there)} in {root}" if there else f"nothing yet in {root}"
    return Finding("data", "ok", found, "" if there else "downloaded when first used")


def _storage(uri: str | None) -> Finding:
    from ticketsweep.store.paths import Storage, default_storage

    place = uri or default_storage()
    if "://" not in place and not Path(place).expanduser().exists():
        parent = next(p for p in Path(place).expanduser().absolute().parents if p.exists())
        if parent.is_dir() and os.access(parent, os.W_OK):
            return Finding("storage", "ok", f"{place} is made by the first sweep")
        return Finding(
            "storage",
            "fault",
            f"{place} cannot be made: {parent} is no folder to write to",
            "name another by --storage or $TICKETSWEEP_STORAGE",
        )
    try:
        Storage.open(place, create=False)
    except MissingStorage:
        return Finding("storage", "ok", f"{place} is made by the first sweep")
    opened = Storage.open(place, create=True)  # which tries to write
    return Finding("storage", "ok", f"{opened.uri} can be read and written")
