"""All tickets of a stored trial made again, as one pack."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ticketsweep.config import TrialConfig
from ticketsweep.progress import StageProgress
from ticketsweep.results.rows import Row
from ticketsweep.revisit.bench import Bench, device_now, flat_gates, kept_by, plan_now, threads_of
from ticketsweep.seeds import Replicate, replicate_plan
from ticketsweep.store.database import Database
from ticketsweep.train.data import Dataset
from ticketsweep.train.loop import Optimisation
from ticketsweep.train.pack import Weights
from ticketsweep.train.transfer import predictions_of_pairs


@dataclass(frozen=True)
class TicketPack:
    """The tickets of a trial's replicates that have any; tensors have a row for each of them.

    Attributes
    ----------
    row: the trial's, of `trials`.
    input_shape: channels, height and width of an image.
    replicates: by number; numbers of others are left out.
    weights: W_k of each, (R, G) and (R, O).
    gates: what is kept of the gates, bool (R, U).
    kept: what is kept of every parameter, bool (R, G) and (R, O).
    classes: what each ticket takes the test split's images for, int64 (R, N); -1 where an output is
        not finite.
    """

    row: Row
    bench: Bench
    input_shape: tuple[int, int, int]
    replicates: tuple[Replicate, ...]
    weights: Weights
    gates: Tensor
    kept: Weights
    classes: NDArray[np.int64]

    @property
    def tickets(self) -> Weights:
        """The weights under their masks."""
        return self.weights.where(self.kept)

    def row_of(self, replicate: Replicate) -> int:
        """The row of a replicate."""
        return self.replicates.index(replicate)


def remade_tickets(
    database: Database,
    row: Row,
    replicates: Sequence[Replicate],
    config: TrialConfig,
    dataset: Dataset,
    *,
    retrain_steps: int | None,
) -> Generator[StageProgress, None, TicketPack]:
    """Make the tickets of these replicates of a trial, with their weights.

    Parameters
    ----------
    row: of `trials`.
    config, dataset: the trial's, as `config_now` gives it, and the data that it names.
    retrain_steps: in the place of the trial's own, for the plan of what is done with the tickets.

    Yields
    ------
    StageProgress while weights are trained to the rewinding step, if there is one.

    Raises
    ------
    ExchangeError: the data or the model is no more what it was.
    """
    device = device_now(config, row)
    plan = plan_now(config, dataset, row)
    if retrain_steps is not None:
        how = {**config.retrain.model_dump(), "steps": retrain_steps}
        plan = replace(plan, retrain=Optimisation(**how))
    bench = Bench.of(plan, dataset, device)
    trial_id, counts = str(row["trial_id"]), config.replicates
    planned = replicate_plan(config.seed, init=counts.init, data=counts.data, gate=counts.gate)
    with threads_of(row):
        weights = yield from bench.rewound(database.storage, row, replicates, planned=planned)
    sweep = str(row["sweep"])
    stored = (database.ticket(trial_id, each.index, sweep=sweep) for each in replicates)
    gates = torch.cat([flat_gates(bench.network, each, row) for each in stored]).to(device)
    kept = kept_by(bench.network, gates)
    own = [(at, at) for at in range(len(replicates))]
    classes = yield from classes_of(bench, weights, kept, own, stage="tickets")
    return TicketPack(
        row, bench, dataset.input_shape, tuple(replicates), weights, gates, kept, classes
    )


def classes_of(
    bench: Bench, weights: Weights, masks: Weights, pairs: Sequence[tuple[int, int]], *, stage: str
) -> Generator[StageProgress, None, NDArray[np.int64]]:
    """Classes int64 (len(pairs), N) that networks take the test split's images for.

    Parameters
    ----------
    weights, masks: (R, G) and (R, O), and bool (M, G) and (M, O).
    pairs: a row of `weights` and a row of `masks` for each network.
    stage: under which it is told how many are scored.
    """
    scoring = predictions_of_pairs(bench.evaluator, weights, masks, pairs)
    while True:
        try:
            done = next(scoring)
        except StopIteration as end:
            classes: NDArray[np.int64] = end.value
            return classes
        yield StageProgress(stage, done, len(pairs))
