"""A stored ticket made again: its weights from seeds and rewinding step, its masks from the store.

The weights are made as the trial made them (`revisit.bench`). What was made is loaded into a fresh
model and scored on the test split before it is handed out: the database's figure and this one stand
in `about` side by side.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence

import torch
from torch import Tensor

from ticketsweep import __version__
from ticketsweep.config import TrialConfig
from ticketsweep.errors import ExchangeError
from ticketsweep.exchange.choice import Choice, choose
from ticketsweep.exchange.forms import Masks, Ticket
from ticketsweep.planning import load_data
from ticketsweep.progress import StageProgress
from ticketsweep.results.rows import Row, config_of, figure_of, is_imported
from ticketsweep.revisit.bench import (
    Bench,
    Gates,
    device_now,
    flat_gates,
    kept_by,
    plan_now,
    threads_of,
)
from ticketsweep.revisit.jobs import config_now
from ticketsweep.seeds import replicate_plan
from ticketsweep.store.database import Database
from ticketsweep.train.data import Dataset
from ticketsweep.train.images import Images, evaluation_batches
from ticketsweep.train.pack import Weights
from ticketsweep.train.plan import Network, Plan, network_of

_TESTED = 500  # images at once
_SEEDS = ("init_seed", "data_seed", "gate_seed")
_FIGURES = ("val_accuracy", "strong_accuracy", "density", "sparsity")


def ticket(
    database: Database,
    trial: str,
    *,
    replicate: int | None = None,
    settings: Sequence[str] = (),
) -> Ticket:
    """A stored ticket, weights included; `remade` tells how far it is meanwhile.

    Parameters
    ----------
    trial, replicate: see `choose`.
    settings: `KEY=VALUE` strings that say where things are now: `data_root=DIR`, `device=cpu`.

    Raises
    ------
    UserError: as `choose` and `remade`.
    """
    making = remade(database, choose(database, trial, replicate=replicate), settings=settings)
    while True:
        try:
            next(making)
        except StopIteration as end:
            made: Ticket = end.value
            return made


def stored_masks(database: Database, choice: Choice, *, settings: Sequence[str] = ()) -> Masks:
    """The masks of a stored ticket, for every parameter.

    Neither data nor model is needed, but for gates of whole units, of which the model says what
    they take along.

    Raises
    ------
    ExchangeError: as `remade`, where units are gated.
    """
    gates = database.ticket(choice.trial_id, choice.index, sweep=choice.sweep)
    about = _origin(choice)
    if choice.trial["granularity"] != "neuron":
        return Masks(gates, tuple(gates), about)
    config = _config(choice.trial, settings)
    dataset = load_data(config)
    network = network_of(plan_now(config, dataset, choice.trial), dataset)
    return _masks(network, _kept(network, gates, choice), about)


def remade(
    database: Database, choice: Choice, *, settings: Sequence[str] = ()
) -> Generator[StageProgress, None, Ticket]:
    """Make a stored ticket again, with its weights.

    Yields
    ------
    StageProgress while the weights are trained to the rewinding step, if there is one: as long as
    it took in the trial, since the pack's other initial weights are trained beside, as they were.

    Raises
    ------
    ExchangeError: the ticket was imported, or its data or its model is no more what it was.
    UserError: the data or the model is not there.
    """
    config = _config(choice.trial, settings)
    dataset = load_data(config)
    plan = plan_now(config, dataset, choice.trial)
    device = device_now(config, choice.trial)
    bench = Bench.of(plan, dataset, device)
    gates = database.ticket(choice.trial_id, choice.index, sweep=choice.sweep)
    kept = _kept(bench.network, gates, choice)
    counts = config.replicates
    replicates = replicate_plan(config.seed, init=counts.init, data=counts.data, gate=counts.gate)
    with threads_of(choice.trial):
        weights = yield from bench.rewound(
            database.storage, choice.trial, [replicates[choice.index]], planned=replicates
        )
        kept = Weights(kept.gated.to(device), kept.rest.to(device))
        statistics = bench.evaluator.statistics(weights.where(kept))
    buffers = dict(plan.build().named_buffers())
    buffers |= zip(bench.packed.statistics, (each[0] for each in statistics), strict=True)
    about = _origin(choice) | _how_to_load(config, dataset, bench.train)
    made = Ticket(
        weights=_by_name(bench.network, weights),
        buffers={name: value.cpu() for name, value in buffers.items()},
        masks=_masks(bench.network, kept, about),
        notes=(),
    )
    return _tested(made, plan, bench.test, choice)


def _config(row: Row, settings: Sequence[str]) -> TrialConfig:
    """The trial's configuration, told where things are now."""
    if is_imported(row):
        raise ExchangeError(
            f"trial {row['trial_id']} was imported, and its weights are not in the database "
            "(--format masks, coo or csr takes the masks alone)"
        )
    return config_now(row, settings)


def _kept(network: Network, gates: Gates, choice: Choice) -> Weights:
    """What the stored gates leave of every parameter: bool (1, G) and (1, O)."""
    return kept_by(network, flat_gates(network, gates, choice.trial))


def _masks(network: Network, kept: Weights, about: Mapping[str, object]) -> Masks:
    """Masks of the gated parameters, and of others of which something goes."""
    every = {name: mask.numpy() for name, mask in _by_name(network, kept).items()}
    gated = network.gated.names
    shown = {name: mask for name, mask in every.items() if name in gated or not mask.all()}
    return Masks(shown, gated, about)


def _by_name(network: Network, weights: Weights) -> dict[str, Tensor]:
    """Every parameter of the one replicate, on the CPU, in the model's own order."""
    layers = dict(
        zip(
            (*network.gated.names, *network.rest.names),
            (*network.gated.split(weights.gated), *network.rest.split(weights.rest)),
            strict=True,
        )
    )
    return {
        name: layers[name][0].detach().cpu().contiguous().clone()
        for name, _ in network.model.named_parameters()
    }


def _tested(made: Ticket, plan: Plan, test: Images, choice: Choice) -> Ticket:
    """The ticket with its accuracy on the test split, as a fresh plain model has it."""
    model = plan.build()
    model.load_state_dict(made.state_dict())
    device = test.labels.device
    model.to(device).eval()
    right = 0
    rows = torch.arange(len(test.labels), device=device)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=plan.precision == "bf16")
    with torch.no_grad(), autocast:
        for images, labels in evaluation_batches(test, rows, _TESTED):
            right += int((model(images).argmax(dim=1) == labels).sum())
    accuracy = right / len(rows)
    about = {**made.about, "test_accuracy": accuracy}
    stored = figure_of(choice.replicate, "strong_accuracy")
    notes: tuple[str, ...] = ()
    if stored is not None and round((stored - accuracy) * len(rows)):
        why = "pre-training done again, with other rounding, " if plan.rewind_step else "rounding "
        notes = (
            f"the ticket gets {right} of {len(rows)} test images right here, "
            f"{stored * len(rows):.0f} when it was found on {choice.trial['device']} "
            f"({why}on another machine may do this)",
        )
    masks = Masks(made.masks.kept, made.masks.gated, about)
    return Ticket(made.weights, made.buffers, masks, notes)


def _origin(choice: Choice) -> dict[str, object]:
    """What the database says of the ticket; what it does not know is left out."""
    trial, replicate = choice.trial, choice.replicate
    origin: dict[str, object] = {
        "trial_id": choice.trial_id,
        "sweep": trial["sweep"],
        "replicate": choice.index,
        **{name: replicate[name] for name in _SEEDS},
        **{name: trial[name] for name in ("model", "dataset", "gate_family", "granularity")},
        **{name: trial[name] for name in ("rewind_step", "weights", "weight_init", "weight_scale")},
        **{name: replicate[name] for name in _FIGURES},
        "imported": config_of(trial).get("imported"),
        "written_by": f"ticketsweep {__version__}",
    }
    return {name: value for name, value in origin.items() if value is not None}


def _how_to_load(config: TrialConfig, dataset: Dataset, train: Images) -> dict[str, object]:
    mean, std = ([float(each) for each in part.flatten()] for part in (train.mean, train.std))
    sizes = f"input_shape={dataset.input_shape}, classes={dataset.classes}"
    if config.width != 1:
        sizes += f", width={config.width:g}"
    if config.activation != "relu":
        sizes += f", activation={config.activation!r}"
    return {
        "input_shape": list(dataset.input_shape),
        "classes": dataset.classes,
        "precision": config.train.precision,
        "pixel_mean": mean,
        "pixel_std": std,
        "load": (
            "from ticketsweep.train.models import build_model; "
            f"model = build_model({json.dumps(config.model)}, {sizes}); "
            "model.load_state_dict(safetensors.torch.load_file(FILE)); model.eval(); "
            "it takes (pixels - pixel_mean) / pixel_std of pixels from 0 to 255, (N, C, H, W)"
        ),
    }
