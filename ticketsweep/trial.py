"""One trial from end to end, without Ray: configuration, pack, stages, store.

`run_trial` is a generator: it yields progress and returns the outcome, so the same code serves the
command line, a Ray worker and a test.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ticketsweep import __version__
from ticketsweep.analysis.stability import LayerBits, Seeds, Stability, trial_stability
from ticketsweep.config import TrialConfig, trial_id
from ticketsweep.errors import TrialFailure, UserError
from ticketsweep.seeds import Replicate, replicate_plan
from ticketsweep.store.database import Database
from ticketsweep.store.files import UnreadableFile
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import MaskRow, TrialRows
from ticketsweep.store.writer import copy_trial, write_trial
from ticketsweep.train.data import Dataset, load_dataset
from ticketsweep.train.gates import FAMILIES
from ticketsweep.train.models import build_model
from ticketsweep.train.stages import CurvePoint, Optimisation, Tickets, find_tickets

CURVE_POINTS = 12  # logged per trial: enough for a curve, too few to cost anything

_FAMILY_COLUMNS = ("l0_strength", "temperature", "temperature_end")  # null where there is none


@dataclass(frozen=True)
class Progress:
    """Where a trial stands at a logged step. Means over replicates; accuracies are fractions."""

    step: int
    steps: int
    loss: float
    val_accuracy: float
    expected_density: float


@dataclass(frozen=True)
class TrialOutcome:
    """What a trial came to.

    Attributes
    ----------
    row: the trial's row of the `trials` table.
    stability: overlap of its tickets; None for a single replicate or a reused trial.
    reused: a complete trial with the same id was in the storage, and nothing was trained.
    """

    row: Mapping[str, object]
    stability: Stability | None
    reused: bool


def load_data(config: TrialConfig) -> Dataset:
    """The trial's data set, from `data_root`, `$TICKETSWEEP_DATA` or the user's cache.

    Raises
    ------
    DataError: the data is missing or not in the layout it should have.
    """
    root = config.data_root or os.environ.get("TICKETSWEEP_DATA")
    return load_dataset(config.dataset, data_root=Path(root) if root else None)


def identify(config: TrialConfig, dataset: Dataset) -> str:
    """The trial's id."""
    return trial_id(config, data_digest=dataset.digest)


def run_trial(
    config: TrialConfig,
    *,
    dataset: Dataset,
    storage: Storage,
    sweep: str,
    search: str | None = None,
    failures: int = 0,
) -> Generator[Progress, None, TrialOutcome]:
    """Find the tickets of one configuration and store them, unless they are stored already.

    A trial that cannot be finished (it diverged, say) is stored, and returned, as failed.

    Parameters
    ----------
    dataset: the data that `config.dataset` names.
    search: the sampler's record of the suggestion (JSON), stored with the trial.
    failures: how often this trial failed before.

    Yields
    ------
    Progress at about a dozen steps.

    Raises
    ------
    UserError: the configuration does not fit the data, or the storage cannot be written.
    """
    identity = identify(config, dataset)
    stored = reuse_trial(storage, sweep, identity, search=search)
    if stored is not None:
        return TrialOutcome(stored, stability=None, reused=True)
    started_at, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    counts = config.replicates
    plan = replicate_plan(config.seed, init=counts.init, data=counts.data, gate=counts.gate)
    curve: list[CurvePoint] = []
    device = _device(config.device)
    common = identity_columns(config, sweep, identity) | {
        "search": search,
        "host": platform.node(),
        "device": _device_name(device),
        "version": __version__,
        "started_at": started_at,
    }
    try:
        training = _train(config, dataset, plan, device)
        while True:
            try:
                point = next(training)
            except StopIteration as stop:
                tickets: Tickets = stop.value
                _check_finite(tickets)
                break
            curve.append(point)
            yield _progress(point, config.train.steps)
    except UserError:
        raise
    except Exception as error:
        message = _first_line(error)
        row = common | {
            "status": "failed",
            "error": message,
            "steps_done": curve[-1].step if curve else 0,
            "wall_seconds": time.perf_counter() - clock,
            "metrics": {"failures": float(failures + 1)},
        }
        write_trial(storage, sweep, TrialRows(trial=row, replicates=[], masks=[], curves=[]))
        return TrialOutcome(row, stability=None, reused=False)
    stability = _stability(tickets, plan) if len(plan) > 1 else None
    row = common | {
        "status": "complete",
        "error": None,
        "steps_done": tickets.steps,
        "wall_seconds": time.perf_counter() - clock,
        **_summary(tickets, stability),
    }
    rows = TrialRows(
        trial=row,
        replicates=_replicate_rows(tickets, plan),
        masks=_mask_rows(tickets),
        curves=_curve_rows(curve),
    )
    write_trial(storage, sweep, rows)
    return TrialOutcome(row, stability, reused=False)


def reuse_trial(
    storage: Storage, sweep: str, identity: str, *, search: str | None
) -> Mapping[str, object] | None:
    """The row of a complete trial with this id, copied from another sweep if need be.

    None if there is none that can be read whole: it is then to be trained.
    """
    database = Database(storage)
    source = database.find_complete(identity)
    if source is None:
        return None
    if source != sweep:
        try:
            copy_trial(storage, identity, source, sweep, search=search)
        except UnreadableFile:
            return None
    return database.trial(sweep, identity)


def _train(
    config: TrialConfig, dataset: Dataset, plan: Sequence[Replicate], device: str
) -> Generator[CurvePoint, None, Tickets]:
    gate, train = config.gate, config.train
    model = build_model(config.model, input_shape=dataset.input_shape, classes=dataset.classes)
    # What is trained is the gates, except where weights are trained and then pruned.
    how = config.pretrain if gate.family == "magnitude" else train
    return find_tickets(
        model=model,
        dataset=dataset,
        validation=config.validation,
        replicates=plan,
        weight_init=config.weight_init,
        weight_scale=config.weight_scale,
        rewind_step=config.rewind_step,
        pretrain=config.pretrain,
        gate=FAMILIES[gate.family](**gate.model_dump(exclude={"family", "granularity"})),
        train=Optimisation(
            steps=train.steps,
            batch_size=train.batch_size,
            lr=how.lr,
            lr_schedule="constant" if how is config.pretrain else train.lr_schedule,
            optimizer=how.optimizer,
        ),
        log_points=CURVE_POINTS,
        device=device,
    )


def _check_finite(tickets: Tickets) -> None:
    if not np.isfinite(tickets.loss).all():
        raise TrialFailure(
            "diverged: the hardened ticket's validation loss is infinite or NaN "
            "(lower weight_scale or the learning rate)"
        )


def _device(wanted: str) -> str:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device must be auto or cpu here, got 'cuda' (torch sees no CUDA device; "
            "check the driver, or set device: cpu)"
        )
    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else device


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    kind = "" if isinstance(error, TrialFailure) else f"{type(error).__name__}: "
    return f"{kind}{text[0] if text else 'no message'}"[:500]


def _progress(point: CurvePoint, steps: int) -> Progress:
    return Progress(
        step=point.step,
        steps=steps,
        loss=float(point.loss.mean()),
        val_accuracy=float(point.val_accuracy.mean()),
        expected_density=float(point.expected_density.mean()),
    )


def _stability(tickets: Tickets, plan: Sequence[Replicate]) -> Stability:
    layers = [
        LayerBits(
            layer=mask.name,
            size=int(np.prod(mask.shape)),
            bits=np.packbits(mask.kept.reshape(len(plan), -1), axis=1, bitorder="little"),
        )
        for mask in tickets.masks
    ]
    seeds = Seeds(
        init=np.array([replicate.init_seed for replicate in plan]),
        data=np.array([replicate.data_seed for replicate in plan]),
        gate=np.array([replicate.gate_seed for replicate in plan]),
    )
    return trial_stability(layers, seeds)


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


def _summary(tickets: Tickets, stability: Stability | None) -> dict[str, object]:
    """Trial figures: means over replicates."""
    density = float(tickets.density.mean())
    return {
        "val_accuracy": float(tickets.val_accuracy.mean()),
        "strong_accuracy": float(tickets.strong_accuracy.mean()),
        "density": density,
        "sparsity": 1 - density,
        "stability": stability.score if stability else None,
        "metrics": {
            "loss": float(tickets.loss.mean()),
            "undecided": float(tickets.undecided.mean()),
            "train_seconds": tickets.train_seconds,
        },
    }


def _replicate_rows(tickets: Tickets, plan: Sequence[Replicate]) -> list[dict[str, object]]:
    return [
        {
            "replicate": replicate.index,
            "init_seed": replicate.init_seed,
            "data_seed": replicate.data_seed,
            "gate_seed": replicate.gate_seed,
            "val_accuracy": float(tickets.val_accuracy[replicate.index]),
            "strong_accuracy": float(tickets.strong_accuracy[replicate.index]),
            "density": float(tickets.density[replicate.index]),
            "sparsity": 1 - float(tickets.density[replicate.index]),
            "undecided": float(tickets.undecided[replicate.index]),
            "loss": float(tickets.loss[replicate.index]),
            "metrics": {},
        }
        for replicate in plan
    ]


def _mask_rows(tickets: Tickets) -> list[MaskRow]:
    return [
        MaskRow.from_array(
            kept, replicate=replicate, step=tickets.steps, layer=mask.name, layer_index=index
        )
        for index, mask in enumerate(tickets.masks)
        for replicate, kept in enumerate(mask.kept)
    ]


def _curve_rows(curve: Sequence[CurvePoint]) -> list[dict[str, object]]:
    return [
        {
            "replicate": replicate,
            "step": point.step,
            "loss": float(point.loss[replicate]),
            "val_accuracy": float(point.val_accuracy[replicate]),
            "expected_density": float(point.expected_density[replicate]),
            "metrics": {},
        }
        for point in curve
        for replicate in range(len(point.loss))
    ]
