"""The best trials of a sweep at given sparsities: how accurate are tickets that are so sparse?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ticketsweep.readable import Readable
from ticketsweep.results.choosing import best_at, one_chosen_by, spreads_of, told_figures
from ticketsweep.results.rows import Row, config_of, figure_of, setting_of
from ticketsweep.results.spread import Spread
from ticketsweep.results.sweeps import SweepView
from ticketsweep.store.database import Database

SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
"""Least sparsities at which the best trials are told where none are asked for, if there are any."""


@dataclass(frozen=True)
class Best:
    """One of the best trials of those that leave out at least a share `least` of the weights.

    Parameters
    ----------
    row: of `trials`; None where no complete trial is so sparse.
    figures: metric -> spread over its replicates.
    """

    least: float
    row: Row | None
    figures: Mapping[str, Spread]


@dataclass(frozen=True)
class BestTrials(Readable):
    """The best trials of a sweep at given sparsities.

    Parameters
    ----------
    by: the figure they were chosen by.
    metrics: what is told of them: an accuracy, its test figure, sparsity, and `by`.
    searched: dotted keys of the settings that the sweep searches over.
    sparsest: the greatest sparsity of a complete trial; None without any.
    """

    by: str
    metrics: tuple[str, ...]
    searched: tuple[str, ...]
    trials: tuple[Best, ...]
    sparsest: float | None

    def records(self) -> list[dict[str, Any]]:
        """One each: its figures with standard deviation and n, and its searched settings."""
        return [
            {
                "sparsity_at_least": each.least,
                "trial_id": each.row and each.row["trial_id"],
                **figures_as_plain(each.figures, self.metrics),
                **settings_as_plain(each.row, self.searched),
            }
            for each in self.trials
        ]

    def as_arrow(self) -> pa.Table:
        """The records as a table; `to_pandas()` makes a data frame of it."""
        return pa.Table.from_pylist(self.records())

    def __str__(self) -> str:
        return "\n".join(map(self._line, self.trials))

    def _line(self, each: Best) -> str:
        least = f"sparsity >= {100 * each.least:.6g} %"
        if each.row is None:
            return f"{least}: no trial"
        known = [(name, each.figures[name]) for name in self.metrics if name in each.figures]
        told = [f"{n} {of if _is_share(n) else f'{of.mean:.4g}'}" for n, of in known]
        return f"{least}: trial {str(each.row['trial_id'])[:8]}, {', '.join(told)}"


def best_of(
    database: Database,
    view: SweepView,
    sparsities: Sequence[float] | None,
    *,
    by: str | None,
    top: int,
) -> BestTrials:
    """The best complete trials of a stored sweep at each least sparsity.

    Parameters
    ----------
    sparsities: None for those of `SPARSITIES` that a trial reaches, or 0 if none does.
    by: the figure to choose by; None for the first accuracy that was searched.
    top: how many at each sparsity.

    Raises
    ------
    UserError: `by` is no figure of trials, or one of the test split.
    """
    aims = one_chosen_by(by, view.objectives)
    metrics = told_figures(aims)
    sparsest = max(
        (share for row in view.complete if (share := figure_of(row, "sparsity")) is not None),
        default=None,
    )
    if sparsities is None:
        sparsities = [share for share in SPARSITIES if share <= (sparsest or 0.0)] or [0.0]
    chosen = best_at(view.trials, sparsities, aims, top=top)
    spreads = spreads_of(database, [row for _, row in chosen if row is not None], metrics)
    found = [
        Best(least, row, {} if row is None else spreads[str(row["trial_id"])])
        for least, row in chosen
    ]
    return BestTrials(
        next(iter(aims)), tuple(metrics), tuple(view.searched), tuple(found), sparsest
    )


def _is_share(metric: str) -> bool:
    """Whether a metric is told in per cent, as a spread's text is."""
    return metric.endswith("accuracy") or metric in ("sparsity", "density", "undecided")


def figures_as_plain(
    figures: Mapping[str, Spread], metrics: Sequence[str], *, prefix: str = ""
) -> dict[str, Any]:
    """`METRIC`, `METRIC_sd` and `METRIC_n` of each metric, null and 0 where there is none."""
    record: dict[str, Any] = {}
    for name in metrics:
        spread = figures.get(name)
        record[f"{prefix}{name}"] = spread and spread.mean
        record[f"{prefix}{name}_sd"] = spread and spread.sd
        record[f"{prefix}{name}_n"] = spread.n if spread else 0
    return record


def settings_as_plain(row: Row | None, searched: Sequence[str]) -> dict[str, Any]:
    """The searched settings of a trial by their dotted keys."""
    config = {} if row is None else config_of(row)
    return {key: setting_of(config, key) for key in searched}
