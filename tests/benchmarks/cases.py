"""What a comparison needs: two things that take turns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """Seconds of ours and of the other, each called once a turn."""

    what: str
    against: str
    target: str
    ours: Callable[[], float]
    other: Callable[[], float]
