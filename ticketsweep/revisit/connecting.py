"""Tickets retrained, and whether what training reaches lies in one basin."""

from __future__ import annotations

from collections.abc import Generator

import torch

from ticketsweep.progress import StageProgress
from ticketsweep.revisit.bench import packs_of
from ticketsweep.revisit.jobs import ALPHAS
from ticketsweep.revisit.pairs import Work
from ticketsweep.revisit.predicting import Measures
from ticketsweep.revisit.tickets import TicketPack
from ticketsweep.seeds import derive_seed
from ticketsweep.train.augment import augmentation_of
from ticketsweep.train.checkpoint import Checkpoints
from ticketsweep.train.connectivity import Paths, barriers, error_paths
from ticketsweep.train.images import BatchOrder
from ticketsweep.train.pack import Weights
from ticketsweep.train.weights import Passage, train_weights

# The first is that of a trial's own retraining, so that it is done here once more.
_ORDERS = ("retrain-batches", "connectivity-batches")
_REPORTS = 12


def connected(pack: TicketPack, work: Work) -> Generator[StageProgress, None, Measures]:
    """Error barriers (Frankle et al. 2020) between retrained tickets, and errors at the ends.

    Each ticket is retrained twice from its own weights under its own mask, in two orders of the
    data: for a replicate with itself, the line is between these two. Between two replicates it is
    between their first retrainings, in the order of each one's data seed and under each one's mask.
    """
    networks: list[Weights] = []
    for run, order in enumerate(_ORDERS):
        trained = yield from _retrained(pack, order, stage=f"{work.kind}-{run + 1}")
        networks.append(trained)
    every = Weights(
        torch.cat([each.gated for each in networks]), torch.cat([each.rest for each in networks])
    )
    again = len(pack.replicates)  # where the rows of the second retraining begin
    rows = [(pack.row_of(first), pack.row_of(second)) for first, second in work.pairs]
    ends = [(a, again + b if a == b else b) for a, b in rows]
    walking = error_paths(pack.bench.evaluator, every, ends, alphas=ALPHAS)
    while True:
        try:
            done = next(walking)
        except StopIteration as end:
            paths: Paths = end.value
            break
        yield StageProgress(work.kind, done, len(ends) * ALPHAS)
    of_train, of_test = barriers(paths.train), barriers(paths.test)
    return [
        {
            "test_barrier": float(of_test[at]),
            "train_barrier": float(of_train[at]),
            "test_error": float(paths.test[at, [0, -1]].mean()),
            "train_error": float(paths.train[at, [0, -1]].mean()),
        }
        for at in range(len(ends))
    ]


def _retrained(
    pack: TicketPack, order: str, *, stage: str
) -> Generator[StageProgress, None, Weights]:
    """The tickets after retraining, in packs as large as the trial's own."""
    bench, how = pack.bench, pack.bench.plan.retrain
    assert how is not None
    tickets = pack.tickets
    for replicates in packs_of(pack.row, pack.replicates):
        rows = [pack.row_of(each) for each in replicates]
        streams = [derive_seed(pack.replicates[at].data_seed, order) for at in rows]
        own = tickets.rows(rows)
        training = train_weights(
            bench.packed,
            own,
            bench.train,
            [BatchOrder(bench.rows, batch_size=how.batch_size, seed=seed) for seed in streams],
            how,
            kept=pack.kept.rows(rows),
            augmentation=augmentation_of(bench.plan.augment, streams),
            stage=stage,
            checkpoints=Checkpoints(None),
            reports=_REPORTS,
        )
        for passage in training:
            if isinstance(passage, Passage):
                yield StageProgress(passage.stage, passage.step, passage.steps)
        tickets.gated[rows], tickets.rest[rows] = own.gated, own.rest
    return tickets
