"""Comparisons of trials' tickets: of one in this process, of many a Ray task for each.

Whoever compares a trial stores what it finds, so that nothing is lost on the way to the driver.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ticketsweep.config import TrialConfig
from ticketsweep.errors import TicketsweepError, UserError
from ticketsweep.progress import StageProgress
from ticketsweep.revisit.jobs import Ended, Job, config_now, wants_gpu
from ticketsweep.store.paths import Storage
from ticketsweep.sweep.interrupts import Interrupts
from ticketsweep.sweep.resources import local_cpus

# What is slow to import is imported once it is needed.
if TYPE_CHECKING:
    from ticketsweep.planning import DataKey
    from ticketsweep.train.data import Dataset

_PATIENCE_SECONDS = 0.5  # between two looks at whether Ctrl-C was pressed
_DEATHS = 2  # of a trial's worker, before it is given up


class ComparingObserver(Protocol):
    """Told of everything in the driver's main thread."""

    def phase(self, text: str) -> None:
        """What is going on while nothing else moves."""

    def begun(self, trials: int) -> None:
        """So many trials are to be compared."""

    def stepped(self, trial_id: str, progress: StageProgress) -> None:
        """A trial of this process has come further."""

    def ended(self, trial: Ended) -> None:
        """A trial's comparisons are stored, or cannot be made."""


def compare_trials(
    jobs: Sequence[Job],
    *,
    storage: Storage,
    settings: Sequence[str],
    address: str | None,
    observer: ComparingObserver,
) -> list[Ended]:
    """Compare the tickets of trials, as many at once as there are processors.

    A single trial is compared in this process, and so are several on a single processor. Trials
    that ran on a GPU get one, unless `device=cpu` is set: on a cluster they wait for it, and a
    local Ray without one does with processors.

    Parameters
    ----------
    jobs: at least one.
    settings: `KEY=VALUE` strings that say where things are now.
    address: of a running Ray cluster; None starts a local Ray and ends it again.

    Raises
    ------
    KeyboardInterrupt: after Ctrl-C or SIGTERM; what has been compared until then is stored.
    UserError: there is no cluster at the address, or no data; or what is asked of the only trial is
        wrong.
    """
    from ticketsweep.planning import data_key, load_data

    configs = [config_now(job.row, settings) for job in jobs]
    datasets: dict[DataKey, Dataset] = {}
    for config in configs:
        if data_key(config) not in datasets:
            observer.phase(f"loading {config.dataset}")
            datasets[data_key(config)] = load_data(config)
    work = [_Work(job, config, data_key(config)) for job, config in zip(jobs, configs, strict=True)]
    with Interrupts() as interrupts:
        if len(jobs) == 1 or (address is None and local_cpus() == 1):
            return _here(work, storage, datasets, observer, interrupts)
        return _by_ray(work, storage, datasets, address, observer, interrupts)


@dataclass(frozen=True)
class _Work:
    """A job, its trial's configuration as things are now, and which data set it needs."""

    job: Job
    config: TrialConfig
    data: DataKey


def _here(
    work: Sequence[_Work],
    storage: Storage,
    datasets: Mapping[DataKey, Dataset],
    observer: ComparingObserver,
    interrupts: Interrupts,
) -> list[Ended]:
    """One trial after the other, in this process."""
    found = []
    observer.begun(len(work))
    for each in work:
        comparing = _steps(each.job, each.config, datasets[each.data], storage)
        while True:
            interrupts.check()
            try:
                observer.stepped(each.job.trial_id, next(comparing))
            except StopIteration as end:
                found.append(Ended(each.job.trial_id, end.value, None))
                break
            except Exception as error:
                if len(work) == 1 and isinstance(error, UserError):
                    raise
                found.append(Ended(each.job.trial_id, (), _why(error)))
                break
        observer.ended(found[-1])
    return found


def _by_ray(
    work: Sequence[_Work],
    storage: Storage,
    datasets: Mapping[DataKey, Dataset],
    address: str | None,
    observer: ComparingObserver,
    interrupts: Interrupts,
) -> list[Ended]:
    """A task for each trial."""
    observer.phase("starting Ray" if address is None else f"connecting to Ray at {address}")
    import ray

    from ticketsweep.sweep.cluster import connect

    place = storage.place
    size = sum(each.train_images.nbytes + each.test_images.nbytes for each in datasets.values())
    found: list[Ended] = []
    sweep = str(work[0].job.row["sweep"])
    with connect(
        address, cpus=local_cpus(), shared_bytes=size, storage=storage, sweep=sweep
    ) as cluster:
        interrupts.install()
        shared = {key: ray.put(dataset) for key, dataset in datasets.items()}
        compared = ray.remote(num_cpus=1, max_retries=_DEATHS)(_compared)
        observer.begun(len(work))
        waiting = {}
        present, grows = cluster.capacity.gpus >= 1, cluster.capacity.grows
        for each in work:
            wants = wants_gpu(each.config, each.job.row)
            task = compared.options(num_gpus=int(wants and (grows or present)))
            if wants and grows and not present:
                observer.phase(
                    "waiting for a machine with a GPU (--set device=cpu compares without one)"
                )
            waiting[task.remote(each.job, each.config, shared[each.data], place)] = each.job
        while waiting:
            interrupts.check()
            cluster.check()
            for result in ray.wait(list(waiting), timeout=_PATIENCE_SECONDS)[0]:
                job = waiting.pop(result)
                try:
                    found.append(ray.get(result))
                except ray.exceptions.RayError as error:
                    found.append(
                        Ended(job.trial_id, (), f"its worker was lost: {_one_line(error)}")
                    )
                observer.ended(found[-1])
        observer.phase("stopping Ray")
    return found


def _compared(job: Job, config: TrialConfig, dataset: Dataset, storage: str) -> Ended:
    """What a worker does: one trial, to the end."""
    import torch

    torch.set_num_threads(1)
    comparing = _steps(job, config, dataset, Storage.open(storage, create=False))
    while True:
        try:
            next(comparing)
        except StopIteration as end:
            return Ended(job.trial_id, end.value, None)
        except Exception as error:
            return Ended(job.trial_id, (), _why(error))


def _steps(
    job: Job, config: TrialConfig, dataset: Dataset, storage: Storage
) -> Generator[StageProgress, None, tuple[str, ...]]:
    from ticketsweep.revisit.comparing import compare_trial

    return compare_trial(storage, job, config=config, dataset=dataset)


def _why(error: Exception) -> str:
    """What ended a comparison, with its kind where it was not expected."""
    kind = "" if isinstance(error, TicketsweepError) else f"{type(error).__name__}: "
    return f"{kind}{_one_line(error)}"


def _one_line(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).strip().splitlines() or ["no message"])[0]
