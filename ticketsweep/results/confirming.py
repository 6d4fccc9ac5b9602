"""The best settings of a sweep once more, with fresh seeds: what is run, and what comes of it.

The best of many trials is partly the luckiest: its figure would fall if it were measured again.
So settings are chosen by the search's figures, run with seeds that the search has never seen, and
the test split is looked at for these trials alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import fmean
from typing import Any

from ticketsweep.config import EXECUTION_FIELDS, Replicates
from ticketsweep.errors import ConfigError, Fault, SweepError, UserError
from ticketsweep.results.choosing import (
    best_at,
    best_settings,
    chosen_by,
    one_chosen_by,
    settings_key,
    spreads_of,
    told_figures,
)
from ticketsweep.results.ranking import USUAL_OBJECTIVES, rank_trials
from ticketsweep.results.rows import Row, config_of, is_imported
from ticketsweep.results.spread import Spread
from ticketsweep.results.sweeps import SweepView
from ticketsweep.seeds import derive_seed
from ticketsweep.settings import apply_settings
from ticketsweep.space import SweepSpec, parse_space
from ticketsweep.store.database import Database
from ticketsweep.store.paths import valid_name

_SUFFIX = "-confirmed"
_PLACES = {*EXECUTION_FIELDS, "dataset", "sweep"}  # what --set may change


@dataclass(frozen=True)
class Wanted:
    """What is to be confirmed.

    Parameters
    ----------
    rows: of trials of the search, best first, no two with the same settings.
    at: trial id -> the least sparsities at which it is the best; empty where none were asked for.
    metrics: what is told of them.
    """

    rows: tuple[Row, ...]
    at: Mapping[str, Sequence[float]]
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Confirmed:
    """A trial of the search beside the one that has its settings and fresh seeds.

    Parameters
    ----------
    row: the search's, of `trials`.
    again: that with fresh seeds; None where there is none yet, or it failed.
    before, after: metric -> spread over the replicates of the one and of the other.
    """

    row: Row
    again: Row | None
    before: Mapping[str, Spread]
    after: Mapping[str, Spread]

    def shrinkage(self, metric: str) -> float | None:
        """By how much the search's figure lies above that of fresh seeds; None without both."""
        before, after = self.before.get(metric), self.after.get(metric)
        return before.mean - after.mean if before and after else None


def wanted_of(view: SweepView, *, sparsities: Sequence[float], by: str | None, top: int) -> Wanted:
    """The best settings of a sweep, or, where sparsities are given, the best at each of these.

    Parameters
    ----------
    by: the figure to choose by; None for the objectives, and at sparsities for the accuracy.
    top: how many, at each sparsity.

    Raises
    ------
    SweepError: there is nothing to choose from.
    """
    if any(is_imported(row) for row in view.trials):
        raise SweepError(f"sweep {view.name} holds imported masks, which cannot be trained again")
    at: dict[str, list[float]] = {}
    if sparsities:
        aims = one_chosen_by(by, view.objectives)
        rows: dict[str, Row] = {}
        for least, row in best_at(view.trials, sparsities, aims, top=top):
            if row is not None:
                rows[str(row["trial_id"])] = row
                at.setdefault(str(row["trial_id"]), []).append(least)
        chosen = tuple(rows.values())
    else:
        aims = chosen_by(by, view.objectives)
        chosen = tuple(best_settings(view.trials, aims, top=top))
    if not chosen:
        so_sparse = f" and a sparsity >= {sparsities[0]:g}" if sparsities else ""
        raise SweepError(
            f"sweep {view.name} has no complete trial with {' and '.join(aims)}{so_sparse}, so "
            f"there is nothing to confirm (`ticketsweep status {view.name}` shows its trials)"
        )
    return Wanted(chosen, at, tuple(told_figures(aims)))


def confirming_name(sweep: str) -> str:
    """Of the sweep that confirms this one, unless the user names it otherwise."""
    return f"{sweep}{_SUFFIX}"


def confirms_another(sweep: str) -> bool:
    """Whether it is called as a sweep that confirms another."""
    return sweep.endswith(_SUFFIX)


def confirming_spec(
    view: SweepView,
    chosen: Sequence[Row],
    stored: Sequence[Row],
    *,
    name: str,
    replicates: Mapping[str, int],
    settings: Sequence[str],
) -> SweepSpec:
    """The sweep that runs trials of another again: its space, with other seeds, and these points.

    Parameters
    ----------
    view: the sweep that is confirmed.
    chosen: rows of its trials, at least one, no two with the same settings.
    stored: rows of trials that the confirming sweep has already.
    name: of the confirming sweep.
    replicates: seeds of each kind, in place of those of the search.
    settings: `KEY=VALUE` strings that say where things are and what a trial is given.

    Raises
    ------
    UserError: the sweep has no space, or `settings` change more than that.
    """
    if view.row is None or not view.row.get("space"):
        raise SweepError(
            f"sweep {view.name} was not searched by `ticketsweep run` (one trial with other seeds: "
            f"`ticketsweep trial --like {chosen[0]['trial_id']} --set seed=1`)"
        )
    space: dict[str, Any] = json.loads(str(view.row["space"]))
    first = config_of(chosen[0])
    counts: dict[str, int] = first["replicates"] | dict(replicates)
    objectives = dict(view.objectives)
    if counts["data"] * counts["gate"] < 2:  # no two tickets share their initial weights
        objectives.pop("stability", None)
    searched = {key.partition(".")[0] for key in view.searched} - {"seed", "replicates"}
    own = {settings_key(row) for row in stored}
    raw: dict[str, Any] = {
        **space,
        **{key: first[key] for key in EXECUTION_FIELDS if key in first},
        "seed": fresh_seed(view),
        "replicates": counts,
        "sweep": {
            "name": name,
            "samples": len(own | {settings_key(row) for row in chosen}),
            "objectives": objectives or dict(USUAL_OBJECTIVES),
            "sampler": "random",
            "start_with": [
                {key: value for key, value in config_of(row).items() if key in searched}
                for row in chosen
            ],
        },
    }
    laid_over = apply_settings(raw, settings)
    others = sorted(
        key for key in laid_over if key not in _PLACES and laid_over[key] != raw.get(key)
    )
    if others:
        raise UserError(
            f"--set {others[0]} would make other settings of those that were found (only where "
            "things are may change, data_root, dataset, device, and sweep.…, what a trial is given)"
        )
    return parse_space(laid_over, source=f"the space of sweep {view.name}")


def fresh_seed(view: SweepView) -> int:
    """The seed of all confirming trials of a sweep: always the same, and none of the search's.

    All have the same, so that settings are compared from the same initial weights.
    """
    used = {config_of(row).get("seed") for row in view.trials}
    seeds = (derive_seed(0, "confirm", view.name, str(attempt)) for attempt in count())
    return next(seed for seed in seeds if seed not in used)


def confirmed(
    database: Database, chosen: Sequence[Row], *, name: str, metrics: Sequence[str]
) -> list[Confirmed]:
    """What has come of the chosen trials of a sweep, in the sweep `name` that confirms them."""
    trials = database.trials(sweep=name).to_pylist()
    again = {settings_key(row): row for row in trials if row["status"] == "complete"}
    before = spreads_of(database, chosen, metrics)
    after = spreads_of(database, list(again.values()), metrics)
    found = []
    for row in chosen:
        own = again.get(settings_key(row))
        figures = {} if own is None else after[str(own["trial_id"])]
        found.append(Confirmed(row, own, before[str(row["trial_id"])], figures))
    return found


def confirmed_so_far(database: Database, view: SweepView) -> list[Confirmed]:
    """The sweep's trials whose settings have been run again under its usual name, best first.

    Of several trials that have the same settings, the best stands for them.
    """
    name = confirming_name(view.name)
    if not valid_name(name):
        return []
    left = {
        settings_key(row)
        for row in database.outlines(name, columns=["status", "config"])
        if row["status"] == "complete"
    }
    if not left:
        return []
    chosen: list[Row] = []
    for ranked in rank_trials(view.trials, view.objectives):
        key = settings_key(ranked.row)
        if key in left:
            left.remove(key)
            chosen.append(ranked.row)
            if not left:
                break
    return confirmed(database, chosen, name=name, metrics=told_figures(view.objectives))


def mean_shrinkage(found: Sequence[Confirmed], metric: str) -> float | None:
    """Of those that have one."""
    known = [shrinkage for each in found if (shrinkage := each.shrinkage(metric)) is not None]
    return fmean(known) if known else None


def replicates_of(text: str) -> dict[str, int]:
    """`init=4,data=1` as counts. Raises ConfigError where it is something else.

    >>> replicates_of("init=4, gate=2")
    {'init': 4, 'gate': 2}
    """
    counts: dict[str, int] = {}
    faults = []
    for part in text.split(","):
        kind, _, number = (each.strip() for each in part.partition("="))
        if kind not in Replicates.model_fields or not number.isdecimal() or not int(number):
            faults.append(
                Fault("--replicates", part.strip(), "must look like init=4,data=1,gate=1")
            )
        else:
            counts[kind] = int(number)
    if faults:
        raise ConfigError("--replicates", faults)
    return counts
