"""A GPU whose context is lost is told apart from a trial that fails; needs CUDA."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

MODEL = """
import torch
from torch import nn

class Asserts(nn.Linear):
    def forward(self, images):
        if images.is_cuda and len(images) > 2:
            torch.zeros(1, device="cuda")[torch.tensor([7], device="cuda")]
        return super().forward(images.flatten(1))

def asserts(input_shape, classes):
    return Asserts(input_shape[1] * input_shape[2], classes)
"""
TRIAL = """
import sys
import torch
from ticketsweep.config import TrialConfig
from ticketsweep.errors import DeviceLost
from ticketsweep.store.paths import Storage
from ticketsweep.planning import load_data
from ticketsweep.trial import run_trial

storage = Storage.open(sys.argv[1], create=True)
for model in ("asserting:asserts", "fc-16"):
    config = TrialConfig.model_validate(
        {"model": model, "weight_scale": 1.5, "train": {"steps": 20, "batch_size": 64}}
    )
    trial = run_trial(config, dataset=load_data(config), storage=storage, sweep="s")
    try:
        while True:
            next(trial)
    except StopIteration as end:
        print(model, "ended:", end.value.row["error"])
    except DeviceLost as error:
        print(model, "lost:", error)
"""
SHARE = """
import torch
from ticketsweep.train.memory import available_memory, is_out_of_memory

free, total = torch.cuda.mem_get_info()
torch.cuda.set_per_process_memory_fraction(0.25)
available = available_memory(torch.device("cuda"))
assert abs(available - total / 4) < total / 100, (available, total)
held = torch.empty(total // 8, dtype=torch.uint8, device="cuda")
assert available_memory(torch.device("cuda")) < total / 7
try:
    torch.empty(total // 4, dtype=torch.uint8, device="cuda")
except RuntimeError as error:
    assert is_out_of_memory(error)
    print("kept to its share")
"""


def output(code: str, folder: Path) -> list[str]:
    """Of a process of its own, since what it does to its device lasts."""
    environment = os.environ | {"PYTHONPATH": f"{folder}:{Path.cwd()}"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "storage")],
        env=environment, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_after_a_device_side_assert_no_trial_of_the_process_can_run(tmp_path: Path) -> None:
    (tmp_path / "asserting.py").write_text(MODEL)
    first, second = output(TRIAL, tmp_path)
    assert first.startswith("asserting:asserts lost: the GPU's context is lost: ")
    assert second.startswith("fc-16 lost: ")
    assert not list((tmp_path / "storage" / "trials").rglob("*.parquet"))


def test_a_process_with_a_share_of_a_gpu_keeps_to_it(tmp_path: Path) -> None:
    assert output(SHARE, tmp_path) == ["kept to its share"]
