"""Sweeps as a storage has them: their own row, and the rows of their trials."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ticketsweep.distributions import parse_tree, walk
from ticketsweep.errors import SweepError, did_you_mean
from ticketsweep.results.ranking import USUAL_OBJECTIVES, Objectives
from ticketsweep.results.rows import (
    Row,
    config_of,
    dotted_keys,
    finite_number,
    setting_of,
    state_of,
)


@dataclass(frozen=True)
class SweepView:
    """A sweep as the storage has it.

    Parameters
    ----------
    name: its name.
    row: its row of `sweeps`; None for trials that no `run` began (those of the `trial` command).
    trials: its rows of `trials`.
    """

    name: str
    row: Row | None
    trials: Sequence[Row]

    @property
    def objectives(self) -> Objectives:
        """Metric -> "max" or "min"; the usual two where no sweep was begun."""
        if self.row is None or not self.row.get("objectives"):
            return USUAL_OBJECTIVES
        return dict(self.row["objectives"])

    @property
    def complete(self) -> list[Row]:
        """Its trials that are complete."""
        return [row for row in self.trials if row["status"] == "complete"]

    @property
    def searched(self) -> list[str]:
        """Dotted keys of the settings that the sweep searches over.

        Where no sweep was begun, those in which its complete trials differ.
        """
        if self.row and self.row.get("space"):
            return list(dict(walk(parse_tree(json.loads(str(self.row["space"])), "", []), "")))
        # Not at the top: it takes as long as all the rest that `status` needs of this package.
        from ticketsweep.config import EXECUTION_FIELDS

        configs = [config_of(row) for row in self.complete]
        keys = dict.fromkeys(key for config in configs for key in dotted_keys(config))
        return [key for key in keys if key not in EXECUTION_FIELDS and _differs(configs, key)]

    @property
    def last_activity(self) -> datetime | None:
        """When its last trial ended, or it was begun."""
        times = [end for row in self.trials if (end := _ended(row)) is not None]
        if self.row is not None and self.row.get("created_at") is not None:
            times.append(self.row["created_at"])
        return max(times, default=None)

    def count(self, state: str) -> int:
        """Number of trials in a state (`state_of`)."""
        return Counter(state_of(row) for row in self.trials)[state]


def sweep_views(sweeps: Sequence[Row], trials: Sequence[Row]) -> list[SweepView]:
    """Every sweep of the two tables, by name."""
    rows = {str(row["sweep"]): row for row in sweeps}
    grouped: dict[str, list[Row]] = {name: [] for name in rows}
    for trial in trials:
        grouped.setdefault(str(trial["sweep"]), []).append(trial)
    return [SweepView(name, rows.get(name), grouped[name]) for name in sorted(grouped)]


def _differs(configs: Sequence[Row], key: str) -> bool:
    values = [setting_of(config, key) for config in configs]
    return any(value != values[0] and not isinstance(value, Mapping) for value in values)


def _ended(row: Row) -> datetime | None:
    started = row.get("started_at")
    if not isinstance(started, datetime):
        return None
    return started + timedelta(seconds=finite_number(row.get("wall_seconds")) or 0.0)


def sweep_named(views: Sequence[SweepView], name: str, *, storage: str) -> SweepView:
    """The sweep of that name. Raises SweepError, with those there are, where there is none."""
    for view in views:
        if view.name == name:
            return view
    hint = did_you_mean(name, [view.name for view in views]) if views else "it has no sweep yet"
    raise SweepError(f"no sweep {name!r} in storage {storage} ({hint})")
