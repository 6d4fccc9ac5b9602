"""Rows of stored masks as the analysis takes them: bits by layer, and the seeds behind them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ticketsweep.analysis.layers import LayerBits, Seeds
from ticketsweep.store.database import Database

Triple = tuple[int, int, int]  # init, data, gate


def ticket_layers(masks: pa.Table) -> list[LayerBits]:
    """The tickets of a trial, which are its masks at the last step: layers in the model's order.

    Replicates are in order. `masks` has rows of this trial, at least one.
    """
    (layers,) = layers_by_step(masks.filter(pc.field("step") == pc.max(masks["step"]))).values()
    return layers


def layers_by_step(masks: pa.Table) -> dict[int, list[LayerBits]]:
    """The masks of a trial at each step of which there are some, as `ticket_layers` has them."""
    columns = ["step", "layer_index", "replicate", "layer", "shape", "bits"]
    order = [(key, "ascending") for key in columns[:3]]
    rows: dict[int, dict[tuple[str, tuple[int, ...]], list[bytes]]] = {}
    for row in masks.select(columns).sort_by(order).to_pylist():
        layers = rows.setdefault(row["step"], {})
        layers.setdefault((row["layer"], tuple(row["shape"])), []).append(row["bits"])
    return {
        step: [
            LayerBits(layer, shape, np.frombuffer(b"".join(bits), np.uint8).reshape(len(bits), -1))
            for (layer, shape), bits in layers.items()
        ]
        for step, layers in rows.items()
    }


def steps_of_masks(database: Database, sweep: str) -> dict[str, set[int]]:
    """Trial id -> the steps of which a sweep has masks; more than one where there are snapshots."""
    stored = database.masks(sweep=sweep, columns=["trial_id", "step"])
    steps: dict[str, set[int]] = {}
    for row in stored.group_by(["trial_id", "step"]).aggregate([]).to_pylist():
        steps.setdefault(row["trial_id"], set()).add(row["step"])
    return steps


def seeds_by_trial(replicates: pa.Table) -> dict[str, dict[int, Triple]]:
    """The seeds of each trial's replicates."""
    seeds: dict[str, dict[int, Triple]] = {}
    columns = ["trial_id", "replicate", "init_seed", "data_seed", "gate_seed"]
    for row in replicates.select(columns).to_pylist():
        triple = (row["init_seed"], row["data_seed"], row["gate_seed"])
        seeds.setdefault(row["trial_id"], {})[row["replicate"]] = triple
    return seeds


def seeds_of(masks: pa.Table, seeds: Mapping[int, Triple]) -> Seeds | None:
    """The seeds of the replicates that have masks, in order: one that diverged has none.

    None if there are no masks, or masks of a replicate that is not known.
    """
    present = sorted(set(masks["replicate"].to_pylist()))
    if not present or not seeds.keys() >= set(present):
        return None
    return Seeds(*np.array([seeds[each] for each in present], dtype=np.int64).T)
