"""Weights & Biases: one run per trial and one for the sweep, all of them held by the driver.

Runs opened inside workers lose the rows of trials that are stopped, and start a service process
each; so workers report to the driver, and the driver logs.

W&B writes all of a run into a file before it uploads anything, so nothing is lost where the server
is slow or away: from its first failure on, runs are recorded offline under the same ids, and
`wandb sync` continues what has been uploaded of them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ticketsweep.sweep.tracking import wandb_files
from ticketsweep.sweep.tracking.login import has_key, without_key
from ticketsweep.sweep.tracking.records import Best, Ending, Figures, Standing, Trial
from ticketsweep.sweep.tracking.wandb_media import best_table, keep_shares

PROJECT = "ticketsweep"
_LONGEST_TAG = 64  # of W&B's; it refuses the run of a longer one
_SECONDS_TO_START = 15.0  # a run that the server has not taken by then is recorded offline
_SECONDS_TO_START_OFFLINE = 120.0  # a busy machine may take long to start W&B's own process
_SECONDS_TO_UPLOAD = 15.0  # for what is left when a run ends
_SECONDS_TO_FLUSH = 1.0  # what a killed driver may lose of W&B's files
_SECONDS_TO_WRITE = 5.0
_RESTARTS = 3  # of W&B's process, after which it is given up
_TRIAL = re.compile(r"(-[0-9a-f]{16})?")  # what follows the sweep's name in the id of a run
_KILLED = 255  # an exit code that W&B shows as "killed", and any other than 0 as "failed"


@dataclass
class _Run:
    """An open run.

    Attributes
    ----------
    arguments: of `wandb.init`.
    rows: all that it was told, by step.
    last: the last step that W&B has, from earlier processes too; -1 for none.
    handle: W&B's; None where it has to be started (again).
    offline, file: how it was started, and where W&B writes it.
    """

    run_id: str
    arguments: Mapping[str, Any]
    rows: dict[int, Figures] = field(default_factory=dict)
    last: int = -1
    handle: Any = None
    offline: bool = False
    file: Path = Path()


class WandbRuns:
    """The runs of one sweep.

    Parameters
    ----------
    sweep: groups the runs, and is the id and the name of its own.
    mode: "online" or "offline".
    folder: where W&B keeps its files.
    warn: called with one sentence when runs cannot be uploaded as asked.
    """

    def __init__(self, sweep: str, *, mode: str, folder: Path, warn: Callable[[str], None]) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")  # it tells where it found the key
        os.environ.setdefault("WANDB_DATA_DIR", str(folder / "wandb-data"))  # not the user's home
        for name in ("wandb", "git"):
            logging.getLogger(name).setLevel(logging.ERROR)
        logging.raiseExceptions = False  # W&B's own log would print tracebacks where disks are full
        folder.mkdir(parents=True, exist_ok=True)
        self._sweep, self._mode, self._folder, self._warn = sweep, mode, folder, warn
        self._runs: dict[str, _Run] = {}
        self._restarts, self._silenced = 0, False
        found = wandb_files.run_files(folder)
        self._files = {
            run_id: left
            for run_id, files in found.items()
            if (left := [file for file in files if not self._discarded(run_id, file)])
        }
        if mode == "online" and not has_key():
            self._record_offline("no key is configured (`wandb login` asks for one)")

    def begin(self, trial: Trial) -> int:
        """Open the trial's run, or go on with it; see `Tracker`."""
        run = _Run(
            f"{self._sweep}-{trial.trial_id}",
            {
                "name": trial.trial_id,
                "tags": [tag[:_LONGEST_TAG] for tag in trial.tags],
                "config": dict(trial.settings),
            },
        )
        return self._begin(trial.trial_id, run)

    def _begin(self, key: str, run: _Run) -> int:
        self._runs[key] = run
        self._attempt(lambda: self._up_to_date(run))
        return run.last

    def log(self, trial_id: str, step: int, figures: Figures) -> None:
        """Log one row; see `Tracker`."""
        run = self._runs[trial_id]
        run.rows[step] = figures
        self._attempt(lambda: self._up_to_date(run))

    def end(self, trial_id: str, ending: Ending) -> None:
        """Write the trial's figures into its summary, attach its masks, and end the run."""
        run = self._runs[trial_id]
        summary: dict[str, Any] = {**ending.figures, "status": ending.status}
        if ending.error:
            summary["error"] = ending.error
        if ending.masks:
            summary["masks"] = ending.masks

        def describe() -> None:
            if ending.layers:
                run.handle.log(keep_shares(ending.layers), step=run.last + 1, commit=True)
            run.handle.summary.update(summary)
            if ending.masks:
                self._attach_masks(run, trial_id, ending)

        self._end(trial_id, describe, exit_code=1 if ending.status == "failed" else 0)

    def standing(self, standing: Standing) -> None:
        """Log a row of the sweep's own run, and open it before the first."""
        if "" not in self._runs:
            self._begin("", self._of_sweep())
        self.log("", standing.ended, standing.figures)

    def close(self, standing: Standing, best: Best) -> None:
        """End the sweep's run with its best trials, and what is still open as killed."""
        for key in [key for key in self._runs if key]:
            self._interrupt(key)
        if standing.ended:
            self.standing(standing)
            sweep = self._runs[""]

            summary = {**standing.figures, **(best_table(best) if best.rows else {})}
            self._end("", lambda: sweep.handle.summary.update(summary), exit_code=0)

    def _interrupt(self, trial_id: str) -> None:
        run = self._runs[trial_id]
        interrupted = {"status": "interrupted"}
        self._end(trial_id, lambda: run.handle.summary.update(interrupted), exit_code=_KILLED)

    def hurry(self) -> None:
        """Record runs offline from the next one on."""
        if self._mode == "online":
            self._record_offline("the server is slower than the trials")

    def attach_report(self, page: Path) -> None:
        """Make a report's page an artifact of the sweep's own run."""
        self._begin("", self._of_sweep())
        sweep = self._runs[""]

        def describe() -> None:
            import wandb

            artifact = wandb.Artifact(f"report-{self._sweep}", type="report")
            artifact.add_file(str(page), name="report.html")
            sweep.handle.log_artifact(artifact)

        self._end("", describe, exit_code=0)

    def _of_sweep(self) -> _Run:
        return _Run(self._sweep, {"name": self._sweep, "job_type": "sweep"})

    def _discarded(self, run_id: str, file: Path) -> bool:
        return _is_of(self._sweep, run_id) and wandb_files.discard_if_empty(file)

    def _attempt(self, action: Callable[[], None]) -> None:
        """Do it; where W&B fails, with a process of its own that is new, and offline."""
        while True:
            try:
                return action()
            except Exception as error:
                if self._restarts == _RESTARTS:
                    raise
                self._restarts += 1
                self._record_offline(f"the server cannot be reached ({_said(error)})")
                self._restart()

    def _record_offline(self, why: str) -> None:
        if self._mode == "online":
            self._mode = "offline"
            self._warn(f"W&B: {why}; runs are recorded offline from here on")

    def _restart(self) -> None:
        """End W&B's process. It takes the id of a run that could not be started for used."""
        import wandb

        if not self._silenced:
            _silence_threads()
            self._silenced = True
        process = None
        with contextlib.suppress(AttributeError):  # W&B has no name for it in public
            connection: Any = wandb.setup()._connection
            process = connection._proc._process
        with contextlib.suppress(Exception):  # it may be gone, or wait for the server for ever
            _within(_SECONDS_TO_UPLOAD, wandb.teardown)
        if process is not None:
            process.kill()
        for run in self._runs.values():
            run.handle = None

    def _up_to_date(self, run: _Run) -> None:
        """Start the run if it is not, and log the rows that W&B does not have."""
        if run.handle is None:
            self._start(run)
        for step in sorted(run.rows):
            if step > run.last:
                # Committed at once: one that is held back would overwrite the summary at the end.
                run.handle.log(dict(run.rows[step]), step=step, commit=True)
                run.last = step

    def _start(self, run: _Run) -> None:
        import wandb

        earlier = [
            file
            for file in self._files_of(run)
            if not wandb_files.discard_if_empty(file) and not wandb_files.is_uploaded(file)
        ]
        # What was begun offline goes on so: its rows would come after those uploaded now.
        run.offline = self._mode == "offline" or any(map(wandb_files.is_offline, earlier))
        settings = wandb.Settings(
            console="off",
            silent=True,
            x_disable_stats=True,
            x_save_requirements=False,
            disable_git=True,
            init_timeout=_SECONDS_TO_START_OFFLINE if run.offline else _SECONDS_TO_START,
            finish_timeout=_SECONDS_TO_UPLOAD,
            finish_timeout_raises=True,
            x_transaction_log_flush_interval=_SECONDS_TO_FLUSH,
        )
        run.handle = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=self._sweep,
            id=run.run_id,
            dir=self._folder,
            mode="offline" if run.offline else "online",
            reinit="create_new",
            resume=None if run.offline else "allow",
            settings=settings,
            **run.arguments,
        )
        run.file = Path(run.handle.settings.sync_file)
        self._files.setdefault(run.run_id, []).append(run.file)
        if run.offline:
            run.last = max(map(wandb_files.last_step, self._files[run.run_id]), default=-1)
        else:
            run.last = int(run.handle.starting_step) - 1

    def _files_of(self, run: _Run) -> list[Path]:
        return [file for file in self._files.get(run.run_id, []) if file.exists()]

    def _attach_masks(self, run: _Run, trial_id: str, ending: Ending) -> None:
        """The file of masks as an artifact, by reference: W&B keeps its name and no copy."""
        import wandb

        artifact = wandb.Artifact(
            f"masks-{trial_id}",
            type="masks",
            metadata={"sweep": self._sweep, "trial": trial_id, "layers": len(ending.layers)},
        )
        with contextlib.suppress(Exception):  # a store's library is missing; the summary has it
            artifact.add_reference(ending.masks, name="masks.parquet", checksum=False)
            run.handle.log_artifact(artifact)

    def _end(self, key: str, describe: Callable[[], None], *, exit_code: int) -> None:
        run = self._runs[key]

        def end() -> None:
            self._up_to_date(run)
            if run.offline:
                describe()
            else:  # artifacts ask the server, for as long as it fails
                _within(_SECONDS_TO_UPLOAD, describe)
            try:
                # Twice the time in which W&B should give up by itself, which it does not always.
                patience = _SECONDS_TO_START_OFFLINE if run.offline else 2 * _SECONDS_TO_UPLOAD
                _within(patience, lambda: run.handle.finish(exit_code=exit_code))
            except TimeoutError as error:
                self._record_offline(f"an upload took more than {_SECONDS_TO_UPLOAD:g} s")
                _check_written(run.file)
                if isinstance(error, _Stuck):
                    self._restart()
            else:
                self._mark_uploaded(run)

        self._attempt(end)
        del self._runs[key]
        _check_written(run.file)

    def _mark_uploaded(self, run: _Run) -> None:
        if not run.offline:
            for file in self._files_of(run):
                if not wandb_files.is_offline(file):
                    wandb_files.mark_uploaded(file)


def _files_of_sweep(folder: Path, sweep: str) -> list[Path]:
    """The files of all runs of a sweep."""
    found = wandb_files.run_files(folder).items()
    return [file for run_id, files in found if _is_of(sweep, run_id) for file in files]


def folders_of(folder: Path, sweep: str) -> list[Path]:
    """W&B's folders of all runs of a sweep."""
    return [file.parent for file in _files_of_sweep(folder, sweep)]


def left_to_upload(folder: Path, sweep: str) -> str:
    """The command that uploads what is not of a sweep's runs; empty where all is."""
    files = [f for f in _files_of_sweep(folder, sweep) if not wandb_files.is_uploaded(f)]
    if not files:
        return ""
    online = "" if all(map(wandb_files.is_offline, files)) else "--include-online "
    return f"wandb sync {online}{shlex.quote(str(folder / 'wandb'))}"


def _is_of(sweep: str, run_id: str) -> bool:
    """Whether it is the run of this sweep or of one of its trials."""
    rest = run_id.removeprefix(sweep)
    return run_id.startswith(sweep) and _TRIAL.fullmatch(rest) is not None


class _Stuck(TimeoutError):
    """W&B does not come back."""


def _within(seconds: float, action: Callable[[], None]) -> None:
    """Do it; raises _Stuck, and leaves it to itself, where it takes longer."""
    errors: list[Exception] = []

    def work() -> None:
        try:
            action()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work, name="tracking-wandb-wait", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise _Stuck(f"no answer within {seconds:g} s")
    if errors:
        raise errors[0]


def _silence_threads() -> None:
    """Let W&B's threads that ask its process how a run is end without a traceback if it is gone."""
    before = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if failed.thread is None or failed.thread.name != "NetStatThr":
            before(failed)

    threading.excepthook = hook


def _check_written(file: Path) -> None:
    """Raises OSError where W&B, which does not tell, could not write all of a run that has ended.

    W&B's process may still be writing when it says that the run has ended.
    """
    until = time.monotonic() + _SECONDS_TO_WRITE
    while not wandb_files.has_ended(file):
        if time.monotonic() > until:
            raise OSError(f"{file.parent} could not be written whole (is the disk full?)")
        time.sleep(0.02)


def _said(error: Exception) -> str:
    return without_key(str(error)) or type(error).__name__
