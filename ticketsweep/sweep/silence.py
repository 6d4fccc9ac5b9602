"""Which trials have not been heard of for long: told first, and for too long in the end."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

TOLD_AFTER = 60.0  # seconds; and again after twice as many, and so on
_LONGEST_ROUND = 1.0  # seconds; more were not spent listening: the driver slept or was held up


@dataclass(frozen=True)
class Silent:
    """A trial that has not been heard of for `seconds`.

    Attributes
    ----------
    key: of the trial.
    too_long: its worker is to be given up; otherwise it is only worth being told.
    """

    key: str
    seconds: float
    too_long: bool


class Silence:
    """How long each trial that has a worker has been silent, in time that was spent listening."""

    def __init__(self) -> None:
        self._clock, self._last_round = 0.0, time.monotonic()
        self._heard: dict[str, float] = {}
        self._limits: Mapping[str, float] = {}
        self._told: dict[str, float] = {}

    def heard(self, key: str) -> bool:
        """The trial has told something. Returns whether its silence had been told."""
        self._heard[key] = self._clock
        return self._told.pop(key, None) is not None

    def of(self, limits: Mapping[str, float]) -> list[Silent]:
        """Those trials whose silence is to be told or ended, each once.

        Must be called in every round of listening.

        Parameters
        ----------
        limits: the trials that are to be heard of, each with the seconds after which its silence
            is too long. One whose limit has changed, or that was not among them, begins anew.
        """
        now = time.monotonic()
        self._clock += min(now - self._last_round, _LONGEST_ROUND)
        self._last_round = now
        known = {key for key, limit in limits.items() if self._limits.get(key) == limit}
        self._told = {key: at for key, at in self._told.items() if key in known}
        self._heard = {
            key: self._heard.get(key, self._clock) if key in known else self._clock
            for key in limits
        }
        self._limits = dict(limits)
        found = []
        for key, limit in limits.items():
            silent = self._clock - self._heard[key]
            if silent > limit:
                self.heard(key)
                found.append(Silent(key, silent, too_long=True))
            elif silent >= self._told.get(key, TOLD_AFTER / 2) * 2:
                self._told[key] = silent
                found.append(Silent(key, silent, too_long=False))
        return found
