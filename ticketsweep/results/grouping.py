"""Trials that share the values of settings: which belong together, and in which order."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ticketsweep.errors import UserError, did_you_mean
from ticketsweep.results.rows import Row, config_of, dotted_keys, finite_number, setting_of

Group = tuple[object, ...]
NOT_KEYS = frozenset({"config", "metrics", "search", "error"})  # columns that group nothing
MOST_VALUES = 8  # numbers of a setting that are shown one by one
BINS = 4


@dataclass(frozen=True)
class Bin:
    """Some trials' values of a setting that was searched over a range: from `low` to `high`."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:.4g}" if self.low == self.high else f"{self.low:.4g} to {self.high:.4g}"


def groups_of(trials: Sequence[Row], keys: Sequence[str], *, binned: bool) -> list[Group]:
    """The values of `keys` of each trial.

    Parameters
    ----------
    keys: columns of `trials`, or dotted settings.
    binned: whether a key with more than eight distinct numbers gets a `Bin` of them in the place
        of each: quarters of the trials, as even as equal numbers allow.

    Raises
    ------
    UserError: a key that none of the trials has.
    """
    if not trials:
        return []
    configs = [config_of(row) for row in trials]
    columns = [name for name in trials[0] if name not in NOT_KEYS]
    for key in keys:
        if key not in columns and all(setting_of(config, key) is None for config in configs):
            hint = did_you_mean(key, [*columns, *dotted_keys(configs[0])])
            if hint.startswith("known"):  # some fifty words
                hint = "for example rewind_step or gate.temperature"
            raise UserError(
                f"--by must be a column of trials or a dotted setting, got {key!r} ({hint})"
            )
    values = [
        [_value(row, config, key) for row, config in zip(trials, configs, strict=True)]
        for key in keys
    ]
    shown = [_binned(each) if binned else each for each in values]
    return list(zip(*shown, strict=True)) if keys else [()] * len(trials)


def order_of(group: Group) -> list[tuple[int, float, str]]:
    """What groups are sorted by: numbers by size, then everything else by its text."""
    numbers = [finite_number(each.low if isinstance(each, Bin) else each) for each in group]
    return [
        (0, number, "") if number is not None else (1, 0.0, str(value))
        for number, value in zip(numbers, group, strict=True)
    ]


def plain_group(keys: Sequence[str], group: Group) -> dict[str, object]:
    """Key -> value for JSON and CSV; a bin as its text."""
    return {
        key: str(value) if isinstance(value, Bin) else value
        for key, value in zip(keys, group, strict=True)
    }


def _binned(values: Sequence[object]) -> list[object]:
    numbers = [number for value in values if (number := finite_number(value)) is not None]
    if len(set(numbers)) <= MOST_VALUES:
        return list(values)
    # The upper end of each bin but the last is a value itself, so that equal ones stay together.
    ends = np.quantile(numbers, np.arange(1, BINS) / BINS, method="lower").tolist()
    inside: dict[int, list[float]] = {}
    for number in numbers:
        inside.setdefault(bisect_left(ends, number), []).append(number)
    bins = {at: Bin(min(each), max(each)) for at, each in inside.items()}
    return [
        value if (number := finite_number(value)) is None else bins[bisect_left(ends, number)]
        for value in values
    ]


def _value(row: Row, config: Row, key: str) -> object:
    value = row[key] if key in row and key not in NOT_KEYS else setting_of(config, key)
    return json.dumps(value) if isinstance(value, (Mapping, list)) else value
