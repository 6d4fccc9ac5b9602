"""What changes along the steps of training, and the steps that are logged."""

from __future__ import annotations

import math
from collections.abc import Callable


def _constant(start: float, _end: float, _progress: float) -> float:
    return start


def _linear(start: float, end: float, progress: float) -> float:
    return start + (end - start) * progress


def _exponential(start: float, end: float, progress: float) -> float:
    return start * math.pow(end / start, progress)


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


SCHEDULES: dict[str, Callable[[float, float, float], float]] = {
    "constant": _constant,
    "linear": _linear,
    "exponential": _exponential,
    "cosine": _cosine,
}

LEARNING_RATES = {name: SCHEDULES[name] for name in ("constant", "linear", "cosine")}


def temperatures(schedule: str, *, start: float, end: float, steps: int) -> list[float]:
    """Temperature of each step, from `start` at the first to `end` at the last (`constant`: not).

    `schedule` is a key of `SCHEDULES`; `exponential` needs both to be > 0.
    """
    at = SCHEDULES[schedule]
    return [at(start, end, step / max(1, steps - 1)) for step in range(steps)]


def learning_rates(schedule: str, *, lr: float, steps: int, warmup: float = 0.0) -> list[float]:
    """Learning rate of each step.

    It rises linearly over the first `warmup` share of the steps, to `lr` at the step that follows
    them. From there `constant` stays; `linear` and `cosine` fall towards 0, which they would reach
    after the last step.

    Parameters
    ----------
    schedule: a key of `LEARNING_RATES`.
    warmup: in [0, 1].
    """
    at, rise = LEARNING_RATES[schedule], round(warmup * steps)
    rising = [lr * (step + 1) / (rise + 1) for step in range(rise)]
    return rising + [at(lr, 0.0, step / (steps - rise)) for step in range(steps - rise)]


def log_steps(steps: int, points: int) -> list[int]:
    """About `points` step counts, evenly spaced, the last of them `steps`."""
    points = min(max(1, points), steps)
    return [round(steps * (at + 1) / points) for at in range(points)]
