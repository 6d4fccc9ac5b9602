"""Which ticket is meant: a trial by the first digits of its id, or a sweep's best; a replicate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ticketsweep.errors import ExchangeError
from ticketsweep.results.finding import some, trial_with_id
from ticketsweep.results.ranking import best_trial
from ticketsweep.results.rows import Row, figure_of
from ticketsweep.results.sweeps import sweep_named, sweep_views
from ticketsweep.store.database import Database

_USUAL = ("val_accuracy", "max")  # never the test split: what is chosen by it looks too good


@dataclass(frozen=True)
class Choice:
    """One replicate of a stored trial: its row of `trials`, and that of `replicates`."""

    trial: Row
    replicate: Row

    @property
    def trial_id(self) -> str:
        """The whole of it."""
        return str(self.trial["trial_id"])

    @property
    def sweep(self) -> str:
        """The name of the sweep whose trial it is; another may have stopped the same one early."""
        return str(self.trial["sweep"])

    @property
    def index(self) -> int:
        """The replicate's number within the trial."""
        return int(self.replicate["replicate"])


def choose(database: Database, trial: str, *, replicate: int | None = None) -> Choice:
    """The ticket of a trial, of the sweep in which it has come furthest.

    Parameters
    ----------
    trial: its id, or a beginning of it that no other trial's id has.
    replicate: its number; None for the one with the best accuracy on the validation split.

    Raises
    ------
    ExchangeError: there is no such trial, several, one that failed, or no masks of the replicate.
    """
    row = trial_with_id(database, trial)
    return _with_replicate(database, row, replicate, *_USUAL)


def choose_best(
    database: Database,
    sweep: str,
    *,
    min_sparsity: float | None = None,
    replicate: int | None = None,
) -> Choice:
    """The ticket of the sweep's trial that is best in its first objective.

    Parameters
    ----------
    min_sparsity: least share of weights that the trial's tickets leave out; None: any.
    replicate: its number; None for the one that is best in the same objective.

    Raises
    ------
    ExchangeError: no trial has the objective, or none is so sparse.
    SweepError: there is no such sweep.
    """
    views = sweep_views(database.sweeps().to_pylist(), database.trials().to_pylist())
    view = sweep_named(views, sweep, storage=database.storage.uri)
    objective, direction = next(iter(view.objectives.items()))
    candidates = view.complete
    if min_sparsity is not None:
        candidates = [r for r in candidates if (figure_of(r, "sparsity") or 0.0) >= min_sparsity]
    best = best_trial(candidates, objective, direction)
    if best is None:
        reached = max((figure_of(row, "sparsity") or 0.0 for row in view.complete), default=0.0)
        sparse = "" if candidates or not view.complete else f"; the sparsest is {reached:.4g}"
        least = "" if min_sparsity is None else f" and a sparsity >= {min_sparsity:g}"
        raise ExchangeError(
            f"sweep {sweep} has no complete trial with the figure {objective}{least}{sparse} "
            f"(name one by its id: `ticketsweep status {sweep}` shows them)"
        )
    return _with_replicate(database, best, replicate, objective, direction)


def _with_replicate(
    database: Database, row: Row, wanted: int | None, objective: str, direction: str
) -> Choice:
    trial_id = str(row["trial_id"])
    if row["status"] == "failed":
        raise ExchangeError(f"trial {trial_id} failed and has no masks: {row['error']}")
    replicates = database.replicates(str(row["sweep"]), trial_id).to_pylist()
    replicates.sort(key=lambda each: int(each["replicate"]))
    alive = [each for each in replicates if figure_of(each, "diverged_at_step") is None]
    if not alive:
        raise ExchangeError(f"trial {trial_id} has no replicate with masks")
    if wanted is None:
        return Choice(row, _best(alive, objective, direction))
    own = {int(each["replicate"]): each for each in replicates}
    if wanted not in own:
        raise ExchangeError(
            f"replicate must be one of {some(sorted(own))} of trial {trial_id}, got {wanted}"
        )
    if own[wanted] not in alive:
        step = figure_of(own[wanted], "diverged_at_step") or 0.0
        others = some([int(each["replicate"]) for each in alive])
        raise ExchangeError(
            f"replicate {wanted} of trial {trial_id} diverged at step {step:.0f} and has no masks "
            f"(there are masks of {others})"
        )
    return Choice(row, own[wanted])


def _best(replicates: Sequence[Row], objective: str, direction: str) -> Row:
    """The first of the best; where none has the objective, the best on the validation split."""
    sign = -1.0 if direction == "min" else 1.0
    for name, way in ((objective, sign), (_USUAL[0], 1.0)):
        figures = [(figure_of(row, name), row) for row in replicates]
        known = [(way * value, row) for value, row in figures if value is not None]
        if known:
            return max(known, key=lambda pair: pair[0])[1]
    return replicates[0]
