"""What changes along the steps of a penalised family: its temperature and its penalty's strength.

The strength follows a schedule, or is steered so that training ends at a given density: gates are
counted as hardening would keep them now, and the strength answers to how far their share is from a
reference, which falls to the target and stays there (`Steering`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from ticketsweep.train.schedules import temperatures

INTERVAL = 5  # steps from one count of the gates to the next
# The reference arrives while the learning rate is high and temperatures leave gates to decide:
# later (0.5, 0.6), sigmoid gates are frozen before they are as sparse as 0.02.
ARRIVAL = 0.4  # share of the steps
_POWER = 4  # of the fall: it ends so gently that the density has no lag left when it arrives
# Errors are measured in 2 % of the reference and compressed above: a small one that stays moves
# the strength soon, a large one does not wind it up.
_TOLERANCE = 0.02
_PROPORTIONAL = 1.0
# Of a whole training, and of one step: an optimizer answers some ten steps late, so that a short
# training would oscillate.
_INTEGRAL, _MOST = 30.0, 0.03
_REACH = 8.0  # the strength stays within sinh(8) = 1490 of 0


class PenalisedSettings(Protocol):
    """What the settings of every family have whose density follows from a penalty."""

    @property
    def l0_strength(self) -> float:
        """Of the penalty, per mean gate; >= 0."""

    @property
    def l0_warmup(self) -> float:
        """Share of the steps over which the penalty rises from 0; in [0, 1]."""

    @property
    def target_density(self) -> float | None:
        """Density that the strength is steered to, from `l0_strength`; None: it stays as given."""

    @property
    def temperature(self) -> float:
        """At the first step; > 0."""

    @property
    def temperature_end(self) -> float:
        """At the last step; > 0."""

    @property
    def temperature_schedule(self) -> str:
        """A key of `schedules.SCHEDULES`."""


class Schedules:
    """Temperature and strength of each step.

    Attributes
    ----------
    temperatures: of each step.

    Parameters
    ----------
    weights: of the pack, (R, G): what is steered has a row for each, and lies where they do.
    """

    def __init__(self, settings: PenalisedSettings, weights: Tensor, *, steps: int) -> None:
        self.temperatures = temperatures(
            settings.temperature_schedule,
            start=settings.temperature,
            end=settings.temperature_end,
            steps=steps,
        )
        self._strengths = penalty_strengths(
            settings.l0_strength, warmup=settings.l0_warmup, steps=steps
        )
        self._rise = penalty_strengths(1.0, warmup=settings.l0_warmup, steps=steps)
        self._ones = weights.new_ones(len(weights))
        self._steering = (
            None
            if settings.target_density is None
            else Steering(settings.target_density, settings.l0_strength, weights, steps=steps)
        )

    def steer(self, step: int, harden: Callable[[], Tensor]) -> None:
        """Answer to the gates that would be kept now; to be called once before each step."""
        if self._steering is not None and step and step % INTERVAL == 0:
            self._steering.update(step, harden())

    def strength(self, step: int) -> Tensor:
        """The penalty's at this step, (R,)."""
        if self._steering is None:
            return self._ones * self._strengths[step]
        return self._steering.strength[:, 0] * self._rise[step]

    def state(self) -> dict[str, Tensor]:
        """Copies of all that the next steps depend on; see `interface.Gates`."""
        return {} if self._steering is None else self._steering.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state()`, which may be among other tensors."""
        if self._steering is not None:
            self._steering.restore(state)


class Steering:
    """A strength for each replicate, steered by the density of its gates.

        reference(u) = target + (first - target) * max(0, 1 - u / 0.4)^4         u: share of steps
        error        = asinh(log(density / reference) / 0.02)
        strength     = sinh(asinh(l0_strength) + error + gain * sum of errors, one a step)
        gain         = min(30 / steps, 0.03)

    A proportional and an integral part, as in any industrial controller, on a scale that is linear
    around 0 and exponential beyond: the strengths that lead to densities of 0.5 and 0.02 differ by
    three orders of magnitude, and the former is below 0 where random gates alone keep less than
    half. The fall is that of gradual pruning (Zhu & Gupta 2017, with their power of 3), only to 4.

    Attributes
    ----------
    strength: float32 (R, 1).

    Parameters
    ----------
    target: density at the end, in (0, 1].
    start: the strength until gates are first counted, at step `INTERVAL`; >= 0.
    weights: of the pack, (R, G).
    """

    def __init__(self, target: float, start: float, weights: Tensor, *, steps: int) -> None:
        self._target = target
        self._arrival = ARRIVAL * steps
        self._gain = INTERVAL * min(_INTEGRAL / steps, _MOST)
        self._least = 0.5 / weights.shape[1]  # stands for no gate at all
        self._first = weights.new_full((len(weights), 1), target)
        self._integral = weights.new_full((len(weights), 1), math.asinh(start))
        self.strength = weights.new_full((len(weights), 1), start)

    def update(self, step: int, kept: Tensor) -> None:
        """Answer to the gates `kept` before this step, bool (R, G)."""
        density = kept.mean(dim=1, keepdim=True, dtype=self.strength.dtype).clamp_(self._least)
        if step == INTERVAL:
            # Not earlier: all gates start alike, which may be just where hardening divides them.
            torch.clamp(density, min=self._target, out=self._first)
        left = max(0.0, 1 - step / self._arrival) ** _POWER
        reference = self._target + (self._first - self._target) * left
        error = density.div_(reference).log_().div_(_TOLERANCE).asinh_()
        self._integral.add_(error, alpha=self._gain).clamp_(-_REACH, _REACH)
        position = torch.add(self._integral, error, alpha=_PROPORTIONAL)
        self.strength = position.clamp_(-_REACH, _REACH).sinh_()

    def state(self) -> dict[str, Tensor]:
        """See `Schedules.state`."""
        return {
            "steering.first": self._first.clone(),
            "steering.integral": self._integral.clone(),
            "steering.strength": self.strength.clone(),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """See `Schedules.restore`."""
        self._first.copy_(state["steering.first"])
        self._integral.copy_(state["steering.integral"])
        self.strength.copy_(state["steering.strength"])


def penalty_strengths(strength: float, *, warmup: float, steps: int) -> list[float]:
    """Strength of the penalty at each step: linear from 0 over the first `warmup` share of them."""
    rise = warmup * steps
    return [strength * min(1.0, step / rise) if rise else strength for step in range(steps)]
