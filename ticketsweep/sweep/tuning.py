"""Ray Tune runs the queue's jobs: what it asks, what it is answered, and what it reports."""

# ruff: noqa: ARG002  # Tune dictates the parameters of what it calls

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle, tune
from ray.exceptions import RayActorError
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from ticketsweep.errors import TicketsweepError
from ticketsweep.planning import DataKey
from ticketsweep.progress import Alive, Progress, Rung, StageProgress
from ticketsweep.sweep.budget import Closing
from ticketsweep.sweep.forgetting import forget_ended
from ticketsweep.sweep.jobs import JobQueue
from ticketsweep.sweep.nodes import Losses
from ticketsweep.sweep.observer import Observer
from ticketsweep.sweep.silence import Silence
from ticketsweep.sweep.tracking import SweepTracking
from ticketsweep.sweep.worker import REPORT, Refused, Report, Started, Stored, TrialWorker
from ticketsweep.sweep_settings import SweepSettings
from ticketsweep.train.data import Dataset

# Tune hands these to its workers by way of Ray's runtime environments, which Ray writes into logs
# and shows on its dashboard. A local Ray's workers inherit them, those of a cluster have their own.
ENV_VARS_TO_PROPAGATE.difference_update(
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
)

SECONDS_TO_START = 300.0
"""So long at least a worker's start may take: Python and torch may come from a network, slowly."""


def run_jobs(
    queue: JobQueue,
    settings: SweepSettings,
    *,
    storage: str,
    datasets: Mapping[DataKey, Dataset],
    observer: Observer,
    tracker: SweepTracking,
    scratch: Path,
    check: Callable[[], None],
    closing: Closing,
) -> None:
    """Let Tune run jobs on the connected Ray until the queue has no more.

    Parameters
    ----------
    storage: URI or absolute path of the mask database, as every worker can open it.
    scratch: folder for Tune's own files, which nobody reads.
    check: called many times a second; what it raises ends the run.
    closing: tells when the run's time is up, with all that is running saved.

    Raises
    ------
    Exception: whatever the queue raises (a storage that cannot be written to) or `check`, once
        Tune has stopped all workers.
    """
    resources = settings.resources
    worker = tune.with_parameters(
        TrialWorker,
        datasets=dict(datasets),
        storage=storage,
        sweep=settings.name,
        patience=settings.storage_seconds,
        gpus=resources.gpus,
        threads=max(1, int(resources.cpus)),
    )
    fault = _Fault()
    scheduler = _Scheduler(queue, observer, tracker, fault, settings.stall_seconds)

    def every_round() -> bool:
        check()
        scheduler.end_the_silent()
        scheduler.forgive()
        return closing.is_over(scheduler.working())

    fault.every_round = every_round
    tuner = tune.Tuner(
        tune.with_resources(worker, {"cpu": resources.cpus, "gpu": resources.gpus}),
        tune_config=tune.TuneConfig(
            search_alg=_JobSearcher(queue, scheduler, fault),
            scheduler=scheduler,
            num_samples=-1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=settings.name,
            storage_path=str(scratch),
            verbose=0,
            stop=fault,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=settings.max_failures),
        ),
    )
    tuner.fit()
    if fault.error is not None:
        raise fault.error


class _Fault(tune.Stopper):
    """Stops Tune at the first error in the driver, and keeps it.

    Raised inside Tune's loop, it would come out as text within an error of Tune's.
    """

    every_round: Callable[[], bool]

    def __init__(self) -> None:
        self.error: Exception | None = None

    def guard(self, action: Callable[[], Any]) -> Any:
        """The action's result; None if it fails, or if an earlier one has failed."""
        if self.error is None:
            try:
                return action()
            except Exception as error:
                self.error = error
        return None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether to stop this trial."""
        return self.error is not None

    def stop_all(self) -> bool:
        """Whether to stop all. Asked in every round of Tune's loop."""
        is_over: bool = self.guard(self.every_round)
        return is_over or self.error is not None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its stopper for a restore that we never ask for."""
        return {}


class _Scheduler(FIFOScheduler):
    """First in, first out; and the ear for what the workers report.

    (A callback would do as well, but for one Ray imports every tracking library there is.)
    """

    def __init__(
        self,
        queue: JobQueue,
        observer: Observer,
        tracker: SweepTracking,
        fault: _Fault,
        stall_seconds: float,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray's own lack
        self._queue, self._observer, self._tracker, self._fault = queue, observer, tracker, fault
        self._silence = Silence()
        self._limits = {True: max(stall_seconds, SECONDS_TO_START), False: stall_seconds}
        self._losses = Losses()
        self._controller: Any = None
        self._deaths: dict[str, str] = {}
        self._ended: dict[str, str] = {}  # by us, and why

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its scheduler for a restore that we never ask for."""
        return {}

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None, which keeps Tune from throwing workers away that are still starting.

        A scheduler's own choice takes the next free worker even if the chosen trial's worker is on
        its way, and that one is then killed. Where trials are short beside a worker's start, all
        would run one after another on a single worker. Without a choice, Tune gives a free worker
        to a trial that has none.
        """

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial is to be run, or to be run again."""
        self._controller = tune_controller._tune_controller  # Tune hands it over in a wrapping
        forget_ended(self._controller)

    def end_the_silent(self) -> None:
        """Tell of workers that are not heard of; those for too long are killed, and then are as
        any that died.
        """
        workers = {} if self._controller is None else _workers(self._controller)
        limits = {key: self._limits[worker.is_starting] for key, worker in workers.items()}
        for silent in self._silence.of(limits):
            key, worker = silent.key, workers[silent.key]
            if silent.too_long:
                for_long = f"for {limits[key]:g} s"
                self._ended[key] = (
                    f"its worker has not started {for_long}"
                    if worker.is_starting
                    else f"no progress {for_long} (sweep.stall_seconds)"
                )
                ray.kill(worker.actor)
            else:
                name = self._queue.job(key).trial_id
                where = ": its worker is starting" if worker.is_starting else ""
                self._observer.phase(f"no word from trial {name} for {silent.seconds:.0f} s{where}")

    def forgive(self) -> None:
        """Machines of a cloud are taken back again and again, which is no failure of a trial's."""
        for trial in self._losses.found():
            trial.run_metadata.num_failures -= 1

    def working(self) -> list[str]:
        """The ids of the trials that are running in a worker."""
        workers = {} if self._controller is None else _workers(self._controller)
        return self._queue.trials(key for key, each in workers.items() if not each.is_starting)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """A report that more will follow, unless the trial is stopped at a rung."""
        key, report = trial.trial_id, result[REPORT]
        if self._silence.heard(key):
            self._observer.phase(f"trial {self._queue.job(key).trial_id} is heard of again")
        if isinstance(report, Rung):
            row = self._fault.guard(lambda: self._queue.at_rung(key, report.row))
            if row is not None:
                self._fault.guard(lambda: self._tracker.finish(str(row["trial_id"]), row))
                return str(self.STOP)
        else:
            self._fault.guard(lambda: self._heard(key, report))
        return str(self.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """The last report of a trial; of one that was stopped at a rung it has been dealt with."""
        report = result[REPORT]
        if not isinstance(report, Rung):
            self._fault.guard(lambda: self._heard(trial.trial_id, report))

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """The worker has died. Tune starts another, or gives up and says so to its searcher."""
        key = trial.trial_id
        error = _error(trial)
        reason = self._deaths[key] = self._ended.pop(key, "") or _reason(error)
        if isinstance(error, RayActorError) and not error.preempted:  # Ray has not counted those
            actor = error.actor_id
            self._fault.guard(lambda: self._losses.suspect(actor, trial))
        self._fault.guard(lambda: self._observer.trial_died(self._queue.job(key).trial_id, reason))

    def given_up(self, key: str) -> None:
        """The worker has died more often than is tolerated."""
        self._fault.guard(lambda: self._lost(key, self._deaths[key]))

    def _heard(self, key: str, report: Report) -> None:
        job = self._queue.job(key)
        match report:
            case Started(host):
                self._observer.trial_started(job.trial_id, job.config, host=host)
                self._tracker.begin(job.trial_id, job.config)
            case Progress():
                self._observer.trial_progressed(job.trial_id, report)
                self._tracker.log(job.trial_id, report)
            case StageProgress():
                self._observer.trial_progressed(job.trial_id, report)
            case Alive(waiting):
                if waiting:
                    self._observer.phase(f"a trial is waiting for the storage: {waiting}")
                elif report.steps:
                    self._observer.trial_progressed(job.trial_id, report)
            case Stored(row):
                self._tracker.finish(job.trial_id, row)
                self._queue.done(key, row)
            case Refused(reason):
                self._lost(key, reason)

    def _lost(self, key: str, reason: str) -> None:
        job = self._queue.job(key)
        row = self._queue.lost(key, reason)
        self._tracker.begin(job.trial_id, job.config)  # a worker that never came up began nothing
        self._tracker.finish(job.trial_id, row)


@dataclass(frozen=True)
class _Worker:
    """What a trial is to be heard of from.

    Attributes
    ----------
    is_starting: the process is being started there, Python, torch and the data being loaded.
    """

    actor: Any
    is_starting: bool


def _workers(controller: Any) -> dict[str, _Worker]:
    """The workers of trials that have one, by the trials' keys.

    A trial that waits for resources has none. (Tune has no name for this in public: a trial knows
    its worker only once that has started, which it may never do.)
    """
    live = controller._actor_manager._live_actors_to_ray_actors_resources
    return {
        trial.trial_id: _Worker(live[actor][0], is_starting=trial.status == "PENDING")
        for trial, actor in controller._trial_to_actor.items()
        if actor in live and trial.status in ("PENDING", "RUNNING")
    }


class _JobSearcher(Searcher):
    """Tune's view of the queue."""

    def __init__(self, queue: JobQueue, scheduler: _Scheduler, fault: _Fault) -> None:
        super().__init__()
        self._queue, self._scheduler, self._fault = queue, scheduler, fault

    def suggest(self, trial_id: str) -> Any:
        """A job for the worker; None: ask again later; FINISHED: there will be no more."""
        job = self._fault.guard(lambda: self._queue.next(trial_id))
        if job is None:
            more = self._fault.error is None and self._queue.has_work()
            return None if more else Searcher.FINISHED
        return {
            "config": job.config.model_dump_json(),
            "search": job.record,
            "failures": self._queue.failures(job),
            "rungs": self._queue.rungs(job),
            "seconds": self._queue.seconds_left,
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The scheduler has heard how a trial ended, but not that a worker is not replaced."""
        if error:
            self._scheduler.given_up(trial_id)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher for a restore that we never ask for."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the mask database is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the mask database is the state."""


def _error(trial: Any) -> Exception | None:
    """What ended a trial's worker; None if Tune has written nothing."""
    try:
        error: Exception = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    except (TypeError, OSError):
        return None
    return error


def _reason(error: Exception | None) -> str:
    """What ended a trial's worker, in one line."""
    if error is None:
        return "its worker process was lost"
    cause = getattr(error, "cause", None) or error
    kind = "" if isinstance(cause, TicketsweepError) else f"{type(cause).__name__}: "
    return " ".join(f"{kind}{cause}".split())[:500]
