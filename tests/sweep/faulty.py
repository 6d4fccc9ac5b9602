"""Models that go wrong in a worker, most of them the first time only. See test_faults.py.

What happened is noted in a folder of the test's, a file for each process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

_lost: set[str] = set()  # as a CUDA context is: for all that this process does later


def _first_time(kind: str) -> bool:
    """Whether it has not happened yet; never in the driver."""
    folder = Path(os.environ["FAULTY_FOLDER"])
    if str(os.getpid()) == os.environ["FAULTY_DRIVER"]:
        return False
    (folder / f"{kind}-{os.getpid()}").touch()
    return len(list(folder.glob(f"{kind}-*"))) == 1


class _Faulty(nn.Module):
    def __init__(self, pixels: int, classes: int, fault: Callable[[], None]) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 16), nn.Linear(16, classes))
        self._fault = fault

    def forward(self, images: Tensor) -> Tensor:
        if len(images) > 2:  # in training; the model has been looked at before, on the CPU
            self._fault()
            if _lost:
                raise torch.AcceleratorError("CUDA error: device-side assert triggered")
        logits: Tensor = self.layers(images)
        return logits


def _model(fault: Callable[[], None], input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return _Faulty(input_shape[1] * input_shape[2], classes, fault)


def sound(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return _model(lambda: None, input_shape, classes)


def stops(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    def fault() -> None:
        if _first_time("stops"):
            os.kill(os.getpid(), signal.SIGSTOP)  # not even a thread of it goes on

    return _model(fault, input_shape, classes)


def loses_the_device(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    def fault() -> None:
        if _first_time("loses"):
            _lost.add("context")

    return _model(fault, input_shape, classes)


def exhausts(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    def fault() -> None:
        if str(os.getpid()) != os.environ["FAULTY_DRIVER"]:
            torch.empty(2**55)  # more than any machine has, however small the pack

    return _model(fault, input_shape, classes)
