"""Stored masks handed to the analysis: how stable the tickets of a sweep's trials are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ticketsweep.analysis.layers import ALL_LAYERS, LayerBits, Seeds
from ticketsweep.analysis.stability import Stability, StabilityRow, sweep_stability
from ticketsweep.errors import UserError, did_you_mean
from ticketsweep.results.rows import (
    Row,
    config_of,
    dotted_keys,
    finite_number,
    is_imported,
    setting_of,
)
from ticketsweep.store.database import Database

Group = tuple[object, ...]
_PROBLEM = ("dataset", "model")  # averaged over several of these, figures say little
_NOT_KEYS = frozenset({"config", "metrics", "search", "error"})  # they group nothing


def stability_by(
    database: Database,
    trials: Sequence[Row],
    *,
    keys: Sequence[str],
    layer: str | None,
    warn: Callable[[str], None],
) -> dict[Group, Stability]:
    """Stability of trials, averaged over those that share the values of `keys`.

    The masks of one trial are in memory at a time.

    Parameters
    ----------
    trials: rows of `trials`, at least one, all of one sweep.
    keys: columns of `trials`, or dotted settings; without any, all trials are one group.
    layer: looks at one layer alone.
    warn: told of each trial that had to be left out, and where unlike trials are averaged.

    Raises
    ------
    UserError: a key or a layer that none of the trials has.
    """
    groups = _groups(trials, keys)
    for name, values in _averaged_over(trials, groups):
        warn(
            f"averaged over trials of more than one {name} ({', '.join(values)}): "
            f"--by {name} keeps them apart, --trial ID looks at one trial"
        )
    sweep = str(trials[0]["sweep"])
    seeds = _seeds_by_trial(database.replicates(sweep=sweep))

    def compared() -> Iterator[tuple[Group, list[LayerBits], Seeds]]:
        for row, group in zip(trials, groups, strict=True):
            trial_id = str(row["trial_id"])
            if is_imported(row):
                warn(
                    f"trial {trial_id} is left out: it was imported, and which seeds differ in its "
                    "replicates is not known (a query compares its masks: mask_jaccard)"
                )
                continue
            masks = database.masks(sweep=sweep, trial=trial_id, layer=layer)
            of = _seeds_of(masks, seeds.get(trial_id, {}))
            if of is not None:
                yield group, _layers(masks), of
            elif layer is None:
                warn(f"trial {trial_id} is left out: its masks or its replicates are not there")

    found = sweep_stability(compared())
    if layer is not None and not found and not all(is_imported(row) for row in trials):
        names = database.sql(f"select distinct layer from masks where sweep = '{sweep}'")
        hint = did_you_mean(layer, names["layer"].to_pylist())
        raise UserError(f"--layer must be a layer of sweep {sweep}, got {layer!r} ({hint})")
    if layer is not None:  # pooled over the one layer, the figures are the same
        found = {group: _without_pooled(each) for group, each in found.items()}
    return dict(sorted(found.items(), key=lambda item: _order(item[0])))


def figures_of_agreement(row: StabilityRow) -> dict[str, Any]:
    """What a row says, as plain values for JSON and CSV.

    Its `z` is left out: it takes a layer's gates for independent, so it grows with the layer and
    reads as a certainty that a few seeds cannot give.
    """
    figures = asdict(row)
    del figures["z"]
    return figures


def _averaged_over(
    trials: Sequence[Row], groups: Sequence[Group]
) -> Iterator[tuple[str, list[str]]]:
    """Names of what trials of one group differ in though they should not, with the values."""
    for name in _PROBLEM:
        found: dict[Group, set[str]] = {}
        for row, group in zip(trials, groups, strict=True):
            found.setdefault(group, set()).add(str(row[name]))
        several = [values for values in found.values() if len(values) > 1]
        if several:
            yield name, sorted(set().union(*several))


def _without_pooled(stability: Stability) -> Stability:
    """Of one layer, on which the figures pooled over layers are the same again."""
    return replace(
        stability,
        rows=tuple(row for row in stability.rows if row.layer != ALL_LAYERS),
        pairs=tuple(
            replace(trial, figures={k: v for k, v in trial.figures.items() if k != ALL_LAYERS})
            for trial in stability.pairs
        ),
    )


def _order(group: Group) -> list[tuple[int, float, str]]:
    """Numbers by size, then everything else by its text."""
    numbers = [finite_number(value) for value in group]
    return [
        (0, number, "") if number is not None else (1, 0.0, str(value))
        for number, value in zip(numbers, group, strict=True)
    ]


def _layers(masks: pa.Table) -> list[LayerBits]:
    """The masks of a trial at its last step, layer by layer, replicates in order."""
    last = masks.filter(pc.field("step") == pc.max(masks["step"]))
    order = [(key, "ascending") for key in ("layer_index", "replicate")]
    rows: dict[tuple[str, tuple[int, ...]], list[bytes]] = {}
    for row in (
        last.select(["layer", "layer_index", "replicate", "shape", "bits"])
        .sort_by(order)
        .to_pylist()
    ):
        rows.setdefault((row["layer"], tuple(row["shape"])), []).append(row["bits"])
    return [
        LayerBits(layer, shape, np.frombuffer(b"".join(bits), np.uint8).reshape(len(bits), -1))
        for (layer, shape), bits in rows.items()
    ]


Triple = tuple[int, int, int]


def _seeds_by_trial(replicates: pa.Table) -> dict[str, dict[int, Triple]]:
    """The seeds of each trial's replicates."""
    seeds: dict[str, dict[int, Triple]] = {}
    columns = ["trial_id", "replicate", "init_seed", "data_seed", "gate_seed"]
    for row in replicates.select(columns).to_pylist():
        triple = (row["init_seed"], row["data_seed"], row["gate_seed"])
        seeds.setdefault(row["trial_id"], {})[row["replicate"]] = triple
    return seeds


def _seeds_of(masks: pa.Table, seeds: Mapping[int, Triple]) -> Seeds | None:
    """The seeds of the replicates that have masks, in order: one that diverged has none.

    None if there are no masks, or masks of a replicate that is not known.
    """
    present = sorted(set(masks["replicate"].to_pylist()))
    if not present or not seeds.keys() >= set(present):
        return None
    return Seeds(*np.array([seeds[each] for each in present], dtype=np.int64).T)


def _groups(trials: Sequence[Row], keys: Sequence[str]) -> list[Group]:
    """The values of `keys` of each trial."""
    configs = [config_of(row) for row in trials]
    columns = [name for name in trials[0] if name not in _NOT_KEYS]
    for key in keys:
        if key not in columns and all(setting_of(config, key) is None for config in configs):
            hint = did_you_mean(key, [*columns, *dotted_keys(configs[0])])
            if hint.startswith("known"):  # some fifty words
                hint = "for example rewind_step or gate.temperature"
            raise UserError(
                f"--by must be a column of trials or a dotted setting, got {key!r} ({hint})"
            )
    return [
        tuple(_value(row, config, key) for key in keys)
        for row, config in zip(trials, configs, strict=True)
    ]


def _value(row: Row, config: Row, key: str) -> object:
    value = row[key] if key in row and key not in _NOT_KEYS else setting_of(config, key)
    return json.dumps(value) if isinstance(value, (Mapping, list)) else value


def gates_of(trials: Sequence[Row]) -> str:
    """What the gates of these trials stand for: "weights", "units", or, in a mixture, "gates"."""
    names = {"units" if row.get("granularity") == "neuron" else "weights" for row in trials}
    return names.pop() if len(names) == 1 else "gates"


def trial_named(trials: Sequence[Row], prefix: str) -> Row:
    """The trial whose id begins so. Raises UserError where none does, or several do."""
    found = [row for row in trials if str(row["trial_id"]).startswith(prefix)]
    if len(found) == 1 and prefix:
        return found[0]
    shown = ", ".join(str(row["trial_id"]) for row in (found or trials)[:5])
    rest = ", …" if len(found or trials) > 5 else ""
    rule = "begins the ids of several" if found else "begins the id of none"
    raise UserError(f"--trial {prefix!r} {rule} of the complete trials ({shown}{rest})")
