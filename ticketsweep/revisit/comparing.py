"""One trial's tickets compared, each kind stored as soon as it is there."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping

from ticketsweep.config import TrialConfig
from ticketsweep.errors import TrialFailure
from ticketsweep.progress import StageProgress
from ticketsweep.results.function import ALIGN, CONNECTIVITY, PREDICTIONS, TRANSFER
from ticketsweep.revisit.connecting import connected
from ticketsweep.revisit.jobs import Job
from ticketsweep.revisit.matching import aligned, transferred
from ticketsweep.revisit.pairs import Work, differs
from ticketsweep.revisit.predicting import Measures, accuracies, predictions
from ticketsweep.revisit.tickets import TicketPack, remade_tickets
from ticketsweep.store.comparisons import ComparedPair, write_comparisons
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.train.data import Dataset
from ticketsweep.train.memory import is_out_of_memory

_KINDS: Mapping[str, Callable[[TicketPack, Work], Generator[StageProgress, None, Measures]]] = {
    PREDICTIONS: predictions,
    TRANSFER: transferred,
    CONNECTIVITY: connected,
    ALIGN: aligned,
}


def compare_trial(
    storage: Storage, job: Job, *, config: TrialConfig, dataset: Dataset
) -> Generator[StageProgress, None, tuple[str, ...]]:
    """Make the tickets of a trial again, compare them, and store what is found kind by kind.

    Parameters
    ----------
    config, dataset: the trial's, as `config_now` gives it, and the data that it names.

    Yields
    ------
    StageProgress of pre-training, and of each kind of comparison under its name.

    Returns
    -------
    Sentences that one should know: where tickets are not what they were when they were found.

    Raises
    ------
    ExchangeError: the data or the model is no more what it was.
    StorageError: the storage cannot be written to.
    TrialFailure: memory does not suffice.
    """
    doing = "the tickets"
    try:
        pack = yield from remade_tickets(
            Database(storage),
            job.row,
            job.replicates,
            config,
            dataset,
            retrain_steps=job.retrain_steps or None,
        )
        for work in job.works:
            doing = work.kind
            measured = yield from _KINDS[work.kind](pack, work)
            found = [
                ComparedPair(first.index, second.index, differs(first, second), _finite(measures))
                for (first, second), measures in zip(work.pairs, measured, strict=True)
            ]
            write_comparisons(
                storage,
                str(job.row["sweep"]),
                job.trial_id,
                work.kind,
                found,
                settings=work.settings,
            )
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrialFailure(
            f"out of memory at {doing} of trial {job.trial_id} (free some, or compare it "
            "where there is more)"
        ) from error
    return _strayed(pack, job)


def _strayed(pack: TicketPack, job: Job) -> tuple[str, ...]:
    """A sentence on tickets whose accuracy is another than when they were found."""
    images = pack.classes.shape[1]
    away = [
        round(abs(now - before) * images)
        for replicate, now in zip(pack.replicates, accuracies(pack, pack.classes), strict=True)
        if now is not None and (before := job.accuracies.get(replicate.index)) is not None
    ]
    if not any(away):
        return ()
    return (
        f"trial {job.trial_id}: the tickets get up to {max(away)} of {images} test images more or "
        f"less right here than when they were found on {job.row['device']} (rounding on another "
        f"machine may do this)",
    )


def _finite(measures: Mapping[str, float | None]) -> dict[str, float]:
    return {k: v for k, v in measures.items() if v is not None and math.isfinite(v)}
