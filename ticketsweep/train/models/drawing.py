"""torch's global generator, which is all that modules' constructors know to draw from."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

_LOCK = threading.RLock()  # a model may be built within


@contextlib.contextmanager
def global_generator() -> Iterator[torch.Generator]:
    """The global generator of the CPU, which is left as it was; one thread has it at a time."""
    with _LOCK, torch.random.fork_rng(devices=[]):
        yield torch.default_generator
