"""Reading rows of the database that have become plain values."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from ticketsweep.progress import UNDER_WAY

Row = Mapping[str, Any]


def finite_number(value: object) -> float | None:
    """The value as a float; None if it is no number, NaN or infinite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def figure_of(row: Row, name: str) -> float | None:
    """A metric of a trial or replicate, whether a column of its own or one of `metrics`."""
    value = row.get(name)
    if value is None and row.get("metrics"):
        value = dict(row["metrics"]).get(name)  # Arrow hands a map out as a list of pairs
    return finite_number(value)


def state_of(row: Row) -> str:
    """A trial's status; `under_way` where its ticket at a rung is stored and it may still go on."""
    is_under_way = row["status"] == "stopped" and figure_of(row, UNDER_WAY)
    return UNDER_WAY if is_under_way else str(row["status"])


def without_end(begun: Collection[str], rows: Iterable[Row]) -> frozenset[str]:
    """Those of the trials that were begun whose end is not among these rows of `trials`."""
    return frozenset(begun) - {row["trial_id"] for row in rows if state_of(row) != UNDER_WAY}


def config_of(row: Row) -> dict[str, Any]:
    """The whole configuration of a trial."""
    config: dict[str, Any] = json.loads(row.get("config") or "{}")
    return config


def is_imported(row: Row) -> bool:
    """Whether a trial's masks were written by other software and imported."""
    return "imported" in config_of(row)


def setting_of(config: Mapping[str, Any], key: str) -> Any:
    """The setting at a dotted key, None where this configuration has none."""
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def dotted_keys(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of all settings."""
    for name, value in config.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from dotted_keys(value, f"{prefix}{name}.")
