"""Ray Tune runs the queue's jobs: what it asks, what it is answered, and what it reports."""

# ruff: noqa: ARG002  # Tune dictates the parameters of what it calls

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from ticketsweep.space import SweepSettings
from ticketsweep.sweep.jobs import JobQueue
from ticketsweep.sweep.observer import Observer
from ticketsweep.sweep.tracking import Tracker
from ticketsweep.sweep.worker import TrialWorker
from ticketsweep.train.data import Dataset
from ticketsweep.trial import Progress


def run_jobs(
    queue: JobQueue,
    settings: SweepSettings,
    *,
    storage: str,
    datasets: Mapping[str, Dataset],
    observer: Observer,
    tracker: Tracker,
    scratch: Path,
) -> None:
    """Let Tune run jobs on the connected Ray until the queue has no more.

    Parameters
    ----------
    storage: URI or absolute path of the mask database, as every worker can open it.
    scratch: folder for Tune's own files, which nobody reads.

    Raises
    ------
    Exception: whatever the queue raises (a storage that cannot be written to), once Tune has
        stopped all workers.
    """
    resources = settings.resources
    worker = tune.with_parameters(
        TrialWorker,
        datasets=dict(datasets),
        storage=storage,
        sweep=settings.name,
        threads=max(1, int(resources.cpus)),
    )
    fault = _Fault()
    tuner = tune.Tuner(
        tune.with_resources(worker, {"cpu": resources.cpus, "gpu": resources.gpus}),
        tune_config=tune.TuneConfig(
            search_alg=_JobSearcher(queue, fault),
            scheduler=_Scheduler(),  # type: ignore[no-untyped-call]  # Ray's own lack
            num_samples=-1,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(
            name=settings.name,
            storage_path=str(scratch),
            verbose=0,
            stop=fault,
            callbacks=[_SweepCallback(queue, observer, tracker, fault)],
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
        """Whether to stop all."""
        return self.error is not None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its stopper for a restore that we never ask for."""
        return {}


class _Scheduler(FIFOScheduler):
    """First in, first out, without Tune's habit of throwing workers away that are still starting.

    A scheduler's own choice takes the next free worker even if the chosen trial's worker is on its
    way, and that one is then killed. Where trials are short beside a worker's start, all would run
    one after another on a single worker. Without a choice, Tune gives a free worker to a trial that
    has none.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None."""


class _JobSearcher(Searcher):
    """Tune's view of the queue."""

    def __init__(self, queue: JobQueue, fault: _Fault) -> None:
        super().__init__()
        self._queue, self._fault = queue, fault

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
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the callback, which Tune calls as well, sees the error itself."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its searcher for a restore that we never ask for."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the mask database is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the mask database is the state."""


class _SweepCallback(tune.Callback):
    """Passes what Tune reports on to the queue, the observer and the tracker."""

    def __init__(
        self, queue: JobQueue, observer: Observer, tracker: Tracker, fault: _Fault
    ) -> None:
        self._queue, self._observer, self._tracker, self._fault = queue, observer, tracker, fault

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its callbacks for a restore that we never ask for."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A worker has taken the trial up."""
        self._fault.guard(lambda: self._started(trial.trial_id))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A logged step, the trial's row, or why it could not be run."""
        if "progress" in result:
            self._fault.guard(lambda: self._progressed(trial.trial_id, result["progress"]))
        elif "row" in result:
            self._fault.guard(lambda: self._stored(trial.trial_id, result["row"]))
        else:
            self._fault.guard(lambda: self._lost(trial.trial_id, result["fault"]))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The worker has died more often than is tolerated."""
        self._fault.guard(lambda: self._lost(trial.trial_id, _reason(trial)))

    def _started(self, key: str) -> None:
        job = self._queue.job(key)
        self._observer.trial_started(job.trial_id, job.config)
        self._tracker.begin(job.trial_id, job.config)

    def _progressed(self, key: str, progress: Mapping[str, Any]) -> None:
        identity, figures = self._queue.job(key).trial_id, dict(progress)
        self._observer.trial_progressed(identity, Progress(**figures))
        self._tracker.log(identity, int(figures.pop("step")), figures)

    def _stored(self, key: str, row: Mapping[str, Any]) -> None:
        self._tracker.finish(self._queue.job(key).trial_id, row)
        self._queue.done(key, row)

    def _lost(self, key: str, reason: str) -> None:
        job = self._queue.job(key)
        row = self._queue.lost(key, reason)
        self._tracker.begin(job.trial_id, job.config)  # a worker that never came up began nothing
        self._tracker.finish(job.trial_id, row)


def _reason(trial: Any) -> str:
    """What ended a trial's worker, in one line."""
    try:
        error = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
    except (TypeError, OSError):  # Tune wrote none
        return "its worker process was lost"
    cause = getattr(error, "cause", None) or error
    return " ".join(f"{type(cause).__name__}: {cause}".split())[:500]
