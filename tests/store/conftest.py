from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import MaskRow, TrialRows

LAYERS = (("fc1", (20, 31)), ("fc2", (10, 20)))
MakeTrial = Callable[..., TrialRows]


def make_trial(
    trial_id: str = "t0", *, status: str = "complete", seed: int = 0, replicates: int = 2
) -> TrialRows:
    """A small trial; `seed` changes every figure and mask of it."""
    rng = np.random.default_rng(seed)
    trial = {
        "trial_id": trial_id,
        "status": status,
        "steps_done": 10,
        "model": "lenet-300-100",
        "l0_strength": 0.5 + seed,
        "val_accuracy": float(rng.random()),
        "metrics": {"seed": float(seed)},
        "started_at": datetime(2026, 1, 1, 12, 0, seed % 60, tzinfo=UTC),
    }
    if status == "failed":
        return TrialRows({**trial, "error": "it diverged"})
    masks = [
        MaskRow.from_array(
            rng.random(shape) < 0.3, replicate=replicate, step=10, layer=layer, layer_index=index
        )
        for replicate in range(replicates)
        for index, (layer, shape) in enumerate(LAYERS)
    ]
    own = [
        {"replicate": r, "init_seed": seed, "val_accuracy": 0.5, "metrics": {"r": 1.0}}
        for r in range(replicates)
    ]
    curves = [
        {"replicate": r, "step": step, "loss": float(seed)}
        for r in range(replicates)
        for step in (0, 5)
    ]
    return TrialRows(trial, own, masks, curves)


@pytest.fixture(name="make_trial", scope="session")
def _make_trial() -> MakeTrial:
    return make_trial


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.open(str(tmp_path / "storage"), create=True)


@pytest.fixture
def database(storage: Storage) -> Database:
    return Database(storage)


class Read(NamedTuple):
    path: str
    start: int
    stop: int


class _Stream(io.RawIOBase):
    def __init__(self, inner: pa.NativeFile, path: str, reads: list[Read]) -> None:
        self._inner, self._path, self._reads = inner, path, reads

    def read(self, size: int = -1) -> bytes:
        start = self._inner.tell()
        content: bytes = self._inner.read(None if size < 0 else size)
        self._reads.append(Read(self._path, start, start + len(content)))
        return content

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()

    def size(self) -> int:
        return self._inner.size()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


class Counting(pafs.FileSystemHandler):
    """A file system that notes what is read of each file, and passes everything on to `inner`."""

    def __init__(self) -> None:
        super().__init__()
        self.inner: pafs.FileSystem = pafs.LocalFileSystem()
        self.reads: list[Read] = []

    def get_type_name(self) -> str:
        return "counting"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths):
        return self.inner.get_file_info(paths)

    def get_file_info_selector(self, selector):
        return self.inner.get_file_info(selector)

    def open_input_file(self, path):
        stream = _Stream(self.inner.open_input_file(path), path, self.reads)
        return pa.PythonFile(stream, mode="r")

    def open_input_stream(self, path):
        return self.open_input_file(path)

    def create_dir(self, path, recursive):
        self.inner.create_dir(path, recursive=recursive)

    def delete_dir(self, path):
        self.inner.delete_dir(path)

    def delete_dir_contents(self, path, missing_dir_ok=False):
        self.inner.delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self):
        raise NotImplementedError

    def delete_file(self, path):
        self.inner.delete_file(path)

    def move(self, src, dest):
        self.inner.move(src, dest)

    def copy_file(self, src, dest):
        self.inner.copy_file(src, dest)

    def open_output_stream(self, path, metadata):
        return self.inner.open_output_stream(path, metadata=metadata)

    def open_append_stream(self, path, metadata):
        return self.inner.open_append_stream(path, metadata=metadata)


@pytest.fixture
def counting() -> Counting:
    return Counting()
