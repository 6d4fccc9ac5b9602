"""What is still to be compared: one job a trial, made of what the store lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ticketsweep.config import TrialConfig, parse_config
from ticketsweep.errors import UserError
from ticketsweep.results.function import ALIGN, CONNECTIVITY, PREDICTIONS, TRANSFER
from ticketsweep.results.rows import Row, config_of, figure_of, is_imported
from ticketsweep.revisit.pairs import Work, is_stored, replicates_of, why_none, work_of
from ticketsweep.seeds import Replicate
from ticketsweep.settings import apply_settings
from ticketsweep.store.database import Database

ALPHAS = 30  # of a barrier, as in Frankle et al. (2020)
RESTARTS = 3  # of a matching
DRAWS = 10  # of matched random masks, for each of two chance levels
_FEW = 3  # ids that a warning names
_IMPORTED = "left out, since imported: the weights are not in the database"
_UNITS = (
    "not aligned, since gates are those of whole units, which agree as soon as as many are kept "
    "where units change places freely"
)


@dataclass(frozen=True)
class Asked:
    """What is to be compared.

    Attributes
    ----------
    kinds: some of `KINDS`, in their order.
    retrain_steps: in place of the trials' own `retrain.steps`; None for those.
    settings: as of `config_now`.
    """

    kinds: tuple[str, ...]
    retrain_steps: int | None
    settings: tuple[str, ...] = ()


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


def config_now(row: Row, settings: Sequence[str]) -> TrialConfig:
    """A trial's configuration, told where things are now.

    Parameters
    ----------
    row: of `trials`, of one that was not imported.
    settings: `KEY=VALUE` strings that say where things are: `data_root=DIR`, `device=cpu`.
    """
    raw = config_of(row)
    return parse_config(apply_settings(raw, settings), source=f"trial {row['trial_id']}")


def wants_gpu(config: TrialConfig, row: Row) -> bool:
    """Whether a trial's tickets are made again on a GPU, if there is one: as it ran, or as told.

    Parameters
    ----------
    config: as things are now.
    """
    return config.device == "cuda" or (config.device == "auto" and row["device"] != "cpu")


def jobs_of(
    database: Database, trials: Sequence[Row], asked: Asked, *, warn: Callable[[str], None]
) -> list[Job]:
    """What is still to be done for these trials.

    Parameters
    ----------
    trials: rows of `trials`, complete, all of one sweep.
    warn: told why trials have nothing to compare, each reason once.

    Raises
    ------
    UserError: tickets are to be retrained, and it is not known for how many steps.
    """
    if not trials or not asked.kinds:
        return []
    sweep = str(trials[0]["sweep"])
    replicates = _by_trial(database.replicates(sweep).to_pylist())
    stored = _by_trial(database.comparisons(sweep).to_pylist())
    without: dict[str, list[str]] = {}  # what cannot be compared and why: in which trials
    jobs = []
    for row in trials:
        trial_id = str(row["trial_id"])
        if is_imported(row):
            without.setdefault(_IMPORTED, []).append(trial_id)
            continue
        retraining = _retraining(row, asked) if CONNECTIVITY in asked.kinds else {}
        own = replicates_of(replicates.get(trial_id, []))
        works = []
        for kind in asked.kinds:
            work = work_of(kind, own, _settings(kind, retraining))
            if kind == ALIGN and row["granularity"] == "neuron":
                without.setdefault(_UNITS, []).append(trial_id)
            elif not work.pairs:
                why = f"nothing for --{kind}: {why_none(kind, own)}"
                without.setdefault(why, []).append(trial_id)
            elif not is_stored(work, stored.get(trial_id, [])):
                works.append(work)
        if works:
            strong = {
                int(each["replicate"]): value
                for each in replicates.get(trial_id, [])
                if (value := figure_of(each, "strong_accuracy")) is not None
            }
            jobs.append(Job(row, tuple(own), tuple(works), retraining.get("steps", 0), strong))
    for why, ids in without.items():
        warn(f"{_named(ids)}: {why}")
    return jobs


def _named(ids: Sequence[str]) -> str:
    """`trial ID`, or how many trials and the first of their ids."""
    if len(ids) == 1:
        return f"trial {ids[0]}"
    rest = ", …" if len(ids) > _FEW else ""
    return f"{len(ids)} trials ({', '.join(ids[:_FEW])}{rest})"


def _retraining(row: Row, asked: Asked) -> Mapping[str, Any]:
    """How tickets are retrained: what `retrain` of the configuration says, with these steps."""
    retrain = config_now(row, asked.settings).retrain
    steps = asked.retrain_steps or retrain.steps
    if not steps:
        raise UserError(
            f"--retrain-steps must be given where retrain.steps is 0, as in trial "
            f"{row['trial_id']} (connectivity retrains each ticket twice; for example "
            f"--retrain-steps {row['steps'] or 1000}, as many as its gates were learnt for)"
        )
    return {**retrain.model_dump(), "steps": steps}


def _settings(kind: str, retraining: Mapping[str, Any]) -> Mapping[str, Any]:
    """What determines the figures of a kind, beside the trial and the pairs."""
    every: dict[str, dict[str, Any]] = {
        PREDICTIONS: {},
        TRANSFER: {"matched_by": "weights", "restarts": RESTARTS},
        CONNECTIVITY: {**retraining, "alphas": ALPHAS},
        ALIGN: {"matched_by": "ticket", "restarts": RESTARTS, "draws": DRAWS},
    }
    return every[kind]


def _by_trial(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row["trial_id"]), []).append(row)
    return found
