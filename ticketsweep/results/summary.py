"""A sweep's results, gathered from the database: the best trials, their spread and stability."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ticketsweep.analysis.stability import Stability
from ticketsweep.results.comparison import figures_of_agreement, stability_by
from ticketsweep.results.fronts import fronts
from ticketsweep.results.networks import NETWORKS, Difference, differences
from ticketsweep.results.ranking import (
    TOLD_METRICS,
    Objectives,
    Ranked,
    chosen,
    metrics_told,
    rank_trials,
)
from ticketsweep.results.rows import Row, config_of, figure_of, state_of
from ticketsweep.results.spread import Spread, spread_of
from ticketsweep.store.database import Database

BEST = 10  # trials shown
_SPREAD_METRICS = (
    *TOLD_METRICS,
    "density",
    "loss",
    *(metric for network in NETWORKS[1:] for metric in (network.test, network.validation)),
)


@dataclass(frozen=True)
class Summary:
    """What a sweep has found.

    Attributes
    ----------
    objectives: metric -> "max" or "min".
    searched: dotted keys of the settings searched over.
    rows: all its trials.
    ranked: the complete ones, best first; `best` are those of them to show.
    spreads: trial id -> metric -> spread over its replicates.
    stability: trial id -> stability, of the trials in `best`.
    differences: trial id -> how far its tickets lie above what they are compared with.
    diverged: trial id -> the step of each of its replicates that diverged, where there are such.
    """

    name: str
    objectives: Objectives
    searched: Sequence[str]
    rows: Sequence[Row]
    ranked: Sequence[Ranked]
    best: Sequence[Ranked]
    spreads: Mapping[str, Mapping[str, Spread]]
    stability: Mapping[str, Stability]
    differences: Mapping[str, Sequence[Difference]]
    diverged: Mapping[str, Sequence[int]]

    def count(self, state: str) -> int:
        """Number of trials in a state (`state_of`)."""
        return Counter(state_of(row) for row in self.rows)[state]

    @property
    def metrics(self) -> list[str]:
        """The metrics to tell of its trials."""
        return metrics_told(self.objectives)

    @property
    def replicates(self) -> int | None:
        """How many replicates each of the best trials has; None where that differs, or unknown."""
        spreads = [self.spread(each.row, "val_accuracy") for each in self.best]
        counts = {spread.n if spread else None for spread in spreads}
        return counts.pop() if len(counts) == 1 else None

    def spread(self, row: Row, metric: str) -> Spread | None:
        """The spread of a metric of the trial with this row, None where no replicate has it."""
        return self.spreads.get(row["trial_id"], {}).get(metric)

    def as_plain(self) -> dict[str, Any]:
        """Everything as plain values for JSON; trials best first, those without a rank last."""
        ranks = {trial.row["trial_id"]: trial.rank for trial in self.ranked}
        ordered = [trial.row for trial in self.ranked]
        ordered += [row for row in self.rows if row["trial_id"] not in ranks]
        trials = [
            {
                **row,
                "config": config_of(row),
                "metrics": dict(row.get("metrics") or {}),
                "search": json.loads(row.get("search") or "null"),
                "rank": ranks.get(row["trial_id"]),
                "spread": {
                    metric: dataclasses.asdict(spread)
                    for metric, spread in self.spreads.get(row["trial_id"], {}).items()
                },
                "differences": [
                    {**dataclasses.asdict(each), "of": each.of.test, "less": each.less.test}
                    for each in self.differences.get(row["trial_id"], [])
                ],
                "diverged_at_step": list(self.diverged.get(row["trial_id"], [])),
            }
            for row in ordered
        ]
        stability = {
            trial_id: {"score": each.score, "rows": [figures_of_agreement(r) for r in each.rows]}
            for trial_id, each in self.stability.items()
        }
        three = fronts(self.rows)
        return {
            "sweep": self.name,
            "objectives": dict(self.objectives),
            "front": {
                "objectives": dict(three.objectives),
                "trials": [row["trial_id"] for row in three.front],
                "left_out": three.left_out,
            },
            "trials": trials,
            "stability": stability,
        }


def summarise(
    database: Database,
    name: str,
    *,
    rows: Sequence[Row],
    objectives: Objectives,
    searched: Sequence[str],
    warn: Callable[[str], None],
) -> Summary:
    """Rank the trials and read what else is to be told of the best.

    Parameters
    ----------
    rows: of `trials`, of this one sweep.
    warn: told of each trial whose masks could not be compared.
    """
    ranked = rank_trials(rows, objectives)
    best = chosen(ranked, BEST)
    stability = (
        stability_by(
            database, [each.row for each in best], keys=["trial_id"], layer=None, warn=warn
        )
        if best
        else {}
    )
    replicates: dict[str, list[Row]] = {}
    for row in database.replicates(sweep=name).to_pylist():
        replicates.setdefault(row["trial_id"], []).append(_flat(row))
    lost = {
        trial_id: [int(at) for row in each if (at := figure_of(row, "diverged_at_step"))]
        for trial_id, each in replicates.items()
    }
    return Summary(
        name=name,
        objectives=objectives,
        searched=searched,
        rows=rows,
        ranked=ranked,
        best=best,
        spreads={trial_id: _spreads(each) for trial_id, each in replicates.items()},
        stability={str(trial_id): each for (trial_id,), each in stability.items()},
        differences={trial_id: differences(each) for trial_id, each in replicates.items()},
        diverged={trial_id: steps for trial_id, steps in lost.items() if steps},
    )


def _flat(row: Row) -> Row:
    """A replicate's row with its metrics beside the columns, for they are asked for often."""
    return {**dict(row.get("metrics") or {}), **{k: v for k, v in row.items() if v is not None}}


def _spreads(replicates: Sequence[Row]) -> dict[str, Spread]:
    """Metric -> spread, for the metrics that a replicate has."""
    found = {}
    for metric in _SPREAD_METRICS:
        if (spread := spread_of(row.get(metric) for row in replicates)) is not None:
            found[metric] = spread
    return found
