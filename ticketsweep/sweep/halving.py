"""Stopping trials early: asynchronous successive halving (ASHA, Li et al. 2020).

Trials are compared at rungs, step counts each some times the last. At a rung, a trial that is not
among the best of those that have come there before it is stopped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ticketsweep.results.rows import Row, figure_of
from ticketsweep.sweep_settings import Asha

_FIRST_RUNG = 3  # rungs below the last step, where no first one is named


def rungs_of(asha: Asha, steps: int) -> list[int]:
    """The step counts at which a trial of so many steps is looked at; all below the last."""
    rung: int = asha.grace_steps or max(1, steps // asha.reduction_factor**_FIRST_RUNG)
    found = []
    while rung < steps:
        found.append(rung)
        rung *= asha.reduction_factor
    return found


class Halving:
    """Decides who goes on, from the figures that trials had at their rungs.

    Those of stored trials are known from their rows, so a sweep that is run again decides as it
    would have done.
    """

    def __init__(self, asha: Asha, stored: Iterable[Row]) -> None:
        self._asha = asha
        self._sign = -1.0 if asha.metric == "val_accuracy" else 1.0
        self._rungs: dict[int, dict[str, float]] = {}
        start = f"{asha.metric}_at_step_"
        for row in stored:
            for name, value in dict(row.get("metrics") or {}).items():
                if name.startswith(start):
                    self._note(str(row["trial_id"]), int(name.removeprefix(start)), value)

    def stops(self, row: Row) -> bool:
        """Whether a trial, by its row at a rung, is not among the best 1 in `reduction_factor`.

        The first one at a rung always goes on.
        """
        trial_id, step = str(row["trial_id"]), int(row["steps_done"])
        others = [v for other, v in self._rungs.get(step, {}).items() if other != trial_id]
        value = self._note(trial_id, step, figure_of(row, f"{self._asha.metric}_at_step_{step}"))
        if not others:
            return False
        if math.isinf(value):
            return min(others) < math.inf
        with np.errstate(invalid="ignore"):  # between two that have diverged it is NaN
            worst = float(np.percentile(others, 100 / self._asha.reduction_factor))
        return value > worst

    def _note(self, trial_id: str, step: int, value: float | None) -> float:
        cost = math.inf if value is None or not math.isfinite(value) else self._sign * value
        self._rungs.setdefault(step, {})[trial_id] = cost
        return cost
