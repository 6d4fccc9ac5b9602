"""The search: an Optuna study that is rebuilt from the mask database at every start.

The store is the truth, so nothing else has to survive a killed driver. Ray's own OptunaSearch is
not used: it cannot be told of failed trials, and a reopened study suggests its old points again.
"""

from __future__ import annotations

import json
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from ticketsweep.config import TrialConfig
from ticketsweep.distributions import Distribution, Integer, Label, Uniform, walk
from ticketsweep.errors import UserError
from ticketsweep.results.rows import Row, figure_of
from ticketsweep.seeds import derive_seed
from ticketsweep.space import SweepSpec
from ticketsweep.starting_points import Chosen, Point
from ticketsweep.sweep.journal import MirroredJournal
from ticketsweep.sweep.samplers import make_sampler
from ticketsweep.sweep.server import IDENTITY, Mirror, MirroredStudies, directions_of
from ticketsweep.sweep.stored import was_cut_off

# Suggestions that the sweep already has are answered from the store. After so many in a row from
# the sampler, uniform chance is asked; after so many in all, a space without ranges of real numbers
# is gone through point by point, and any other counts as exhausted.
REPEATS_BEFORE_CHANCE = 50
REPEATS_BEFORE_GIVING_UP = 200

# TPE's notes to itself on a trial that is still running; of no use once it has finished.
_TRANSIENT_ATTRIBUTES = "tpe:relative_params"


@dataclass(frozen=True)
class Suggestion:
    """A configuration to run.

    Attributes
    ----------
    record: JSON that `Search.restore` makes the study's trial of again, stored with the trial.
    """

    trial_id: str
    config: TrialConfig
    record: str


class Search:
    """Asks Optuna for configurations that the sweep does not have, and tells it of results.

    Parameters
    ----------
    identify: the trial id of a configuration.
    journal: file for Optuna's dashboards, written afresh; None: memory alone.
    mirror: on a database server, in place of the journal.
    """

    def __init__(
        self,
        spec: SweepSpec,
        *,
        identify: Callable[[TrialConfig], str],
        journal: Path | None,
        mirror: Mirror | None = None,
    ) -> None:
        self._spec = spec
        self._objectives = spec.settings.objectives
        self._identify = identify
        self._finished: dict[str, Row] = {}
        self._running: dict[str, int] = {}
        self._journal, self._mirror = journal, mirror
        self._names = _names(spec)
        self._is_grid = spec.settings.sampler == "grid"
        self._given = deque(spec.points)
        self._points: Iterator[Point] | None = None
        kinds = [distribution for _, distribution in walk(spec.tree, "")]
        if self._is_grid or not any(isinstance(kind, Uniform) for kind in kinds):
            self._points = spec.grid()
        self._study: optuna.Study
        self._sampler: BaseSampler
        self._chance: BaseSampler

    def restore(self, rows: Sequence[Row]) -> None:
        """Build the study from the sweep's stored trials. Must be called once, before `ask`."""
        started = len(rows)
        seed = derive_seed(self._spec.settings.seed, "sampler", str(started)) % 2**32
        self._sampler = make_sampler(self._spec.settings.sampler, self._spec.settings.samples, seed)
        self._chance = RandomSampler(seed=derive_seed(seed, "chance") % 2**32)
        with warnings.catch_warnings():
            # Names for the study's metrics have been in Optuna since 3.2, as an experiment.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study = optuna.create_study(
                study_name=self._spec.settings.name,
                storage=_fresh_storage(self._journal, self._mirror),
                directions=directions_of(self._objectives),
                sampler=self._sampler,
            )
            self._study.set_metric_names(list(self._spec.settings.objectives))
        self._study.add_trials(_thawed(rows, self._objectives))
        if self._mirror is not None:
            self._mirror.restored()
        self._finished.update({str(row["trial_id"]): row for row in rows})

    def ask(self) -> Suggestion | None:
        """A configuration that is neither stored nor running; None: the space has no other."""
        while self._given:
            suggestion = self._start_with(self._given.popleft())
            if suggestion is not None:
                return suggestion
        if not self._is_grid:
            for attempt in range(REPEATS_BEFORE_GIVING_UP):
                by_chance = attempt >= REPEATS_BEFORE_CHANCE
                self._study.sampler = self._chance if by_chance else self._sampler
                suggestion = self._take(self._study.ask())
                if suggestion is not None:
                    return suggestion
        return self._next_point()

    def _start_with(self, point: Point) -> Suggestion | None:
        """A trial at a point that the user has named; None if there is one already.

        What the point leaves open is drawn by the sampler.
        """
        chosen = _Chosen(point, self._names)
        self._spec.sample(chosen)
        if any(chosen.params.items() <= params.items() for params in self._tried()):
            return None
        self._study.enqueue_trial(chosen.params)
        return self._take(self._study.ask())

    def _tried(self) -> Iterator[Mapping[str, Any]]:
        """Optuna's params of the trials that are stored or running."""
        for row in self._finished.values():
            if row.get("search"):
                yield json.loads(str(row["search"]))["params"]
        trials = self._study.get_trials(deepcopy=False)
        yield from (trials[number].params for number in self._running.values())

    def _next_point(self) -> Suggestion | None:
        """The first point of a finite space that is neither stored nor running."""
        for point in self._points or ():
            chosen = _Chosen(point, self._names)
            identity = self._identify(self._spec.sample(chosen))
            if identity not in self._running and identity not in self._finished:
                self._study.enqueue_trial(chosen.params)
                return self._take(self._study.ask())
        return None

    def _take(self, trial: optuna.Trial) -> Suggestion | None:
        """What a trial of the study suggests; None, and the trial told of it, if that is known."""
        config = self._spec.sample(_Asked(trial, self._names))
        identity = self._identify(config)
        trial.set_user_attr(IDENTITY, identity)
        if identity in self._running:
            self._study.tell(trial, state=TrialState.FAIL)  # its twin will bring the values
            return None
        if identity in self._finished:
            self._tell(trial.number, self._finished[identity])
            return None
        self._running[identity] = trial.number
        return Suggestion(identity, config, self._record(trial.number))

    def again(self, row: Row) -> Suggestion:
        """A failed trial of this sweep, to be run once more."""
        identity = str(row["trial_id"])
        frozen = thaw(row, self._objectives)
        distributions = frozen.distributions if frozen else {}
        self._study.enqueue_trial(frozen.params if frozen else {})
        trial = self._study.ask(fixed_distributions=distributions)
        trial.set_user_attr(IDENTITY, identity)
        self._finished.pop(identity, None)
        self._running[identity] = trial.number
        config = TrialConfig.model_validate_json(str(row["config"]))
        return Suggestion(identity, config, self._record(trial.number))

    def go_on(self, identity: str, record: str) -> Suggestion | None:
        """A trial that an earlier run has begun; None if it is stored, or not of this space.

        Parameters
        ----------
        record: the suggestion's, as that run has noted it.
        """
        if identity in self._finished or identity in self._running:
            return None
        try:
            params = json.loads(record)["params"]
            config = self._spec.sample(_Recorded(params, self._names))
        except (UserError, ValueError, KeyError, TypeError):
            return None  # noted by another version, or for another space
        if self._identify(config) != identity:
            return None
        self._study.enqueue_trial(params)
        return self._take(self._study.ask())

    def tell(self, row: Row) -> None:
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
        if self._mirror is not None:
            self._mirror.close()

    @property
    def running(self) -> int:
        """Trials given out and not yet told of."""
        return len(self._running)

    @property
    def finished(self) -> Mapping[str, Row]:
        """The sweep's stored trials by id."""
        return self._finished

    def _tell(self, number: int, row: Row) -> None:
        state, values = _state_of(row, self._objectives)
        self._study.tell(number, values, state=state)

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
                "params": trial.params,
                "distributions": distributions,
                "system_attrs": attributes,
            },
            sort_keys=True,
        )


def mirror_stored(mirror: Mirror, rows: Sequence[Row], objectives: Mapping[str, str]) -> None:
    """Write a sweep that has all its trials to a server, in so far as that does not have it."""
    for number, trial in enumerate(_thawed(rows, objectives)):
        trial.number = number
        mirror.put(trial)
    mirror.restored()
    mirror.close()


def _thawed(rows: Sequence[Row], objectives: Mapping[str, str]) -> list[FrozenTrial]:
    """The study's trials that stored rows stand for, in the order in which they began."""
    in_order = sorted(rows, key=lambda row: str(row["started_at"]))
    return [frozen for row in in_order if (frozen := thaw(row, objectives))]


def thaw(row: Row, objectives: Iterable[str]) -> FrozenTrial | None:
    """The study's trial that a stored row stands for; None if the search never asked for it."""
    if not row.get("search"):
        return None
    record = json.loads(str(row["search"]))
    state, values = _state_of(row, objectives)
    return optuna.trial.create_trial(
        state=state,
        values=values,
        params=record["params"],
        distributions={k: json_to_distribution(d) for k, d in record["distributions"].items()},
        system_attrs=record["system_attrs"],
        user_attrs={IDENTITY: row["trial_id"]},
    )


def _state_of(row: Row, objectives: Iterable[str]) -> tuple[TrialState, list[float] | None]:
    """What the study is told of a stored trial.

    Values of different steps cannot be compared, so a stopped trial has none.
    """
    if row["status"] == "stopped" and not was_cut_off(row):
        return TrialState.PRUNED, None
    values = _values(row, objectives) if row["status"] == "complete" else None
    return (TrialState.FAIL, None) if values is None else (TrialState.COMPLETE, values)


def _values(row: Row, objectives: Iterable[str]) -> list[float] | None:
    values = [figure_of(row, name) for name in objectives]
    return None if None in values else [v for v in values if v is not None]


# Optuna's name of a distribution, by its key and what is asked of `Suggest` for it.
_Names = Mapping[tuple[str, object], str]


def _names(spec: SweepSpec) -> _Names:
    """The dotted keys; where the options of a choice give one key several distributions, numbered.

    Optuna knows one distribution under a name, and refuses another.
    """
    names: dict[tuple[str, object], str] = {}
    count: dict[str, int] = {}
    for key, distribution in walk(spec.tree, ""):
        known_as = (key, _asked_for(distribution))
        if known_as not in names:
            count[key] = count.get(key, 0) + 1
            names[known_as] = key if count[key] == 1 else f"{key}#{count[key]}"
    return names


def _asked_for(distribution: Distribution) -> object:
    if isinstance(distribution, Uniform):
        return distribution.low, distribution.high, distribution.log
    if isinstance(distribution, Integer):
        return distribution.low, distribution.high
    return tuple(distribution.labels)


class _Asked:
    """`distributions.Suggest` by an Optuna trial."""

    def __init__(self, trial: optuna.Trial, names: _Names) -> None:
        self._trial, self._names = trial, names

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        return self._trial.suggest_float(self._names[name, (low, high, log)], low, high, log=log)

    def integer(self, name: str, low: int, high: int) -> int:
        return self._trial.suggest_int(self._names[name, (low, high)], low, high)

    def choice(self, name: str, labels: Sequence[Label]) -> int:
        known_as = self._names[name, tuple(labels)]
        return list(labels).index(self._trial.suggest_categorical(known_as, list(labels)))


class _Chosen:
    """`distributions.Suggest` by a point; `params` are then Optuna's for it, by its names."""

    def __init__(self, point: Point, names: _Names) -> None:
        self._point, self._names = point, names
        self._chosen = Chosen(point)
        self.params: dict[str, Label] = {}

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        self._note(name, (low, high, log))
        return self._chosen.number(name, low, high, log=log)

    def integer(self, name: str, low: int, high: int) -> int:
        self._note(name, (low, high))
        return self._chosen.integer(name, low, high)

    def choice(self, name: str, labels: Sequence[Label]) -> int:
        self._note(name, tuple(labels))
        return self._chosen.choice(name, labels)

    def _note(self, name: str, asked_for: object) -> None:
        if name in self._point:
            self.params[self._names[name, asked_for]] = self._point[name]


class _Recorded:
    """`distributions.Suggest` by Optuna's params of an earlier suggestion."""

    def __init__(self, params: Mapping[str, Any], names: _Names) -> None:
        self._params, self._names = params, names

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        return float(self._within(low, high, self._names[name, (low, high, log)]))

    def integer(self, name: str, low: int, high: int) -> int:
        return int(self._within(low, high, self._names[name, (low, high)]))

    def choice(self, name: str, labels: Sequence[Label]) -> int:
        return list(labels).index(self._params[self._names[name, tuple(labels)]])

    def _within(self, low: float, high: float, known_as: str) -> float:
        value = self._params[known_as]
        if not low <= value <= high:
            raise ValueError(f"{known_as}: {value} is not in [{low}, {high}]")
        return value  # type: ignore[no-any-return]


def _fresh_storage(journal: Path | None, mirror: Mirror | None) -> BaseStorage:
    """A study storage without history: what the last run left is in the mask database."""
    if mirror is not None:
        return MirroredStudies(mirror)
    return InMemoryStorage() if journal is None else JournalStorage(MirroredJournal(journal))
