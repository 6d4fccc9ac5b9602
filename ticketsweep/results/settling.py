"""Stored snapshots of masks: at which step of training the tickets of a sweep are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ticketsweep.analysis.settling import (
    Between,
    TrialSettling,
    mean_between,
    trial_settling,
)
from ticketsweep.results.grouping import Group, order_of
from ticketsweep.results.masks import layers_by_step, seeds_by_trial, seeds_of, steps_of_masks
from ticketsweep.results.rows import Row, figure_of
from ticketsweep.results.spread import Spread, spread_of
from ticketsweep.store.database import Database


@dataclass(frozen=True)
class SettlingPoint:
    """The masks of a group's replicates at one logged step. Figures without a value are None.

    Parameters
    ----------
    step: number of steps done.
    change: share of the gates whose hardened state differs from that of the logged step before.
    hamming: share of the gates on which mask and ticket disagree.
    overlap: chance-corrected overlap of mask and ticket.
    in_common: gates kept by both, of those that the larger of the two keeps.
    density: share of the gates that the mask keeps.
    between: chance-corrected overlap of the replicates of the same initial weights.
    """

    step: int
    change: Spread | None
    hamming: Spread | None
    overlap: Spread | None
    in_common: Spread | None
    density: Spread | None
    between: Between | None


@dataclass(frozen=True)
class Settling:
    """Where the masks of some trials that were logged at the same steps settle.

    Parameters
    ----------
    group: the values of the keys that the trials share.
    trials, replicates: how many of them have snapshots.
    points: step by step; the last one's masks are the tickets.
    settled_at: first logged step from which on mask and ticket have 95 % in common, over the
        replicates; None where no ticket keeps anything.
    """

    group: Group
    trials: int
    replicates: int
    points: tuple[SettlingPoint, ...]
    settled_at: Spread | None


@dataclass(frozen=True)
class SweepSettling:
    """Where the masks of a sweep settle.

    Parameters
    ----------
    groups: those of which there are snapshots.
    without: complete trials without snapshots: they were trained before these were asked for, or
        by a family that learns nothing, or were imported.
    """

    groups: tuple[Settling, ...]
    without: int


@dataclass(frozen=True)
class _Followed:
    """A trial's masks along training, and how far they moved: float64 (S, R), NaN if not known."""

    figures: TrialSettling
    changes: NDArray[np.float64]


def settling_by(
    database: Database,
    trials: Sequence[Row],
    *,
    groups: Sequence[Group],
    layer: str | None,
    warn: Callable[[str], None],
) -> SweepSettling:
    """Follow the masks of the trials of which there are snapshots, group by group.

    Trials of a group that were logged at other steps are followed apart. The masks of one trial
    are in memory at a time.

    Parameters
    ----------
    trials: rows of `trials`, all of one sweep.
    groups: of each trial, see `grouping.groups_of`.
    layer: looks at one layer alone; of `change`, which is of all layers, nothing is then said.
    warn: told of each trial that had to be left out.
    """
    if not trials:
        return SweepSettling((), 0)
    sweep = str(trials[0]["sweep"])
    steps = steps_of_masks(database, sweep)
    seeds = seeds_by_trial(database.replicates(sweep=sweep))
    found: dict[tuple[Group, tuple[int, ...]], list[_Followed]] = {}
    without = 0
    for row, group in zip(trials, groups, strict=True):
        trial_id = str(row["trial_id"])
        logged = tuple(sorted(steps.get(trial_id, ())))
        if len(logged) < 2:
            without += 1
            continue
        masks = database.masks(sweep=sweep, trial=trial_id, layer=layer)
        of = seeds_of(masks, seeds.get(trial_id, {}))
        if of is None:
            continue  # the comparison of the tickets has said so
        try:
            figures = trial_settling(layers_by_step(masks), of)
        except ValueError:
            warn(f"trial {trial_id} is left out: its snapshots do not have the layers of its masks")
            continue
        replicates = sorted(set(masks["replicate"].to_pylist()))
        if layer is None:
            changes = _changes(database, sweep, trial_id, logged, replicates)
        else:
            changes = np.full((len(logged), len(replicates)), np.nan)
        found.setdefault((group, logged), []).append(_Followed(figures, changes))
    return SweepSettling(
        tuple(_settling(group, of) for (group, _), of in sorted(found.items(), key=_place)), without
    )


def _place(item: tuple[tuple[Group, tuple[int, ...]], object]) -> tuple[object, ...]:
    (group, steps), _ = item
    return order_of(group), steps[-1], steps


def _settling(group: Group, trials: Sequence[_Followed]) -> Settling:
    figures = [trial.figures for trial in trials]
    steps = figures[0].steps.tolist()
    return Settling(
        group=group,
        trials=len(trials),
        replicates=sum(each.density.shape[1] for each in figures),
        points=tuple(_points(trials, steps)),
        settled_at=_spread([each.settled_at for each in figures]),
    )


def _points(trials: Sequence[_Followed], steps: Sequence[int]) -> Iterator[SettlingPoint]:
    figures = [trial.figures for trial in trials]
    for at, step in enumerate(steps):
        yield SettlingPoint(
            step=step,
            change=_spread([trial.changes[at] for trial in trials]),
            hamming=_spread([each.hamming[at] for each in figures]),
            overlap=_spread([each.overlap[at] for each in figures]),
            in_common=_spread([each.in_common[at] for each in figures]),
            density=_spread([each.density[at] for each in figures]),
            between=mean_between(figures, at=at),
        )


def _spread(values: Sequence[NDArray[np.float64]]) -> Spread | None:
    return spread_of(np.concatenate(values).tolist())


def _changes(
    database: Database,
    sweep: str,
    trial_id: str,
    steps: Sequence[int],
    replicates: Sequence[int],
) -> NDArray[np.float64]:
    """`mask_change` of the curves at these steps, (S, R); NaN where there is none.

    A replicate that diverged has curves too, but no masks: `replicates` are those that have.
    """
    found: dict[int, dict[int, float]] = {}
    for row in database.curves(sweep=sweep, trial=trial_id).to_pylist():
        change = figure_of(row, "mask_change")
        if change is not None:
            found.setdefault(row["replicate"], {})[row["step"]] = change
    each = [found.get(replicate, {}) for replicate in replicates]
    return np.array([[own.get(step, np.nan) for own in each] for step in steps])
