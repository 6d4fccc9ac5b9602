"""Which trials have not been heard of for too long."""

from __future__ import annotations

import time
from collections.abc import Collection

_LONGEST_ROUND = 1.0  # seconds; more were not spent listening: the driver slept or was held up


class Silence:
    """How long each running trial has been silent, in time that was spent listening."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._clock, self._last_round = 0.0, time.monotonic()
        self._heard: dict[str, float] = {}

    def heard(self, key: str) -> None:
        """The trial has told something."""
        self._heard[key] = self._clock

    def broken_by(self, running: Collection[str]) -> list[str]:
        """Those of the running trials that have been silent for too long, each told once.

        Must be called in every round of listening.
        """
        now = time.monotonic()
        self._clock += min(now - self._last_round, _LONGEST_ROUND)
        self._last_round = now
        # A trial that waits for its worker is not silent, and begins anew when it has one.
        self._heard = {key: self._heard.get(key, self._clock) for key in running}
        late = [key for key, at in self._heard.items() if self._clock - at > self.seconds]
        for key in late:
            self.heard(key)
        return late
