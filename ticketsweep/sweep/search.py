"""The search: an Optuna study that is rebuilt from the mask database at every start.

The store is the truth, so nothing else has to survive a killed driver. Ray's own OptunaSearch is
not used: it cannot be told of failed trials, and a reopened study suggests its old points again.
"""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ticketsweep.config import TrialConfig
from ticketsweep.distributions import Label
from ticketsweep.seeds import derive_seed
from ticketsweep.space import SweepSpec

# Suggestions that the sweep already has are answered from the store; so many in a row are asked of
# the sampler, and as many of uniform chance, before a space counts as exhausted.
REPEATS_BEFORE_CHANCE = 50
REPEATS_BEFORE_GIVING_UP = 500

# TPE's notes to itself on a trial that is still running; of no use once it has finished.
_TRANSIENT_ATTRIBUTES = "tpe:relative_params"

TrialRow = Mapping[str, Any]


@dataclass(frozen=True)
class Suggestion:
    """A configuration to run.

    Attributes
    ----------
    number: the trial's number in the study.
    record: JSON that `Search.restore` makes the study's trial of again, stored with the trial.
    """

    number: int
    trial_id: str
    config: TrialConfig
    record: str


def metric_of(row: TrialRow, name: str) -> float | None:
    """A trial figure by name, from its column or from `metrics`; None if it is not a number."""
    value = row.get(name)
    if value is None:
        value = dict(row.get("metrics") or {}).get(name)
    return None if value is None or not math.isfinite(value) else float(value)


class Search:
    """Asks Optuna for configurations that the sweep does not have, and tells it of results.

    Parameters
    ----------
    identify: the trial id of a configuration.
    journal: file for Optuna's dashboards, written afresh; None: memory alone.
    """

    def __init__(
        self,
        spec: SweepSpec,
        *,
        identify: Callable[[TrialConfig], str],
        journal: Path | None,
    ) -> None:
        self._spec = spec
        self._identify = identify
        self._finished: dict[str, TrialRow] = {}
        self._running: dict[str, int] = {}
        self._journal = journal
        self._grid = spec.grid() if spec.settings.sampler == "grid" else None
        self._study: optuna.Study
        self._sampler: BaseSampler
        self._chance: BaseSampler

    def restore(self, rows: Sequence[TrialRow]) -> None:
        """Build the study from the sweep's stored trials. Must be called once, before `ask`."""
        started = len(rows)
        seed = derive_seed(self._spec.settings.seed, "sampler", str(started)) % 2**32
        self._sampler = _sampler(self._spec.settings.sampler, self._spec.settings.samples, seed)
        self._chance = RandomSampler(seed=derive_seed(seed, "chance") % 2**32)
        ways = {"max": StudyDirection.MAXIMIZE, "min": StudyDirection.MINIMIZE}
        with warnings.catch_warnings():
            # Names for the study's metrics have been in Optuna since 3.2, as an experiment.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study = optuna.create_study(
                study_name=self._spec.settings.name,
                storage=_fresh_storage(self._journal),
                directions=[ways[way] for way in self._spec.settings.objectives.values()],
                sampler=self._sampler,
            )
            self._study.set_metric_names(list(self._spec.settings.objectives))
        in_order = sorted(rows, key=lambda row: (_number(row), str(row["started_at"])))
        self._study.add_trials([frozen for row in in_order if (frozen := self._thaw(row))])
        self._finished.update({str(row["trial_id"]): row for row in rows})

    def ask(self) -> Suggestion | None:
        """A configuration that is neither stored nor running; None: the space has no other."""
        # A grid ends by itself, however much of it is stored.
        attempts = itertools.count() if self._grid is not None else range(REPEATS_BEFORE_GIVING_UP)
        for attempt in attempts:
            trial = self._next(by_chance=attempt >= REPEATS_BEFORE_CHANCE)
            if trial is None:
                return None
            config = self._spec.sample(_OptunaSuggest(trial))
            identity = self._identify(config)
            if identity in self._running:
                self._study.tell(trial, state=TrialState.FAIL)  # its twin will bring the values
            elif identity in self._finished:
                self._tell(trial.number, self._finished[identity])
            else:
                trial.set_user_attr("trial_id", identity)
                self._running[identity] = trial.number
                return Suggestion(trial.number, identity, config, self._record(trial.number))
        return None

    def again(self, row: TrialRow) -> Suggestion:
        """A failed trial of this sweep, to be run once more."""
        identity = str(row["trial_id"])
        frozen = self._thaw(row)
        distributions = frozen.distributions if frozen else {}
        self._study.enqueue_trial(frozen.params if frozen else {})
        trial = self._study.ask(fixed_distributions=distributions)
        trial.set_user_attr("trial_id", identity)
        self._finished.pop(identity, None)
        self._running[identity] = trial.number
        config = TrialConfig.model_validate_json(str(row["config"]))
        return Suggestion(trial.number, identity, config, self._record(trial.number))

    def tell(self, row: TrialRow) -> None:
        """The stored row of a trial that `ask` or `again` gave out."""
        identity = str(row["trial_id"])
        number = self._running.pop(identity)
        self._finished[identity] = row
        self._tell(number, row)

    def close(self) -> None:
        """Leave no trial running in the study: what was interrupted is told as failed."""
        for number in self._running.values():
            self._study.tell(number, state=TrialState.FAIL)
        self._running.clear()

    @property
    def running(self) -> int:
        """Trials given out and not yet told of."""
        return len(self._running)

    @property
    def finished(self) -> Mapping[str, TrialRow]:
        """The sweep's stored trials by id."""
        return self._finished

    def _next(self, *, by_chance: bool) -> optuna.Trial | None:
        if self._grid is not None:
            point = next(self._grid, None)
            if point is None:
                return None
            self._study.enqueue_trial(point)
        self._study.sampler = self._chance if by_chance else self._sampler
        return self._study.ask()

    def _values(self, row: TrialRow) -> list[float] | None:
        values = [metric_of(row, name) for name in self._spec.settings.objectives]
        return None if None in values else [v for v in values if v is not None]

    def _tell(self, number: int, row: TrialRow) -> None:
        values = self._values(row) if row["status"] != "failed" else None
        if values is None:
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, values)

    def _record(self, number: int) -> str:
        trial = self._study.get_trials(deepcopy=False)[number]
        attributes = {
            key: value
            for key, value in trial.system_attrs.items()
            if not key.startswith(_TRANSIENT_ATTRIBUTES)
        }
        distributions = {k: distribution_to_json(d) for k, d in trial.distributions.items()}
        return json.dumps(
            {
                "number": number,
                "params": trial.params,
                "distributions": distributions,
                "system_attrs": attributes,
            },
            sort_keys=True,
        )

    def _thaw(self, row: TrialRow) -> FrozenTrial | None:
        """The study's trial that a stored row stands for; None if the search never asked for it."""
        if not row.get("search"):
            return None
        record = json.loads(str(row["search"]))
        values = self._values(row) if row["status"] != "failed" else None
        return optuna.trial.create_trial(
            state=TrialState.FAIL if values is None else TrialState.COMPLETE,
            values=values,
            params=record["params"],
            distributions={k: json_to_distribution(d) for k, d in record["distributions"].items()},
            system_attrs=record["system_attrs"],
            user_attrs={"trial_id": row["trial_id"]},
        )


class _OptunaSuggest:
    """`distributions.Suggest` by an Optuna trial."""

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        return self._trial.suggest_float(name, low, high, log=log)

    def integer(self, name: str, low: int, high: int) -> int:
        return self._trial.suggest_int(name, low, high)

    def choice(self, name: str, labels: Sequence[Label]) -> int:
        return list(labels).index(self._trial.suggest_categorical(name, list(labels)))


def _number(row: TrialRow) -> int:
    return int(json.loads(str(row["search"]))["number"]) if row.get("search") else -1


def _sampler(name: str, samples: int, seed: int) -> BaseSampler:
    if name == "tpe":
        # Ten random trials, Optuna's default, would be most of a short sweep.
        startup = min(10, max(4, samples // 4))
        with warnings.catch_warnings():
            # `group` (conditional spaces) has been in Optuna since 2.8, as an experiment.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, group=True)
    if name == "nsga2":
        return NSGAIISampler(seed=seed, population_size=max(4, min(50, samples // 4)))
    return RandomSampler(seed=seed)


def _fresh_storage(journal: Path | None) -> BaseStorage:
    """A study storage without history: what the last run left is in the mask database."""
    if journal is None:
        return InMemoryStorage()
    journal.parent.mkdir(parents=True, exist_ok=True)
    lock = journal.with_name(f"{journal.name}.lock")
    for leftover in (journal, lock):
        leftover.unlink(missing_ok=True)
    return JournalStorage(
        JournalFileBackend(str(journal), lock_obj=JournalFileOpenLock(str(journal)))
    )
