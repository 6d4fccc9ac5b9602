"""A sweep from start to end: what is stored is kept, what is missing is run, and nothing twice."""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ticketsweep.sweep.cluster import Cluster, connect  # first: it sets Ray's environment

# isort: split
import optuna
from ray import tune

from ticketsweep import __version__
from ticketsweep.config import TrialConfig
from ticketsweep.errors import ConfigError, Fault
from ticketsweep.space import SweepSpec
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.writer import remove_leftovers, write_sweep
from ticketsweep.sweep.jobs import JobQueue, JobSearcher, SweepCallback
from ticketsweep.sweep.observer import Observer
from ticketsweep.sweep.search import Search, TrialRow
from ticketsweep.sweep.tracking import Mode, tracker
from ticketsweep.sweep.worker import TrialWorker
from ticketsweep.train.data import Dataset
from ticketsweep.train.models import build_model
from ticketsweep.trial import identify, load_data


@dataclass(frozen=True)
class SweepOutcome:
    """What a run of a sweep came to.

    Attributes
    ----------
    rows: every stored trial of the sweep, of earlier runs too.
    interrupted: Ctrl-C or SIGTERM ended it.
    exhausted: the space has fewer distinct configurations than were asked for.
    """

    name: str
    rows: tuple[TrialRow, ...]
    interrupted: bool
    exhausted: bool


def run_sweep(
    spec: SweepSpec,
    *,
    storage: Storage,
    address: str | None,
    tracking: Mode,
    observer: Observer,
) -> SweepOutcome:
    """Run what the sweep still lacks, and return all of it.

    Parameters
    ----------
    address: of a running Ray cluster; None starts a local Ray and ends it again.

    Raises
    ------
    UserError: before Ray is started, whatever is wrong with the space, the data, the models, the
        resources, or a stored sweep of the same name.
    """
    settings = spec.settings
    stored = _stored_rows(spec, storage, observer)
    datasets = _load_datasets(spec, observer)
    _check_models(spec, datasets)
    _check_sweep(spec, storage)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search = Search(
        spec,
        identify=lambda config: identify(config, datasets[config.dataset]),
        journal=storage.optuna_journal(settings.name),
    )
    search.restore(stored)
    queue = JobQueue(spec, search, storage, on_stored=observer.trial_finished)
    interrupted = False
    if queue.has_work():
        if address is None:
            _check_resources(spec)
        observer.phase("starting Ray" if address is None else f"connecting to Ray at {address}")
        shared = sum(_size(dataset) for dataset in datasets.values())
        folder = storage.tracking_folder()
        try:
            with (
                _terminable(),
                connect(address, shared_bytes=shared) as cluster,
                tracker(settings.name, mode=tracking, folder=folder, warn=observer.warn) as track,
                tempfile.TemporaryDirectory(prefix="ticketsweep-tune-") as scratch,
            ):
                queue.concurrency = _concurrency(spec, cluster)
                observer.sweep_started(
                    name=settings.name,
                    samples=settings.samples,
                    stored=queue.stored,
                    concurrency=queue.concurrency,
                )
                callback = SweepCallback(queue, observer, track)
                _fit(spec, storage, datasets, queue, callback, Path(scratch))
        except KeyboardInterrupt:
            interrupted = True
    search.close()
    rows = Database(storage).trials(settings.name).to_pylist()
    return SweepOutcome(settings.name, tuple(rows), interrupted, queue.exhausted)


def _fit(
    spec: SweepSpec,
    storage: Storage,
    datasets: Mapping[str, Dataset],
    queue: JobQueue,
    callback: SweepCallback,
    scratch: Path,
) -> None:
    """Let Tune run jobs until the queue has no more."""
    resources = spec.settings.resources
    worker = tune.with_parameters(
        TrialWorker,
        datasets=dict(datasets),
        storage=storage.uri if storage.local is None else str(storage.local),
        sweep=spec.settings.name,
        threads=max(1, int(resources.cpus)),
    )
    tuner = tune.Tuner(
        tune.with_resources(worker, {"cpu": resources.cpus, "gpu": resources.gpus}),
        tune_config=tune.TuneConfig(
            search_alg=JobSearcher(queue), num_samples=-1, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name=spec.settings.name,
            storage_path=str(scratch),
            verbose=0,
            callbacks=[callback],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=spec.settings.max_failures),
        ),
    )
    tuner.fit()


def _stored_rows(spec: SweepSpec, storage: Storage, observer: Observer) -> list[TrialRow]:
    database = Database(storage)
    name = spec.settings.name
    for row in database.sweeps().to_pylist():
        if row["sweep"] == name:
            spec.refuse_if_different(row["space"], json.dumps(dict(row["objectives"])))
    rows: list[TrialRow] = database.trials(name).to_pylist()
    for warning in database.warnings:
        observer.warn(warning)
    return rows


def _load_datasets(spec: SweepSpec, observer: Observer) -> dict[str, Dataset]:
    datasets = {}
    root = spec.values_of("data_root")[0]
    for name in spec.values_of("dataset"):
        observer.phase(f"loading {name}")
        datasets[name] = load_data(TrialConfig(dataset=name, data_root=root))
    return datasets


def _check_models(spec: SweepSpec, datasets: Mapping[str, Dataset]) -> None:
    for name in spec.values_of("model"):
        for dataset in datasets.values():
            build_model(name, input_shape=dataset.input_shape, classes=dataset.classes)


def _check_sweep(spec: SweepSpec, storage: Storage) -> None:
    """Write the sweep's own row where it is new, and sweep up what killed writers left."""
    settings = spec.settings
    remove_leftovers(storage, settings.name)
    if any(row["sweep"] == settings.name for row in Database(storage).sweeps().to_pylist()):
        return
    write_sweep(
        storage,
        {
            "sweep": settings.name,
            "created_at": datetime.datetime.now(datetime.UTC),
            "version": __version__,
            "space": json.dumps(spec.as_plain(), sort_keys=True),
            "objectives": dict(settings.objectives),
            "samples": settings.samples,
            "seed": settings.seed,
        },
    )


def _check_resources(spec: SweepSpec) -> None:
    """Refuse what this machine can never give; a cluster may still grow."""
    import torch

    wanted = spec.settings.resources
    have = {"cpus": float(os.cpu_count() or 1), "gpus": float(torch.cuda.device_count())}
    faults = [
        Fault(
            f"sweep.resources.{kind}",
            getattr(wanted, kind),
            f"must be <= {limit:g}, what this machine has",
            "or name a larger cluster with --address",
        )
        for kind, limit in have.items()
        if getattr(wanted, kind) > limit
    ]
    if faults:
        raise ConfigError(spec.source, faults)


def _concurrency(spec: SweepSpec, cluster: Cluster) -> int:
    """How many trials run at once: what the resources allow, and no more than asked for."""
    wanted = spec.settings.resources
    allowed = cluster.cpus / wanted.cpus
    if wanted.gpus:
        allowed = min(allowed, cluster.gpus / wanted.gpus)
    fitting = max(1, math.floor(allowed + 1e-9))
    return min(fitting, spec.settings.concurrency or fitting)


def _size(dataset: Dataset) -> int:
    return dataset.train_images.nbytes + dataset.test_images.nbytes


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, what schedulers and `kill` send, ends a sweep as cleanly as Ctrl-C."""

    def interrupt(_signal: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread, where signals cannot be caught
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
