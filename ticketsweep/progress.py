"""Where a trial stands: what it tells while it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a trial stands at a logged step of learning its gates.

    Means over the replicates that have not diverged; accuracies are fractions.
    """

    step: int
    steps: int
    loss: float
    val_accuracy: float
    expected_density: float


@dataclass(frozen=True)
class StageProgress:
    """Where a trial stands in a stage that trains weights alone: `step` of its `steps` are done."""

    stage: str
    step: int
    steps: int
