"""A sweep from start to end: what is stored is kept, what is missing is run, and nothing twice."""

from __future__ import annotations

import datetime
import functools
import itertools
import json
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ticketsweep import __version__
from ticketsweep.config import TrialConfig, parse_config
from ticketsweep.distributions import corners
from ticketsweep.errors import ConfigError, DataError, ModelError, StorageError, SweepError
from ticketsweep.results.rows import Row, config_of, is_imported
from ticketsweep.space import SweepSpec
from ticketsweep.store.claims import Claim, claimed
from ticketsweep.store.database import Database
from ticketsweep.store.identity import identity_of
from ticketsweep.store.outlines import indexing
from ticketsweep.store.paths import Storage
from ticketsweep.store.patience import patiently
from ticketsweep.store.schema import TRIALS
from ticketsweep.store.under_way import note_ended, trials_under_way
from ticketsweep.store.writer import remove_leftovers, write_sweep
from ticketsweep.sweep.broadcast import broadcast
from ticketsweep.sweep.budget import Budget, Closing
from ticketsweep.sweep.interrupts import Interrupts
from ticketsweep.sweep.observer import Observer
from ticketsweep.sweep.resources import check_resources, concurrency, fitting, local_cpus
from ticketsweep.sweep.stored import is_done
from ticketsweep.sweep.tracking import Mode, SweepTracking, are_behind, how_to_upload, tracker

# What is slow to import is imported once it is needed: a sweep that has all its trials never is
# kept waiting for torch, Optuna or Ray.
if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from ticketsweep.planning import DataKey
    from ticketsweep.sweep.jobs import JobQueue
    from ticketsweep.sweep.server import Mirror
    from ticketsweep.train.data import Dataset


@dataclass(frozen=True)
class SweepOutcome:
    """What a run of a sweep came to.

    Attributes
    ----------
    rows: every stored trial of the sweep, of earlier runs too.
    interrupted: Ctrl-C or SIGTERM ended it.
    exhausted: the space has fewer distinct configurations than were asked for.
    out_of_time: it has ended since its time was up, with trials left to run.
    to_upload: the command that uploads what W&B has recorded offline; empty where nothing is.
    """

    name: str
    rows: tuple[Row, ...]
    interrupted: bool
    exhausted: bool
    out_of_time: bool = False
    to_upload: str = ""


def run_sweep(
    spec: SweepSpec,
    *,
    storage: Storage,
    address: str | None,
    tracking: Mode,
    trackers: Collection[str] = ("wandb",),
    observer: Observer,
    seconds: float | None = None,
    retry_failed: bool = False,
    optuna_storage: URL | None = None,
) -> SweepOutcome:
    """Run what the sweep still lacks, and return all of it.

    Parameters
    ----------
    address: of a running Ray cluster; None starts a local Ray and ends it again.
    tracking: where W&B puts its runs, if it is among the trackers.
    trackers: of `tracking.TRACKERS`.
    seconds: that this may take; what is running then is stopped at its next checkpoint.
    retry_failed: run trials again that have failed more often than `max_failures`.
    optuna_storage: database that Optuna's study is mirrored to, in place of the journal.

    Raises
    ------
    UserError: before Ray is started, whatever is wrong with the space, the data, the models, the
        resources, the database for Optuna, or a stored sweep of the same name; or another process
        runs the sweep.
    """
    name = spec.settings.name
    budget = Budget(seconds)
    with (
        claimed(storage, name, "run", waiting=observer.phase) as claim,
        broadcast(observer, storage, name) as telling,
        indexing(storage, name),
    ):
        outcome = _run_claimed(
            *(spec, claim, storage, address, tracking, trackers, telling, budget),
            retry_failed=retry_failed,
            optuna_storage=optuna_storage,
        )
        if outcome.interrupted:
            telling.outcome = "interrupted"
        elif outcome.out_of_time:
            telling.outcome = "out of time"
        return outcome


def _run_claimed(
    spec: SweepSpec,
    claim: Claim,
    storage: Storage,
    address: str | None,
    tracking: Mode,
    trackers: Collection[str],
    observer: Observer,
    budget: Budget,
    *,
    retry_failed: bool,
    optuna_storage: URL | None,
) -> SweepOutcome:
    """`run_sweep`, by the only process that does so."""
    settings = spec.settings
    stored = stored_rows(spec, storage, observer)
    mirror = None if optuna_storage is None else _mirror(spec, storage, optuna_storage, observer)
    tracked = functools.partial(
        tracker,
        settings.name,
        trackers,
        mode=tracking,
        storage=storage,
        objectives=settings.objectives,
        warn=observer.warn,
    )
    if is_done(stored, settings, retry_failed=retry_failed):
        _refuse_if_own_code_changed(spec, stored, observer)
        begun = trials_under_way(storage, settings.name).get(settings.name, set())
        for trial_id in begun.intersection(str(row["trial_id"]) for row in stored):
            note_ended(storage, settings.name, trial_id)  # killed between storing and noting it
        _record_sweep(spec, storage, begun=True)  # its trials may come from single ones
        if mirror is not None:
            from ticketsweep.sweep.search import mirror_stored

            mirror_stored(mirror, stored, settings.objectives)
        if are_behind(storage, settings.name, trackers, mode=tracking, stored=stored):
            with tracked(stored=stored):
                observer.phase("tracking what was stored before")
        rows = _whole_rows(spec, storage, observer)
        return SweepOutcome(
            settings.name,
            rows,
            interrupted=False,
            exhausted=False,
            to_upload=how_to_upload(storage, settings.name) if "wandb" in trackers else "",
        )
    if address is None:
        check_resources(spec)
    datasets = load_datasets(spec, observer)
    refuse_if_changed(spec, stored, datasets)
    check_trials(spec, datasets)
    remove_leftovers(storage, settings.name)
    _record_sweep(spec, storage, begun=bool(stored))

    import optuna

    from ticketsweep.planning import data_key, identify
    from ticketsweep.sweep.jobs import JobQueue
    from ticketsweep.sweep.search import Search

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search = Search(
        spec,
        identify=lambda config: identify(config, datasets[data_key(config)]),
        journal=storage.optuna_journal(settings.name),
        mirror=mirror,
    )
    search.restore(stored)
    queue = JobQueue(spec, search, storage, budget=budget, retry_failed=retry_failed)
    interrupted = False
    try:
        if queue.look_ahead():
            with Interrupts() as interrupts:
                _run(
                    *(spec, queue, datasets, storage, address, tracked, observer),
                    *(interrupts, claim, budget),
                )
        elif are_behind(
            *(storage, settings.name, trackers), mode=tracking, stored=(settled := queue.settled)
        ):
            with tracked(stored=settled):
                observer.phase("tracking what was stored before")
    # The second is how Ray answers SIGTERM while it is starting.
    except (KeyboardInterrupt, SystemExit):
        interrupted = True
    finally:
        search.close()
    rows = _whole_rows(spec, storage, observer)
    out_of_time = queue.is_short and not interrupted
    to_upload = how_to_upload(storage, settings.name) if "wandb" in trackers else ""
    return SweepOutcome(
        *(settings.name, rows, interrupted, queue.exhausted, out_of_time, to_upload)
    )


def _whole_rows(spec: SweepSpec, storage: Storage, observer: Observer) -> tuple[Row, ...]:
    """All of every stored trial, checked as it is read."""
    settings, database = spec.settings, Database(storage)
    found = patiently(
        lambda: database.trials(settings.name),
        seconds=settings.storage_seconds,
        on_wait=observer.phase,
    )
    for warning in database.warnings:
        observer.warn(warning)
    return tuple(found.to_pylist())


def _mirror(spec: SweepSpec, storage: Storage, url: URL, observer: Observer) -> Mirror:
    """Where the study is mirrored to, once the database has answered."""
    import optuna

    from ticketsweep.sweep.server import Mirror, Server

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings = spec.settings
    observer.phase("connecting to the Optuna database")
    server = Server(
        url,
        sweep=settings.name,
        owner=identity_of(storage),
        place=storage.place,
        objectives=settings.objectives,
    )
    return Mirror(server, warn=observer.warn)


def _run(
    spec: SweepSpec,
    queue: JobQueue,
    datasets: Mapping[DataKey, Dataset],
    storage: Storage,
    address: str | None,
    tracked: Callable[..., AbstractContextManager[SweepTracking]],
    observer: Observer,
    interrupts: Interrupts,
    claim: Claim,
    budget: Budget,
) -> None:
    """Start or join Ray and let it run the queue's jobs."""
    observer.phase("starting Ray" if address is None else f"connecting to Ray at {address}")
    from ticketsweep.sweep.cluster import connect
    from ticketsweep.sweep.tuning import run_jobs

    settings = spec.settings
    shared = sum(_size(dataset) for dataset in datasets.values())
    with (
        connect(
            address,
            cpus=local_cpus(),
            shared_bytes=shared,
            storage=storage,
            sweep=settings.name,
        ) as cluster,
        tracked(stored=queue.settled) as track,
    ):
        interrupts.install()
        interrupts.check()
        capacity = cluster.capacity
        if fitting(spec, capacity.cpus, capacity.gpus) < 1:
            wanted = settings.resources
            observer.warn(
                f"a trial wants {wanted.cpus:g} CPUs and {wanted.gpus:g} GPUs, and the cluster has "
                f"{capacity.cpus:g} and {capacity.gpus:g}: it waits until the cluster has grown"
            )
        elif settings.resources.gpus > capacity.gpus_of_one:
            observer.warn(
                f"a trial wants {settings.resources.gpus:g} GPUs of one machine, and none of the "
                f"cluster has more than {capacity.gpus_of_one:g}: it waits until one joins"
            )
        if capacity.gpus and not settings.resources.gpus:
            observer.warn(
                "trials train on CPUs though there are GPUs, since sweep.resources.gpus is 0 "
                "(1 gives each trial one, 0.25 a quarter: --set sweep.resources.gpus=1)"
            )

        def places() -> int:
            return concurrency(spec, capacity.cpus, capacity.gpus, grows=capacity.grows)

        def check() -> None:
            interrupts.check()
            claim.check()
            cluster.check()

        observer.sweep_started(
            name=settings.name,
            samples=settings.samples,
            stored=queue.stored,
            concurrency=places(),
            earlier=queue.earlier,
        )
        queue.open(
            places=places,
            on_stored=observer.trial_finished,
            on_copied=track.copied,
            on_wait=observer.phase,
        )
        run_jobs(
            queue,
            settings,
            storage=storage.place,
            datasets=datasets,
            observer=observer,
            tracker=track,
            scratch=cluster.scratch,
            check=check,
            closing=Closing(budget, lambda: _checkpoint_times(storage)),
        )
        observer.phase("stopping Ray")


def stored_rows(spec: SweepSpec, storage: Storage, observer: Observer) -> list[Row]:
    """The sweep's stored trials, which must be of the same space."""
    database = Database(storage)
    name = spec.settings.name
    rows: list[Row] = [*database.outlines(name, columns=TRIALS.names, indexed=False)]
    sweep = _sweep_row(database, name)
    if any(is_imported(row) for row in rows):
        raise SweepError(
            f"sweep {name} holds imported masks, which its search would take for trials of its own "
            "(give the run another --name)"
        )
    if rows and sweep is not None:
        spec.refuse_if_different(sweep["space"], json.dumps(dict(sweep["objectives"])))
    for warning in database.warnings:
        observer.warn(warning)
    return rows


def _checkpoint_times(storage: Storage) -> dict[str, int] | None:
    """When each checkpoint was written; None where the storage is away."""
    try:
        return {trial: info.mtime_ns or 0 for trial, info in storage.checkpoints().items()}
    except StorageError:
        return None


def _sweep_row(database: Database, name: str) -> Mapping[str, Any] | None:
    return next((row for row in database.sweeps().to_pylist() if row["sweep"] == name), None)


def load_datasets(spec: SweepSpec, observer: Observer) -> dict[DataKey, Dataset]:
    """Every data set that a trial of the space can ask for."""
    from ticketsweep.planning import data_key, load_data

    datasets: dict[DataKey, Dataset] = {}
    root = spec.values_of("data_root")[0]
    for name, size in itertools.product(spec.values_of("dataset"), spec.values_of("image_size")):
        observer.phase(f"loading {name}")
        config = TrialConfig(dataset=name, data_root=root, image_size=size)
        datasets[data_key(config)] = load_data(config)
    return datasets


def refuse_if_changed(
    spec: SweepSpec, stored: Collection[Row], datasets: Mapping[DataKey, Dataset]
) -> None:
    """Raise `SweepError` if the stored trials ran with other code or data than lie there today.

    The id of a trial is a fingerprint of both: the same settings come to another one.
    """
    from ticketsweep.planning import data_key, identities

    looked_at: dict[tuple[str, str, str], Row] = {}  # one trial of each kind will do
    for row in stored:
        looked_at.setdefault((row["model"], row["dataset"], row["gate_family"]), row)
    for row in looked_at.values():
        try:
            config = parse_config(config_of(row), source=f"trial {row['trial_id']}")
        except ConfigError:  # of another version
            continue
        dataset = datasets.get(data_key(config))
        if dataset is not None and row["trial_id"] not in identities(config, dataset):
            name = spec.settings.name
            raise SweepError(
                f"sweep {name!r} has trials of {config.model} on {config.dataset} that ran with "
                "other code or data: the same settings have another trial id today (give this run "
                f"another --name, put back what was changed, or `ticketsweep delete {name}`)"
            )


def _refuse_if_own_code_changed(
    spec: SweepSpec, stored: Collection[Row], observer: Observer
) -> None:
    """`refuse_if_changed` where nothing is to be run, so that only what the user may change counts.

    Data that are gone, or take long to look through, are no reason not to show what was found.
    """
    names = [str(each) for key in ("model", "dataset") for each in spec.values_of(key)]
    if not stored or not any(":" in name for name in names):
        return
    if any(name.startswith("imagefolder:") for name in names):
        return
    try:
        datasets = load_datasets(spec, observer)
        refuse_if_changed(spec, stored, datasets)
    except (DataError, ModelError) as error:
        observer.warn(f"whether code and data are those of the stored trials is not known: {error}")


def check_trials(spec: SweepSpec, datasets: Mapping[DataKey, Dataset]) -> None:
    """Refuse trials that do not fit their model or their data.

    The ends of every range and every option of every choice are looked at.
    """
    from ticketsweep.planning import check_trial, data_key

    for point in corners(spec.tree):
        config = parse_config(point, source=spec.source)
        check_trial(config, datasets[data_key(config)])


def _record_sweep(spec: SweepSpec, storage: Storage, *, begun: bool) -> None:
    """Write the sweep's own row. One without any trial is replaced: nothing stands on its space."""
    settings = spec.settings
    row = _sweep_row(Database(storage), settings.name) if begun else None
    if row is None:
        row = {
            "sweep": settings.name,
            "created_at": datetime.datetime.now(datetime.UTC),
            "version": __version__,
            "space": json.dumps(spec.as_plain(), sort_keys=True),
            "objectives": dict(settings.objectives),
            "samples": 0,
            "seed": settings.seed,
        }
    if row["samples"] < settings.samples:
        write_sweep(storage, {**row, "samples": settings.samples})


def _size(dataset: Dataset) -> int:
    return dataset.train_images.nbytes + dataset.test_images.nbytes
