"""What trackers are told of trials that are stored: endings, curves, the best of a sweep."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ticketsweep.results.ranking import Objectives, best_trial, chosen, rank_trials
from ticketsweep.results.rows import Row, config_of, figure_of, setting_of, state_of
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.sweep.tracking.records import (
    Best,
    Ending,
    Figures,
    Layer,
    Standing,
    curve_figures,
    numbers,
)

_LONGEST_TABLE = 20
_CURVE = ("loss", "val_accuracy", "expected_density")


def ending_of(database: Database, sweep: str, row: Row) -> Ending:
    """What became of a trial. Raises StorageError if its masks cannot be read."""
    trial_id, status = str(row["trial_id"]), str(row["status"])
    figures = numbers((*row.items(), *_metrics(row).items()))
    if status == "failed":
        return Ending(status, str(row.get("error") or ""), figures, layers=(), masks="")
    return Ending(
        status,
        error="",
        figures=figures,
        layers=_layers(database, sweep, trial_id),
        masks=mask_uri(database.storage, sweep, trial_id),
    )


def _layers(database: Database, sweep: str, trial_id: str) -> tuple[Layer, ...]:
    columns = ["replicate", "step", "layer", "layer_index", "size", "kept"]
    rows = database.masks(sweep, trial_id, columns=columns).to_pylist()
    last = max((row["step"] for row in rows), default=0)  # before it lie snapshots
    found: dict[tuple[int, str, int], dict[int, float]] = {}
    for row in rows:
        if row["step"] == last:
            layer = found.setdefault((row["layer_index"], row["layer"], row["size"]), {})
            layer[row["replicate"]] = row["kept"] / row["size"]
    return tuple(
        Layer(name, size, kept) for (_, name, size), kept in sorted(found.items(), key=_at)
    )


def _at(item: tuple[tuple[int, str, int], object]) -> int:
    return item[0][0]


def curve_of(database: Database, sweep: str, trial_id: str) -> dict[int, dict[str, float]]:
    """The figures of each logged step, in the order of the steps."""
    points: dict[int, dict[int, Figures]] = {}
    for row in database.curves(sweep, trial_id).to_pylist():
        figures = {name: row[name] for name in _CURVE if row[name] is not None}
        points.setdefault(row["step"], {})[row["replicate"]] = figures | _metrics(row)
    return {step: curve_figures(points[step]) for step in sorted(points)}


def mask_uri(storage: Storage, sweep: str, trial_id: str) -> str:
    """Where a trial's masks lie, as `file://`, `s3://` or `gs://`, as long as none merges them."""
    path = storage.trial_file("masks", sweep, trial_id)
    if storage.local is not None:
        return Path(path).as_uri()
    return f"{storage.uri.partition('://')[0]}://{path}"


def standing_of(rows: Sequence[Row], objectives: Objectives) -> Standing:
    """How far a sweep with these trials has come."""
    states = Counter(state_of(row) for row in rows)
    figures = {f"trials/{state}": float(states[state]) for state in sorted(states)}
    for name, direction in objectives.items():
        best = best_trial(rows, name, direction)
        value = None if best is None else figure_of(best, name)
        if value is not None:
            figures[f"best/{name}"] = value
    return Standing(len(rows), figures)


def best_of(rows: Sequence[Row], objectives: Objectives) -> Best:
    """The best trials by rank, with the settings in which the complete ones differ."""
    ranked = chosen(rank_trials(rows, objectives), _LONGEST_TABLE)
    configs = [config_of(each.row) for each in ranked]
    names = [name for name in _leaves(configs) if _differs(configs, name)]
    return Best(
        columns=("rank", "trial", *objectives, *names),
        rows=tuple(
            (
                each.rank,
                str(each.row["trial_id"]),
                *(figure_of(each.row, name) for name in objectives),
                *(_plain(setting_of(config, name)) for name in names),
            )
            for each, config in zip(ranked, configs, strict=True)
        ),
    )


def _leaves(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    def walk(tree: Mapping[str, Any], prefix: str) -> list[str]:
        found = []
        for key, value in tree.items():
            name = f"{prefix}{key}"
            found += walk(value, f"{name}.") if isinstance(value, Mapping) else [name]
        return found

    return list(dict.fromkeys(name for config in configs for name in walk(config, "")))


def _differs(configs: Sequence[Mapping[str, Any]], name: str) -> bool:
    return len({json.dumps(setting_of(config, name)) for config in configs}) > 1


def _plain(value: object) -> object:
    """A value that fits into a table's column beside numbers or words."""
    return json.dumps(value) if isinstance(value, (list, bool)) or value is None else value


def _metrics(row: Row) -> dict[str, float]:
    return dict(row.get("metrics") or {})  # Arrow hands a map out as a list of pairs
