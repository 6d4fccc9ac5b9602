"""The seam: what trackers are told, and what they have to offer."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ticketsweep.config import TrialConfig

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Trial:
    """A trial that has been taken up.

    Attributes
    ----------
    settings: its configuration under dotted names, as on the command line.
    tags: words to find it by.
    """

    trial_id: str
    settings: Mapping[str, Any]
    tags: tuple[str, ...]

    @classmethod
    def of(cls, trial_id: str, config: TrialConfig) -> Trial:
        """The record of a trial with this configuration."""
        settings = dict(_dotted(config.model_dump(mode="json")))
        tags = dict.fromkeys((config.model, config.dataset, config.gate.family))
        return cls(trial_id, settings, tuple(tags))


@dataclass(frozen=True)
class Layer:
    """How much of a layer a ticket keeps, replicate by replicate.

    Attributes
    ----------
    kept: shares in [0, 1] by replicate; without those that have diverged.
    """

    name: str
    size: int
    kept: Mapping[int, float]

    @property
    def mean(self) -> float:
        """Mean share over the replicates."""
        return statistics.fmean(self.kept.values())


@dataclass(frozen=True)
class Ending:
    """What became of a trial.

    Attributes
    ----------
    status: complete, stopped (by the scheduler, which is no failure) or failed.
    error: why it failed; empty else.
    figures: every number of its row of `trials`, those of the column `metrics` too.
    layers: in the model's order; empty for one that failed.
    masks: URI of the file with its masks; empty for one that failed.
    """

    status: str
    error: str
    figures: Figures
    layers: tuple[Layer, ...]
    masks: str


@dataclass(frozen=True)
class Standing:
    """How far a sweep has come.

    Attributes
    ----------
    ended: trials that have, in whatever way; it never falls.
    figures: trials by status, and the best value of each objective.
    """

    ended: int
    figures: Figures


@dataclass(frozen=True)
class Best:
    """The best trials of a sweep as a table: rank, id, objectives, and the settings searched."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


class Tracker(Protocol):
    """Where curves and summaries go, a file or a service.

    Its methods are called by one thread, in the order of the events, and may raise and take their
    time: no trial waits for them. A trial is begun once in a process and then either ended, or
    left open when the process is; the next process begins it again, and tells all of its steps
    again from the first.
    """

    def begin(self, trial: Trial) -> int:
        """Take a trial up; returns the last step that is known of it from before, -1 if none."""

    def log(self, trial_id: str, step: int, figures: Figures) -> None:
        """Figures of a step, greater than that of any call before, and than `begin` returned."""

    def end(self, trial_id: str, ending: Ending) -> None:
        """The trial has ended."""

    def standing(self, standing: Standing) -> None:
        """How far the sweep is after a trial has ended."""

    def close(self, standing: Standing, best: Best) -> None:
        """The sweep ends here, or is interrupted: trials may be open."""

    def hurry(self) -> None:
        """Wait for no network from now on. May be called by another thread, and twice."""


def curve_figures(replicates: Mapping[int, Figures]) -> dict[str, float]:
    """Figures of a step under names of a common prefix: `loss/mean`, `loss/sd`, `loss/0`, ….

    Parameters
    ----------
    replicates: the figures of each by its index. What is not finite is left out; `sd` is that of a
        sample (n - 1), from two replicates on.
    """
    found = {}
    for name in dict.fromkeys(name for each in replicates.values() for name in each):
        known = {
            index: float(each[name])
            for index, each in replicates.items()
            if name in each and math.isfinite(each[name])
        }
        if known:
            found[f"{name}/mean"] = statistics.fmean(known.values())
        if len(known) > 1:
            found[f"{name}/sd"] = statistics.stdev(known.values())
        found |= {f"{name}/{index}": value for index, value in known.items()}
    return found


def numbers(pairs: Iterable[tuple[str, Any]]) -> dict[str, float]:
    """Those of the values that are finite numbers."""
    return {
        name: value
        for name, value in pairs
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    }


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested settings under dotted names."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
