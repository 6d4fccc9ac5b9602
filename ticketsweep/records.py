"""The rows of the mask database that a trial's tickets become."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ticketsweep.analysis.layers import LayerBits, Seeds
from ticketsweep.analysis.stability import Stability, trial_stability
from ticketsweep.config import TrialConfig
from ticketsweep.seeds import Replicate
from ticketsweep.store.schema import REPLICATES, MaskRow
from ticketsweep.train.learning import CurvePoint
from ticketsweep.train.snapshots import layers_of
from ticketsweep.train.tickets import Tickets

_FAMILY_COLUMNS = ("l0_strength", "temperature", "temperature_end")  # null where there is none


def ticket_stability(tickets: Tickets, replicates: Sequence[Replicate]) -> Stability | None:
    """How far the tickets agree, the diverged left out; None if there are fewer than two."""
    alive = _alive(tickets)
    if len(alive) < 2:
        return None
    layers = [
        LayerBits(
            layer=mask.name,
            shape=tuple(mask.shape),
            bits=np.packbits(mask.kept[alive].reshape(len(alive), -1), axis=1, bitorder="little"),
        )
        for mask in tickets.masks
    ]
    of = [replicates[at] for at in alive]
    seeds = Seeds(
        init=np.array([replicate.init_seed for replicate in of]),
        data=np.array([replicate.data_seed for replicate in of]),
        gate=np.array([replicate.gate_seed for replicate in of]),
    )
    return trial_stability(layers, seeds)


def trial_figures(
    tickets: Tickets, stability: Stability | None, *, threads: int, packs: int
) -> dict[str, object]:
    """Columns of `trials`: means over the replicates that have not diverged.

    Parameters
    ----------
    threads: of torch's, which decide how sums are rounded: who makes W_k again needs as many.
    packs: that the replicates were trained in.
    """
    density, strong = _mean(tickets.density), tickets.strong_accuracy
    return {
        "val_accuracy": _mean(tickets.val_accuracy),
        "strong_accuracy": _mean(strong) if not np.isnan(strong).all() else None,
        "density": density,
        "sparsity": 1 - density,
        "stability": stability.score if stability else None,
        "metrics": {
            "loss": _mean(tickets.loss),
            "undecided": _mean(tickets.undecided),
            "train_seconds": tickets.train_seconds,
            "diverged": float((tickets.diverged > 0).sum()),
            "threads": float(threads),
            "packs": float(packs),
            **{
                _metric(name): _mean(figures)
                for name, figures in tickets.accuracies.items()
                if not np.isnan(figures).all()
            },
        },
    }


def at_rung(tickets: Tickets) -> dict[str, float]:
    """What schedulers compare of trials, by names that tell the step."""
    figures = {"loss": tickets.loss, "val_accuracy": tickets.val_accuracy}
    return {f"{name}_at_step_{tickets.steps}": _mean(of) for name, of in figures.items()}


def replicate_rows(tickets: Tickets, replicates: Sequence[Replicate]) -> list[dict[str, object]]:
    """Rows of `replicates`; one that has diverged has its seeds and the step, and no figures."""
    return [
        {
            "replicate": replicate.index,
            "init_seed": replicate.init_seed,
            "data_seed": replicate.data_seed,
            "gate_seed": replicate.gate_seed,
            **_replicate_figures(tickets, at),
        }
        for at, replicate in enumerate(replicates)
    ]


def _replicate_figures(tickets: Tickets, at: int) -> Mapping[str, object]:
    if tickets.diverged[at]:
        return {"metrics": {"diverged_at_step": float(tickets.diverged[at])}}
    strong = tickets.strong_accuracy[at]
    others = {
        _metric(name): float(figures[at])
        for name, figures in tickets.accuracies.items()
        if not np.isnan(figures[at])
    }
    return {
        "val_accuracy": float(tickets.val_accuracy[at]),
        "strong_accuracy": None if np.isnan(strong) else float(strong),
        "density": float(tickets.density[at]),
        "sparsity": 1 - float(tickets.density[at]),
        "undecided": float(tickets.undecided[at]),
        "loss": float(tickets.loss[at]),
        **{name: value for name, value in others.items() if name in REPLICATES.names},
        "metrics": {name: v for name, v in others.items() if name not in REPLICATES.names},
    }


def mask_rows(tickets: Tickets) -> list[MaskRow]:
    """Rows of `masks`, those of the way to the tickets first; none of diverged replicates."""
    alive, sizes = _alive(tickets), [mask.kept[0].size for mask in tickets.masks]
    on_the_way = [
        MaskRow(at, each.step, mask.name, index, tuple(mask.shape), bits[at].tobytes())
        for each in tickets.snapshots
        for index, (mask, bits) in enumerate(
            zip(tickets.masks, layers_of(each.bits, sizes), strict=True)
        )
        for at in alive
    ]
    return on_the_way + [
        MaskRow.from_array(
            mask.kept[at], replicate=at, step=tickets.steps, layer=mask.name, layer_index=index
        )
        for index, mask in enumerate(tickets.masks)
        for at in alive
    ]


def curve_rows(curve: Sequence[CurvePoint]) -> list[dict[str, object]]:
    """Rows of `curves`, up to the step at which a replicate was found to have diverged."""
    return [
        {
            "replicate": replicate,
            "step": point.step,
            "loss": float(point.loss[replicate]),
            "val_accuracy": float(point.val_accuracy[replicate]),
            "expected_density": float(point.expected_density[replicate]),
            "metrics": {"mask_change": float(point.mask_change[replicate])},
        }
        for point in curve
        for replicate in np.flatnonzero(~np.isnan(point.loss)).tolist()
    ]


def _alive(tickets: Tickets) -> list[int]:
    alive: list[int] = np.flatnonzero(tickets.diverged == 0).tolist()
    return alive


def _metric(name: str) -> str:
    """`retrained` -> `retrained_accuracy`, `retrained_val` -> `retrained_val_accuracy`."""
    return f"{name}_accuracy"


def _mean(figures: NDArray[np.float64]) -> float:
    return float(np.nanmean(figures))


def identity_columns(config: TrialConfig, sweep: str, identity: str) -> dict[str, object]:
    """The columns of a trial's row that are known before it has run."""
    return {
        "sweep": sweep,
        "trial_id": identity,
        "model": config.model,
        "dataset": config.dataset,
        "gate_family": config.gate.family,
        "granularity": config.gate.granularity,
        **{name: getattr(config.gate, name, None) for name in _FAMILY_COLUMNS},
        "rewind_step": config.rewind_step,
        "lr": config.train.lr,
        "steps": config.train.steps,
        "batch_size": config.train.batch_size,
        "weights": config.weights,
        "weight_init": config.weight_init,
        "weight_scale": config.weight_scale,
        "config": json.dumps(config.model_dump(mode="json"), sort_keys=True),
    }
