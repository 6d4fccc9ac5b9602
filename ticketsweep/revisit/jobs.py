"""What is still to be compared: one job a trial, made of what the store lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ticketsweep.errors import UserError
from ticketsweep.results.function import ALIGN, CONNECTIVITY, PREDICTIONS, TRANSFER
from ticketsweep.results.rows import Row, config_of, figure_of, is_imported, setting_of
from ticketsweep.revisit.pairs import Work, is_stored, replicates_of, why_none, work_of
from ticketsweep.seeds import Replicate
from ticketsweep.store.database import Database

ALPHAS = 30  # of a barrier, as in Frankle et al. (2020)
RESTARTS = 3  # of a matching
DRAWS = 10  # of matched random masks, for each of two chance levels


@dataclass(frozen=True)
class Asked:
    """What is to be compared.

    Attributes
    ----------
    kinds: some of `KINDS`, in their order.
    retrain_steps: in place of the trials' own `retrain.steps`; None for those.
    """

    kinds: tuple[str, ...]
    retrain_steps: int | None


@dataclass(frozen=True)
class Job:
    """The comparisons that a trial lacks.

    Attributes
    ----------
    row: of `trials`.
    replicates: those that have a ticket.
    works: at least one.
    retrain_steps: of a comparison that retrains; 0 where none does.
    accuracies: of the tickets when they were found, on the test split, by the replicate's number.
    """

    row: Row
    replicates: tuple[Replicate, ...]
    works: tuple[Work, ...]
    retrain_steps: int
    accuracies: Mapping[int, float]

    @property
    def trial_id(self) -> str:
        """The whole of it."""
        return str(self.row["trial_id"])


@dataclass(frozen=True)
class Ended:
    """What became of a job.

    Attributes
    ----------
    notes: sentences that one should know.
    error: why its comparisons are not there; None where they are.
    """

    trial_id: str
    notes: tuple[str, ...]
    error: str | None


def jobs_of(
    database: Database, trials: Sequence[Row], asked: Asked, *, warn: Callable[[str], None]
) -> list[Job]:
    """What is still to be done for these trials.

    Parameters
    ----------
    trials: rows of `trials`, complete, all of one sweep.
    warn: told why a trial has nothing to compare.

    Raises
    ------
    UserError: tickets are to be retrained, and it is not known for how many steps.
    """
    if not trials or not asked.kinds:
        return []
    sweep = str(trials[0]["sweep"])
    replicates = _by_trial(database.replicates(sweep).to_pylist())
    stored = _by_trial(database.comparisons(sweep).to_pylist())
    jobs = []
    for row in trials:
        trial_id = str(row["trial_id"])
        if is_imported(row):
            warn(
                f"trial {trial_id} is left out: it was imported, and its weights are not in the "
                "database"
            )
            continue
        steps = _retrain_steps(row, asked)
        own = replicates_of(replicates.get(trial_id, []))
        works = []
        for kind in asked.kinds:
            work = work_of(kind, own, _settings(kind, steps))
            if kind == ALIGN and row["granularity"] == "neuron":
                warn(
                    f"trial {trial_id} is not aligned: its gates are those of whole units, and "
                    "units that change places freely agree as soon as as many are kept"
                )
            elif not work.pairs:
                warn(f"trial {trial_id} has nothing for --{kind}: {why_none(kind, own)}")
            elif not is_stored(work, stored.get(trial_id, [])):
                works.append(work)
        if works:
            strong = {
                int(each["replicate"]): value
                for each in replicates.get(trial_id, [])
                if (value := figure_of(each, "strong_accuracy")) is not None
            }
            jobs.append(Job(row, tuple(own), tuple(works), steps, strong))
    return jobs


def _retrain_steps(row: Row, asked: Asked) -> int:
    """Steps for which tickets are retrained; 0 where none is."""
    if CONNECTIVITY not in asked.kinds:
        return 0
    steps = asked.retrain_steps or setting_of(config_of(row), "retrain.steps") or 0
    if not steps:
        raise UserError(
            f"--retrain-steps must be given where retrain.steps is 0, as in trial "
            f"{row['trial_id']} (connectivity retrains each ticket twice; for example "
            f"--retrain-steps {row['steps'] or 1000}, as many as its gates were learnt for)"
        )
    return int(steps)


def _settings(kind: str, retrain_steps: int) -> Mapping[str, Any]:
    """What determines the figures of a kind, beside the trial and the pairs."""
    every: dict[str, dict[str, Any]] = {
        PREDICTIONS: {},
        TRANSFER: {"matched_by": "weights", "restarts": RESTARTS},
        CONNECTIVITY: {"steps": retrain_steps, "alphas": ALPHAS},
        ALIGN: {"matched_by": "ticket", "restarts": RESTARTS, "draws": DRAWS},
    }
    return every[kind]


def _by_trial(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row["trial_id"]), []).append(row)
    return found
