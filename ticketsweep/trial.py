"""One trial from end to end, without Ray: configuration, pack, stages, store.

`run_trial` is a generator: it yields progress and returns the outcome, so the same code serves the
command line, a Ray worker and a test.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import logging
import math
import platform
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ticketsweep import __version__
from ticketsweep.analysis.stability import Stability
from ticketsweep.config import TrialConfig
from ticketsweep.errors import DeviceLost, StorageError, TrialFailure, UserError
from ticketsweep.planning import CURVE_POINTS, identify, plan_of
from ticketsweep.progress import UNDER_WAY, Alive, Progress, Rung, StageProgress
from ticketsweep.records import (
    at_rung,
    curve_rows,
    identity_columns,
    mask_rows,
    replicate_rows,
    ticket_stability,
    trial_figures,
)
from ticketsweep.seeds import Replicate, replicate_plan
from ticketsweep.store.checkpoints import CheckpointFile
from ticketsweep.store.database import Database
from ticketsweep.store.files import UnreadableFile
from ticketsweep.store.paths import Storage
from ticketsweep.store.patience import patiently, waiting
from ticketsweep.store.schema import TrialRows
from ticketsweep.store.writer import copy_trial, write_trial
from ticketsweep.train.checkpoint import Checkpoints
from ticketsweep.train.data import Dataset
from ticketsweep.train.learning import CurvePoint
from ticketsweep.train.packs import find_tickets
from ticketsweep.train.spreading import Packs
from ticketsweep.train.tickets import Tickets

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrialOutcome:
    """What a trial came to.

    Attributes
    ----------
    row: the trial's row of the `trials` table.
    stability: overlap of its tickets; None for a single ticket or a reused trial.
    reused: a complete trial with the same id was in the storage, and nothing was trained.
    """

    row: Mapping[str, object]
    stability: Stability | None
    reused: bool


T = TypeVar("T")


def alive_while_waiting(action: Callable[[], T], *, seconds: float) -> Generator[Alive, None, T]:
    """`waiting`, its reasons told as signs of life."""
    trying = waiting(action, seconds=seconds)
    while True:
        try:
            yield Alive(waiting=next(trying))
        except StopIteration as stop:
            result: T = stop.value
            return result


def run_trial(
    config: TrialConfig,
    *,
    dataset: Dataset,
    storage: Storage,
    sweep: str,
    search: str | None = None,
    failures: int = 0,
    rungs: Collection[int] = (),
    patience: float = 0,
    gpus: int = 1,
    last_by: float = math.inf,
) -> Generator[Progress | StageProgress | Alive | Rung, None, TrialOutcome]:
    """Find the tickets of one configuration and store them, unless they are stored already.

    A trial that was cut off goes on from its checkpoint. One that cannot be finished (all of it
    diverged, say) is stored, and returned, as failed.

    Parameters
    ----------
    dataset: the data that `config.dataset` names.
    search: the sampler's record of the suggestion (JSON), stored with the trial.
    failures: how often this trial failed before.
    rungs: steps of gate learning after which the ticket so far is stored as that of a stopped
        trial, so that the trial may be stopped there; those of the stages that follow are none.
    patience: seconds for which a storage is waited for that cannot be read or written to. One that
        takes no checkpoint is not waited for: if the trial is cut off, that costs more.
    gpus: over how many the trial's packs are spread, if it runs on any: the first that are visible.
    last_by: moment of `time.monotonic` at which a checkpoint is written, for the trial to stop.

    Yields
    ------
    Progress at about a dozen steps of each stage, and signs of life in between; at rungs, `Rung`.

    Raises
    ------
    UserError: the configuration does not fit the data, or the storage cannot be written.
    DeviceLost: a process has to be started for this trial, and for any other.
    """
    identity = identify(config, dataset)

    def persist(action: Callable[[], T]) -> Generator[Alive, None, T]:
        return alive_while_waiting(action, seconds=patience)

    stored = yield from persist(lambda: reuse_trial(storage, sweep, identity, search=search))
    if stored is not None:
        _LOG.info("complete in the storage already: nothing is trained")
        return TrialOutcome(stored, stability=None, reused=True)
    started_at, clock = datetime.datetime.now(datetime.UTC), time.perf_counter()
    counts = config.replicates
    replicates = replicate_plan(config.seed, init=counts.init, data=counts.data, gate=counts.gate)
    packs, step = Packs((len(replicates),), done=0), 0
    device = _device(config.device)
    devices = _devices(device, gpus)
    checkpoint = CheckpointFile(storage, identity)
    passed: dict[str, float] = {}
    if rungs:
        passed = yield from persist(lambda: _rungs_passed(storage, sweep, identity))

    def store(rows: TrialRows) -> Generator[Alive, None, None]:
        yield from persist(lambda: write_trial(storage, sweep, rows))

    common = identity_columns(config, sweep, identity) | {
        "search": search,
        "host": platform.node(),
        "device": _device_name(device),
        "version": __version__,
        "started_at": started_at,
    }
    _LOG.info(
        "trial %s of sweep %s: %d replicates on %s (%s, %d threads), ticketsweep %s",
        *(identity, sweep, len(replicates), common["host"], common["device"]),
        *(torch.get_num_threads(), __version__),
    )
    _LOG.info("settings: %s", config.model_dump_json())
    try:
        training = find_tickets(
            plan_of(config, dataset),
            dataset,
            replicates,
            log_points=CURVE_POINTS,
            devices=devices,
            checkpoints=Checkpoints(
                _Lenient(checkpoint, patience),
                seconds=config.checkpoint_seconds,
                device=device,
                last_by=last_by,
            ),
            pack=config.pack,
            snapshots=config.snapshots,
            rungs=rungs,
        )
        while True:
            try:
                report = next(training)
            except StopIteration as stop:
                tickets: Tickets = stop.value
                break
            if isinstance(report, Packs):
                if (report.sizes, report.done) != (packs.sizes, packs.done):
                    _LOG.info("packs of %s replicates, %d of them done", report.sizes, report.done)
                packs = report
            elif isinstance(report, CurvePoint):
                step = report.step
                yield _progress(report, config.train.steps, packs)
            elif isinstance(report, Tickets):
                count = len(packs.sizes)
                rows = _rows_of(report, replicates, common, started=clock, packs=count)
                passed |= at_rung(report)
                going_on = {UNDER_WAY: 1.0, **({"failures": float(failures)} if failures else {})}
                row = _with_metrics(rows.trial, passed | going_on) | {"status": "stopped"}
                yield from store(dataclasses.replace(rows, trial=row))
                yield Rung(row)
            elif isinstance(report, Alive):
                yield _alive(report, packs)
            else:
                yield StageProgress(report.stage, report.step, report.steps)
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, torch.AcceleratorError) or (device == "cuda" and _is_lost(devices)):
            raise DeviceLost(
                f"the GPU's context is lost: {_first_line(error)} (run the trial again; if it ends "
                f"so again, look at the GPU's log with `nvidia-smi -q`)"
            ) from error
        _LOG.info("the trial has failed", exc_info=error)
        row = common | {
            "status": "failed",
            "error": _first_line(error),
            "steps_done": step,
            "wall_seconds": time.perf_counter() - clock,
            "metrics": {"failures": float(failures + 1)},
        }
        yield from store(TrialRows(trial=row, replicates=[], masks=[], curves=[]))
        checkpoint.delete()  # going on from it would end alike
        return TrialOutcome(row, stability=None, reused=False)
    rows = _rows_of(tickets, replicates, common, started=clock, packs=len(packs.sizes))
    rows = dataclasses.replace(rows, trial=_with_metrics(rows.trial, passed))
    yield from store(rows)
    checkpoint.delete()
    return TrialOutcome(rows.trial, ticket_stability(tickets, replicates), reused=False)


def _rows_of(
    tickets: Tickets,
    replicates: Sequence[Replicate],
    common: Mapping[str, object],
    *,
    started: float,
    packs: int,
) -> TrialRows:
    """The rows of a complete trial that began at `started` by the clock of `time.perf_counter`."""
    stability = ticket_stability(tickets, replicates)
    row = {
        **common,
        "status": "complete",
        "error": None,
        "steps_done": tickets.steps,
        "wall_seconds": time.perf_counter() - started,
        **trial_figures(tickets, stability, threads=torch.get_num_threads(), packs=packs),
    }
    return TrialRows(
        trial=row,
        replicates=replicate_rows(tickets, replicates),
        masks=mask_rows(tickets),
        curves=curve_rows(tickets.curve),
    )


def _rungs_passed(storage: Storage, sweep: str, identity: str) -> dict[str, float]:
    """`at_rung` of the rungs that the trial had come to when it was cut off."""
    row = Database(storage).trial(sweep, identity) or {}
    metrics: dict[str, float] = dict(row.get("metrics") or {})
    return {name: value for name, value in metrics.items() if "_at_step_" in name}


def _with_metrics(row: Mapping[str, object], more: Mapping[str, float]) -> dict[str, object]:
    metrics = row["metrics"]
    assert isinstance(metrics, Mapping)
    return {**row, "metrics": {**metrics, **more}}


@dataclass(frozen=True)
class _Lenient:
    """A checkpoint that may fail to be written: the one before stays, and the trial goes on.

    To read it, a storage that is away is waited for: to begin anew may cost hours.
    """

    file: CheckpointFile
    patience: float

    def read(self) -> bytes | None:
        return patiently(self.file.read, seconds=self.patience)

    def write(self, content: bytes) -> None:
        with contextlib.suppress(StorageError):
            self.file.write(content)


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


def _device(wanted: str) -> str:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device must be auto or cpu here, got 'cuda' (torch sees no CUDA device; "
            "check the driver, or set device: cpu)"
        )
    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"


def _devices(kind: str, gpus: int) -> list[str]:
    """The trial's own: the first of all GPUs that this process sees."""
    if kind != "cuda" or gpus == 1:
        return [kind]
    return [f"cuda:{at}" for at in range(min(gpus, torch.cuda.device_count()))]


def _is_lost(devices: Sequence[str]) -> bool:
    """Whether CUDA refuses all work of this process on a device, as after a kernel's fault.

    Which error comes first is chance: cuBLAS says no more than that something is wrong inside.
    """
    try:
        for device in devices:
            torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else device


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    kind = "" if isinstance(error, TrialFailure) else f"{type(error).__name__}: "
    return f"{kind}{text[0] if text else 'no message'}"[:500]


def _alive(report: Alive, packs: Packs) -> Alive:
    """A sign of life; steps of gate learning are counted over all packs, as in `Progress`."""
    if report.stage or not report.steps:
        return report
    step = packs.elsewhere + report.step
    return dataclasses.replace(report, step=step, steps=len(packs.sizes) * report.steps)


def _progress(point: CurvePoint, steps: int, packs: Packs) -> Progress:
    alive = ~np.isnan(point.loss)

    def mean(figures: NDArray[np.float64]) -> float:
        return float(figures[alive].mean()) if alive.any() else math.nan

    return Progress(
        step=packs.elsewhere + point.step,
        steps=len(packs.sizes) * steps,
        loss=mean(point.loss),
        val_accuracy=mean(point.val_accuracy),
        expected_density=mean(point.expected_density),
        replicates={
            packs.first + at: {
                "loss": float(point.loss[at]),
                "val_accuracy": float(point.val_accuracy[at]),
                "expected_density": float(point.expected_density[at]),
                "mask_change": float(point.mask_change[at]),
            }
            for at in np.flatnonzero(alive).tolist()
        },
    )
