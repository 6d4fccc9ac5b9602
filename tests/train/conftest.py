from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from ticketsweep.train.data import Dataset


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> Path:
    default = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("TICKETSWEEP_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set TICKETSWEEP_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def blobs() -> Dataset:
    """Four classes of noisy 6x6 images in two channels: learnt in a hundred steps."""
    generator = np.random.default_rng(0)
    centres = generator.integers(40, 216, size=(4, 2, 6, 6))

    def split(n: int) -> tuple[np.ndarray, np.ndarray]:
        labels = generator.integers(0, 4, size=n)
        noise = generator.normal(0, 40, size=(n, 2, 6, 6))
        images = np.clip(centres[labels] + noise, 0, 255).astype(np.uint8)
        return images, labels.astype(np.int64)

    train, test = split(400), split(100)
    return Dataset("blobs", *train, *test, classes=4, digest="")
