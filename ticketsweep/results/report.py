"""Everything that a report of a sweep draws on, gathered from the database."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

from ticketsweep.analysis.stability import Stability, pooled_stability
from ticketsweep.results.comparison import stability_by
from ticketsweep.results.confirming import Confirmed, confirmed_so_far
from ticketsweep.results.function import FunctionRow, stored_function
from ticketsweep.results.grouping import order_of
from ticketsweep.results.networks import NETWORKS, STRONG
from ticketsweep.results.ranking import Ranked, chosen
from ticketsweep.results.rows import Row, config_of, figure_of, finite_number, setting_of
from ticketsweep.results.settling import SweepSettling, settling_by
from ticketsweep.results.summary import Summary, summarise
from ticketsweep.results.sweeps import SweepView
from ticketsweep.store.database import Database

COMPARED = 200  # trials whose masks are read and compared
_CURVE_POINTS = 60
_MOST_VALUES = 8  # of a setting whose trials are averaged value by value
_ALIKE = ("model", "dataset", "granularity")  # columns that trials share that are averaged


@dataclass(frozen=True)
class Importance:
    """How far each searched setting decides an objective, by one of Optuna's evaluators.

    Parameters
    ----------
    objective: the metric.
    evaluator: its name, with the source.
    shares: setting -> share of the variance that it explains, largest first; they add up to 1.
    trials: complete trials it was estimated from.
    """

    objective: str
    evaluator: str
    shares: Mapping[str, float]
    trials: int


@dataclass(frozen=True)
class CurvePoint:
    """One figure at one step: mean, least and most over the `n` replicates that have it."""

    step: int
    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Setting:
    """A setting whose value differs between complete trials.

    Parameters
    ----------
    key: its dotted key.
    values: trial id -> value, of the complete trials that have the setting.
    averaged: of these, the trials that may be averaged value by value: those of one model, data set
        and granularity, or all where the setting is one of these.
    by_value: value -> mean stability of the averaged trials with it that were compared; without
        values of which there is no such trial, and empty for a setting of more than a few values.
    """

    key: str
    values: Mapping[str, object]
    averaged: frozenset[str]
    by_value: Mapping[object, Stability]

    @property
    def distinct(self) -> list[object]:
        """Its values, each once: numbers by size, then all others by their text."""
        return sorted(set(self.values.values()), key=lambda value: order_of((value,)))

    @property
    def has_few_values(self) -> bool:
        """Whether its trials can be averaged value by value."""
        return len(self.distinct) <= _MOST_VALUES

    @property
    def is_number(self) -> bool:
        """Whether every value is a number."""
        return all(
            isinstance(value, (int, float)) and not isinstance(value, bool)
            for value in self.values.values()
        )


@dataclass(frozen=True)
class ReportData:
    """What a report draws on.

    Parameters
    ----------
    view: the sweep, and all its trials.
    summary: ranks, spreads and differences; `summary.best` are the trials looked at one by one.
    stability: trial id -> stability, of the trials whose masks were compared.
    alike: ids of the complete trials of the same model, data set and granularity as the first of
        the best; only these are averaged.
    together: mean stability of those of them that were compared; None: no masks.
    replicates: trial id -> rows of its replicates.
    settings: what differs between complete trials.
    curves: trial id -> figure -> points, of the best trials.
    importance: a table for each objective and evaluator; empty where trials are too few.
    function: what is stored of comparisons of tickets in function, over the trials alike.
    confirmed: what has come of its best trials with fresh seeds, of those run again by `confirm`.
    settling: where the masks of the best trials settle, of those with snapshots, by trial id.
    left_out: sentences: what could not be compared, and why.
    storage: as the user named it; None for the default.
    """

    view: SweepView
    summary: Summary
    stability: Mapping[str, Stability]
    alike: frozenset[str]
    together: Stability | None
    replicates: Mapping[str, Sequence[Row]]
    settings: Sequence[Setting]
    curves: Mapping[str, Mapping[str, Sequence[CurvePoint]]]
    importance: Sequence[Importance]
    function: Sequence[FunctionRow]
    confirmed: Sequence[Confirmed]
    settling: SweepSettling
    left_out: Sequence[str]
    storage: str | None

    @property
    def name(self) -> str:
        """Of the sweep."""
        return self.view.name

    @property
    def best(self) -> Sequence[Ranked]:
        """The trials looked at one by one, best first."""
        return self.summary.best

    @property
    def complete(self) -> Sequence[Row]:
        """The complete trials, ranked ones first."""
        ranked = [each.row for each in self.summary.ranked]
        known = {row["trial_id"] for row in ranked}
        return [*ranked, *(row for row in self.view.complete if row["trial_id"] not in known)]

    @property
    def problems(self) -> list[tuple[str, str]]:
        """Model and data set of the complete trials, each once, the commonest first."""
        found = [(str(row.get("model")), str(row.get("dataset"))) for row in self.complete]
        return sorted(set(found), key=lambda each: (-found.count(each), each))

    def accuracies(self, trial_id: str) -> Mapping[str, list[float]]:
        """Network -> test accuracy of each replicate that has one."""
        return self._accuracies.get(trial_id, {})

    @cached_property
    def _accuracies(self) -> dict[str, dict[str, list[float]]]:
        """Of every trial; kept, since every figure of accuracy asks for it."""
        found: dict[str, dict[str, list[float]]] = {}
        for trial_id, rows in self.replicates.items():
            own = found.setdefault(trial_id, {})
            for row in rows:
                flat = {**dict(row.get("metrics") or {}), **row}
                for network in NETWORKS:
                    value = finite_number(flat.get(network.test))
                    if value is not None:
                        own.setdefault(network.label, []).append(value)
        return found

    def mean_accuracy(self, row: Row, label: str = STRONG.label) -> float | None:
        """Mean test accuracy of one of a trial's networks."""
        values = self.accuracies(str(row["trial_id"])).get(label)
        if values:
            return fmean(values)
        return figure_of(row, STRONG.test) if label == STRONG.label else None


def report_data(
    database: Database,
    view: SweepView,
    *,
    importance: Sequence[Importance],
    storage: str | None,
) -> ReportData:
    """Read and compare all that a report of one sweep shows.

    Masks of one trial are in memory at a time; of a sweep of more than 200 complete trials those of
    200 are compared, the best among them.
    """
    said: list[str] = []
    summary = summarise(
        database,
        view.name,
        rows=view.trials,
        objectives=view.objectives,
        searched=view.searched,
        warn=said.append,
    )
    stability = _compared(database, view, summary, warn=said.append)
    alike = _alike(view, summary, stability)
    compared = [each for trial_id, each in stability.items() if trial_id in alike]
    replicates: dict[str, list[Row]] = {}
    for row in database.replicates(sweep=view.name).to_pylist():
        replicates.setdefault(str(row["trial_id"]), []).append(row)
    return ReportData(
        view=view,
        summary=summary,
        stability=stability,
        alike=alike,
        together=pooled_stability(compared) if compared else None,
        replicates=replicates,
        settings=_settings(view, stability, alike),
        curves={str(each.row["trial_id"]): _curves(database, each.row) for each in summary.best},
        importance=importance,
        function=stored_function(
            database, [row for row in view.complete if row["trial_id"] in alike], keys=[]
        ),
        confirmed=confirmed_so_far(database, view),
        settling=settling_by(
            database,
            [each.row for each in summary.best],
            groups=[(str(each.row["trial_id"]),) for each in summary.best],
            layer=None,
            warn=said.append,
        ),
        left_out=list(dict.fromkeys(said)),
        storage=storage,
    )


def _compared(
    database: Database, view: SweepView, summary: Summary, *, warn: Callable[[str], None]
) -> dict[str, Stability]:
    """Stability of the best trials, and of others up to the limit, best ranks first."""
    wanted = [each.row for each in chosen(summary.ranked, COMPARED)]
    wanted += [row for row in view.complete if row not in wanted][: COMPARED - len(wanted)]
    rest = [row for row in wanted if row["trial_id"] not in summary.stability]
    if len(wanted) < len(view.complete):
        warn(
            f"masks of {len(wanted)} of {len(view.complete)} complete trials were compared, "
            "those of the best ranks first"
        )
    found = dict(summary.stability)
    if rest:
        others = stability_by(database, rest, keys=["trial_id"], layer=None, warn=warn)
        found |= {str(trial_id): each for (trial_id,), each in others.items()}
    return {key: each for key, each in found.items() if each.rows}


def _alike(view: SweepView, summary: Summary, stability: Mapping[str, Stability]) -> frozenset[str]:
    """The complete trials that solve the first one's problem with its kind of gate."""
    rows = {str(row["trial_id"]): row for row in view.complete}
    best = [str(each.row["trial_id"]) for each in summary.best]
    first = next(iter([*best, *stability, *rows]), None)
    if first is None:
        return frozenset()
    kind = [rows[first].get(name) for name in _ALIKE]
    return frozenset(
        trial_id for trial_id, row in rows.items() if [row.get(name) for name in _ALIKE] == kind
    )


def _settings(
    view: SweepView, stability: Mapping[str, Stability], alike: frozenset[str]
) -> list[Setting]:
    """What was searched and differs; model, data set and family too where they do."""
    configs = {str(row["trial_id"]): config_of(row) for row in view.complete}
    keys = dict.fromkeys([*view.searched, "gate.family", "gate.granularity", "model", "dataset"])
    found = []
    for key in keys:
        values = {
            trial_id: value
            for trial_id, config in configs.items()
            if isinstance(value := setting_of(config, key), (str, int, float))
        }
        averaged = frozenset(values)
        if key.removeprefix("gate.") not in _ALIKE:
            averaged &= alike
        setting = Setting(key, values, averaged, {})
        if len(setting.distinct) > 1:
            found.append(replace(setting, by_value=_by_value(setting, stability)))
    return found


def _by_value(setting: Setting, stability: Mapping[str, Stability]) -> dict[object, Stability]:
    if not setting.has_few_values:
        return {}
    found: dict[object, list[Stability]] = {}
    for trial_id, value in setting.values.items():
        if trial_id in setting.averaged and trial_id in stability:
            found.setdefault(value, []).append(stability[trial_id])
    return {value: pooled_stability(each) for value, each in found.items()}


def _curves(database: Database, trial: Row) -> dict[str, list[CurvePoint]]:
    """Loss, validation accuracy and expected density along the steps, thinned evenly."""
    rows = database.curves(sweep=str(trial["sweep"]), trial=str(trial["trial_id"])).to_pylist()
    steps = sorted({int(row["step"]) for row in rows})
    if len(steps) > _CURVE_POINTS:
        last = len(steps) - 1
        steps = [steps[round(i * last / (_CURVE_POINTS - 1))] for i in range(_CURVE_POINTS)]
    curves = {}
    for name in ("loss", "val_accuracy", "expected_density"):
        at: dict[int, list[float]] = {}
        for row in rows:
            value = row.get(name)
            if value is not None and math.isfinite(value):
                at.setdefault(int(row["step"]), []).append(float(value))
        points = [
            CurvePoint(step, fmean(at[step]), min(at[step]), max(at[step]), len(at[step]))
            for step in steps
            if step in at
        ]
        if points:
            curves[name] = points
    return curves
