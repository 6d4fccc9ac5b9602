"""What this machine has for a sweep: processors, memory, room, data, and the storage."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import ticketsweep
from ticketsweep.cli.findings import Finding
from ticketsweep.errors import MissingStorage

_LITTLE = 2**30  # bytes of free room below which a sweep may not come to its end
_NONE = 2**25
_OBJECT_STORE = 2**28  # what Ray's object store takes beside the data
_DAY = 86_400
_IDX = tuple(
    f"{split}-{kind}-ubyte"
    for split in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
)
# Where torchvision keeps each data set, unpacked, and the archives that stand for all of it. It is
# written down here since torchvision takes seconds to import.
_FILES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "MNIST": ("MNIST/raw", _IDX, tuple(f"MNIST/raw/{name}.gz" for name in _IDX)),
    "FashionMNIST": (
        "FashionMNIST/raw",
        _IDX,
        tuple(f"FashionMNIST/raw/{name}.gz" for name in _IDX),
    ),
    "CIFAR10": (
        "cifar-10-batches-py",
        (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch", "batches.meta"),
        ("cifar-10-python.tar.gz",),
    ),
    "CIFAR100": ("cifar-100-python", ("train", "test", "meta"), ("cifar-100-python.tar.gz",)),
}


def processors() -> Finding:
    """How many may be used, and what limits them."""
    from ticketsweep.sweep.resources import local_cpus

    usable, there = local_cpus(), os.cpu_count() or 1
    told = f"{usable} of {there} may be used"
    threads = os.environ.get("OMP_NUM_THREADS")
    told += f", $OMP_NUM_THREADS is {threads}" if threads else ""
    if usable < there:
        return Finding("processors", "ok", f"{told} (affinity, or a container's limit)")
    return Finding("processors", "ok", told)


def memory() -> Finding:
    """What a trial may take."""
    import torch

    from ticketsweep.train.memory import available_memory

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    free = available_memory(device)
    if free is None:
        return Finding("memory", "note", "free memory cannot be told", "set pack: N if it is short")
    told = f"{free / 2**30:.1f} GiB that a trial on {device} may take"
    if free < _LITTLE:
        return Finding(
            "memory", "note", told, "end what else runs, or let fewer trials run at once"
        )
    return Finding("memory", "ok", told)


def room(storage: str) -> Finding:
    """Free bytes where the storage, Ray's files and its object store lie."""
    places = {tempfile.gettempdir(): Path(tempfile.gettempdir())}
    if "://" not in storage:
        places = {"storage": _existing(Path(storage).expanduser().absolute()), **places}
    shared = Path("/dev/shm")
    if shared.is_dir():
        places[str(shared)] = shared
    free = {name: shutil.disk_usage(place).free for name, place in places.items()}
    told = ", ".join(f"{_shown(size)} in {name}" for name, size in free.items())
    full = [name for name, size in free.items() if size < _NONE and name != str(shared)]
    if full:
        remedy = "make room there, or name another storage, or another folder in $TMPDIR"
        return Finding("room", "fault", f"{told} are free", remedy)
    if free.get(str(shared), _OBJECT_STORE) < _OBJECT_STORE:
        remedy = "Ray keeps data on disk then, which is slower: docker run --shm-size=1g"
        return Finding("room", "note", f"{told} are free", remedy)
    if any(size < _LITTLE for name, size in free.items() if name != str(shared)):
        return Finding("room", "note", f"{told} are free", "a long sweep may fill it")
    return Finding("room", "ok", f"{told} are free")


def _shown(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())


def clock() -> Finding:
    """Whether it goes before the day on which this code was written here."""
    now = time.time()
    told = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < Path(ticketsweep.__file__).stat().st_mtime - _DAY:
        remedy = "set it: trials are ordered by it, and certificates hold by it"
        return Finding(
            "clock", "note", f"{told}, which is before ticketsweep was installed", remedy
        )
    return Finding("clock", "ok", told)


def data() -> Finding:
    """Which data sets lie where torchvision looks, and whether all of their files do."""
    from ticketsweep.train.data import CACHE

    named = os.environ.get("TICKETSWEEP_DATA")
    root = Path(named or CACHE).expanduser()
    if named and not root.is_dir():
        return Finding(
            "data",
            "fault",
            f"$TICKETSWEEP_DATA names {named!r}, which is no folder",
            "correct it, or make the folder to have data downloaded into it",
        )
    missing = missing_files(root)
    complete = [name for name, lacking in missing.items() if not lacking]
    broken = {name: lacking for name, lacking in missing.items() if lacking}
    found = f"{', '.join(complete)} in {root}" if complete else f"nothing yet in {root}"
    if broken:
        told = "; ".join(f"{name} lacks {', '.join(files)}" for name, files in broken.items())
        return Finding("data", "note", f"{found}; {told}", "they are downloaded when it is used")
    return Finding("data", "ok", found, "" if complete else "downloaded when first used")


def missing_files(root: Path) -> dict[str, list[str]]:
    """The data sets of which there is anything under `root`: which files each lacks, none if whole.

    Archives stand for the files in them.
    """
    found = {}
    for name, (folder, files, archives) in _FILES.items():
        packed = all((root / path).exists() for path in archives)
        lacking = [] if packed else [each for each in files if not (root / folder / each).exists()]
        if packed or (root / folder).is_dir():
            found[name] = lacking
    return found


def storage(place: str) -> Finding:
    """Whether the storage can be read and written, or made."""
    from ticketsweep.store.paths import Storage

    if "://" not in place and not Path(place).expanduser().exists():
        parent = _existing(Path(place).expanduser().absolute())
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
