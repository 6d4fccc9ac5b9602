"""Where a trial stands: what it tells while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Progress:
    """Where a trial stands at a logged step of learning its gates.

    Means over the replicates that have not diverged; accuracies are fractions.

    Attributes
    ----------
    replicates: the same figures, and more, of each of them, by its index in the trial.
    """

    step: int
    steps: int
    loss: float
    val_accuracy: float
    expected_density: float
    replicates: Mapping[int, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Alive:
    """A sign of life between two logged steps.

    Attributes
    ----------
    waiting: why the storage has to be waited for; empty where some more steps have been done.
    step, steps: so many of its steps the stage has done; 0 of 0 where it says nothing of them.
    stage: which, as in `StageProgress`; empty while gates are learnt.
    """

    waiting: str = ""
    step: int = 0
    steps: int = 0
    stage: str = ""


UNDER_WAY = "under_way"
"""A metric of a stopped trial that nobody has stopped: it goes on, or was cut off after a rung."""


@dataclass(frozen=True)
class Rung:
    """The ticket so far is stored; whoever listens may stop the trial here.

    Attributes
    ----------
    row: the trial's row of the `trials` table.
    """

    row: Mapping[str, Any]


ALIVE_SECONDS = 10.0
"""So long at most a stage that takes steps says nothing."""


@dataclass(frozen=True)
class StageProgress:
    """Where a trial stands in a stage that trains weights alone: `step` of its `steps` are done."""

    stage: str
    step: int
    steps: int
