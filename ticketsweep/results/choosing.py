"""Which trials are the best: by a sweep's objectives, by one figure, and at given sparsities."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import islice

from ticketsweep.config import parse_config
from ticketsweep.errors import UserError, did_you_mean
from ticketsweep.names import OBJECTIVES, TEST_FIGURES
from ticketsweep.results.networks import NETWORKS, STRONG
from ticketsweep.results.ranking import Objectives, Ranked, chosen, rank_trials
from ticketsweep.results.rows import Row, config_of, figure_of, is_imported
from ticketsweep.results.spread import Spread, spread_of
from ticketsweep.results.sweeps import SweepView, sweep_named, sweep_views
from ticketsweep.store.database import Database
from ticketsweep.store.schema import TRIALS

_LESS_IS_BETTER = frozenset({"loss", "density", "undecided"})


def view_of(database: Database, name: str, *, by: str | None) -> SweepView:
    """A stored sweep, of whose trials is read what choosing among them takes.

    Parameters
    ----------
    by: the figure to choose by; None for the objectives.

    Raises
    ------
    UserError: there is no such sweep, or `by` is not to be chosen by.
    """
    chosen_by(by, {})
    sweeps = database.sweeps().to_pylist()
    (row,) = [row for row in sweeps if row["sweep"] == name] or [None]
    objectives = dict(row["objectives"] or {}) if row else {}
    figures = {STRONG.validation, "sparsity", *(objectives if by is None else [by])}
    columns = figures & set(TRIALS.names) | ({"metrics"} if figures - set(TRIALS.names) else set())
    trials = database.outlines(name, columns=["status", "config", *sorted(columns)])
    if row is None and not trials:
        others = [{"sweep": other} for other in database.storage.sweeps_with_trials()]
        return sweep_named(sweep_views(sweeps, others), name, storage=database.storage.uri)
    return SweepView(name, row, trials)


def chosen_by(metric: str | None, objectives: Objectives) -> Objectives:
    """What trials are chosen by: the objectives, or one metric.

    Raises UserError where the metric is no figure of a trial, or one of the test split.
    """
    if metric is None:
        return objectives
    if metric in TEST_FIGURES:
        raise UserError(
            f"--by {metric} is a test figure: what is chosen by it looks better than it is "
            f"(use {TEST_FIGURES[metric]}; test figures are reported beside it)"
        )
    if metric not in OBJECTIVES:
        hint = did_you_mean(metric, OBJECTIVES)
        raise UserError(f"--by must be a figure of trials, got {metric!r} ({hint})")
    usual = "min" if metric in _LESS_IS_BETTER else "max"
    return {metric: objectives.get(metric, usual)}


def one_chosen_by(metric: str | None, objectives: Objectives) -> Objectives:
    """As `chosen_by`, but one figure alone: where none is named, the accuracy that was searched."""
    return chosen_by(metric or accuracy_of(objectives), objectives)


def accuracy_of(objectives: Objectives) -> str:
    """The first accuracy among the objectives; `val_accuracy` where there is none."""
    return next((name for name in objectives if name.endswith("accuracy")), STRONG.validation)


def told_figures(by: Objectives) -> list[str]:
    """Metrics to tell of trials chosen so: the accuracy that decides, its test figure, and others.

    The test figure is that of the same network: `retrained_accuracy` for `retrained_val_accuracy`.
    """
    validation = accuracy_of(by)
    test = next((n.test for n in NETWORKS if n.validation == validation), STRONG.test)
    others = [name for name in by if name not in (validation, "sparsity")]
    return [validation, test, "sparsity", *others]


def best_settings(rows: Sequence[Row], by: Objectives, *, top: int) -> list[Row]:
    """The best `top` trials, each with settings of its own; of a longer Pareto front, some.

    Trials that differ in their seed alone have the same settings, and the best stands for them.
    """
    return [each.row for each in chosen(list(_distinct(rows, by)), top)]


def best_at(
    rows: Sequence[Row], sparsities: Sequence[float], by: Objectives, *, top: int
) -> list[tuple[float, Row | None]]:
    """The best `top` trials, settings of their own, at each least sparsity; None where is none."""
    found: list[tuple[float, Row | None]] = []
    for least in sparsities:
        enough = [row for row in rows if (figure_of(row, "sparsity") or 0.0) >= least]
        best = [each.row for each in islice(_distinct(enough, by), top)]
        found += [(least, row) for row in best] or [(least, None)]
    return found


def spreads_of(
    database: Database, rows: Sequence[Row], metrics: Sequence[str]
) -> dict[str, dict[str, Spread]]:
    """Trial id -> metric -> spread over the trial's replicates.

    Where no replicate has the figure (stability is the trial's own), it is the trial's, without
    a standard deviation.

    Parameters
    ----------
    rows: of `trials`.
    """
    found: dict[str, dict[str, Spread]] = {}
    for row in rows:  # one by one: a sweep has thousands of trials, of which few are told
        trial_id = str(row["trial_id"])
        replicates = database.replicates(str(row["sweep"]), trial_id).to_pylist()
        told = found.setdefault(trial_id, {})
        for metric in metrics:
            own = [figure_of(each, metric) for each in replicates]
            spread = spread_of(own) or spread_of([figure_of(row, metric)])
            if spread is not None:
                told[metric] = spread
    return found


def settings_key(row: Row) -> str:
    """Text that is the same for trials that differ in their seeds, or where they ran, alone."""
    config = parse_config(config_of(row), source=f"trial {row['trial_id']}")
    left_out = ("seed", "replicates")
    science = {key: value for key, value in config.science().items() if key not in left_out}
    return json.dumps(science, sort_keys=True)


def sparsities_of(text: str) -> list[float]:
    """`0.9,0.95` as least sparsities in rising order. Raises UserError where it is something else.

    >>> sparsities_of("0.95, 0.5")
    [0.5, 0.95]
    """
    rule = "--at-sparsity must be shares of 1, at least 0 and below 1"
    remedy = "for example 0.9,0.95: of the trials that leave out 90 % of the weights, and 95 %"
    try:
        shares = sorted({float(each) for each in text.split(",")})
    except ValueError:
        raise UserError(f"{rule}, got {text!r} ({remedy})") from None
    if not all(0 <= share < 1 for share in shares):
        raise UserError(f"{rule}, got {text!r} ({remedy})")
    return shares


def _distinct(rows: Sequence[Row], by: Objectives) -> Iterator[Ranked]:
    """The complete trials, best first; of those with the same settings, the best."""
    seen: set[str] = set()
    for each in rank_trials([row for row in rows if not is_imported(row)], by):
        key = settings_key(each.row)
        if key not in seen:
            seen.add(key)
            yield each
