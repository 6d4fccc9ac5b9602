"""Weights & Biases: one run per trial, grouped by sweep, all of them held by the driver.

Runs opened inside workers lose the rows of trials that are stopped, and start a service process
each; so workers report to the driver, and the driver logs. It does so from a thread of its own:
a slow or absent network never slows the sweep. What could not be uploaded stays on disk.
"""

from __future__ import annotations

import contextlib
import logging
import netrc
import os
import queue
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from ticketsweep.config import TrialConfig

Mode = Literal["online", "offline", "off"]

PROJECT = "ticketsweep"
_SERVER = "https://api.wandb.ai"
_LONGEST_TAG = 64  # of W&B's; it refuses the run of a longer one
_SECONDS_TO_START = 20  # a run that the server has not taken by then is recorded offline
_SECONDS_TO_UPLOAD = 60  # for what is left when a run ends; `wandb sync` uploads the rest


class Tracker(Protocol):
    """Where the curves and summaries of trials go. No method raises or waits for a network."""

    def begin(self, trial_id: str, config: TrialConfig) -> None:
        """A trial has started, perhaps for the second time."""

    def log(self, trial_id: str, step: int, figures: Mapping[str, float]) -> None:
        """Figures of a logged step, means over replicates."""

    def finish(self, trial_id: str, row: Mapping[str, Any]) -> None:
        """The trial has ended; `row` is its row of the `trials` table."""

    def close(self) -> None:
        """End what is still open, as interrupted."""


class NoTracker:
    """For `--wandb off`."""

    def begin(self, trial_id: str, config: TrialConfig) -> None:
        """Nothing."""

    def log(self, trial_id: str, step: int, figures: Mapping[str, float]) -> None:
        """Nothing."""

    def finish(self, trial_id: str, row: Mapping[str, Any]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def default_mode() -> Mode:
    """`$WANDB_MODE` where it is set, else online where a key is configured, else offline."""
    asked = os.environ.get("WANDB_MODE", "")
    if asked in ("disabled", "off"):
        return "off"
    if asked in ("online", "offline"):
        return "online" if asked == "online" else "offline"
    return "online" if _has_key() else "offline"


def _has_key() -> bool:
    """Whether a key is configured. It is neither read into our memory for long, nor ever shown."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urllib.parse.urlsplit(os.environ.get("WANDB_BASE_URL", _SERVER)).hostname or ""
    with contextlib.suppress(OSError, netrc.NetrcParseError):  # an unreadable file has no key
        file = os.environ.get("NETRC") or str(Path("~/.netrc").expanduser())
        return netrc.netrc(file).authenticators(host) is not None
    return False


class WandbTracker:
    """One W&B run per trial, written by a single thread in the order of the calls.

    Parameters
    ----------
    sweep: groups the runs.
    folder: where W&B keeps its files; those of offline runs are there for `wandb sync`.
    warn: called with one sentence when something could not be tracked as asked.
    """

    def __init__(
        self, sweep: str, *, mode: Mode, folder: Path, warn: Callable[[str], None]
    ) -> None:
        self._sweep, self._mode, self._folder, self._warn = sweep, mode, folder, warn
        self._runs: dict[str, Any] = {}
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def begin(self, trial_id: str, config: TrialConfig) -> None:
        """Open the trial's run."""
        self._jobs.put(lambda: self._open(trial_id, config))

    def log(self, trial_id: str, step: int, figures: Mapping[str, float]) -> None:
        """Log one row of figures."""
        self._jobs.put(lambda: self._log(trial_id, step, dict(figures)))

    def finish(self, trial_id: str, row: Mapping[str, Any]) -> None:
        """Write the trial's figures into the run's summary, and end it."""
        self._jobs.put(lambda: self._end(trial_id, row))

    def close(self) -> None:
        """End every open run as interrupted and wait, for a bounded time, for the thread."""
        self._jobs.put(self._end_all)
        self._jobs.put(None)
        patience = 5.0 + (_SECONDS_TO_START + _SECONDS_TO_UPLOAD if self._mode == "online" else 60)
        self._thread.join(patience)
        if self._thread.is_alive():
            self._warn(
                f"W&B did not finish within {patience:.0f} s; upload what is left "
                f"with: wandb sync --include-offline {self._folder}/wandb/*run-*"
            )

    def _work(self) -> None:
        warned = False
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception as error:  # tracking must never end a sweep
                if not warned:
                    self._warn(f"W&B: {_said(error)}; the sweep goes on, some of it untracked")
                warned = True

    def _open(self, trial_id: str, config: TrialConfig) -> None:
        if trial_id in self._runs:
            return
        name = f"{self._sweep}-{trial_id}"
        try:
            self._runs[trial_id] = self._start(name, trial_id, config)
        except Exception as error:
            if self._mode == "offline":
                raise
            self._warn(f"W&B cannot be reached ({_said(error)}); recording offline from here on")
            self._mode = "offline"
            # W&B counts the id of the failed attempt as taken, until this process ends.
            self._runs[trial_id] = self._start(f"{name}-offline", trial_id, config)

    def _start(self, name: str, trial_id: str, config: TrialConfig) -> Any:
        import wandb

        settings = wandb.Settings(
            console="off",
            silent=True,
            x_disable_stats=True,
            disable_git=True,
            init_timeout=_SECONDS_TO_START,
            finish_timeout=_SECONDS_TO_UPLOAD,
        )
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=self._sweep,
            id=name,
            name=trial_id,
            tags=[config.model[:_LONGEST_TAG], config.gate.family],
            config=dict(_dotted(config.model_dump(mode="json"))),
            dir=self._folder,
            mode="online" if self._mode == "online" else "offline",
            reinit="create_new",
            resume="allow" if self._mode == "online" else None,
            settings=settings,
        )

    def _log(self, trial_id: str, step: int, figures: dict[str, float]) -> None:
        if trial_id in self._runs:  # that it could not be opened has been told
            # Committed at once: a row that is held back would overwrite the summary at the end.
            self._runs[trial_id].log(figures, step=step, commit=True)

    def _end(self, trial_id: str, row: Mapping[str, Any]) -> None:
        run = self._runs.pop(trial_id, None)
        if run is None:
            return
        for name, value in (*row.items(), *dict(row.get("metrics") or {}).items()):
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                run.summary[name] = value
        run.summary["status"] = row["status"]
        if row["status"] == "failed":
            run.summary["error"] = row["error"]
        run.finish(exit_code=1 if row["status"] == "failed" else 0)

    def _end_all(self) -> None:
        deadline = time.monotonic() + _SECONDS_TO_UPLOAD
        while self._runs:
            _, run = self._runs.popitem()
            run.summary["status"] = "interrupted"
            if time.monotonic() < deadline:
                run.finish(exit_code=1)


@contextlib.contextmanager
def tracker(
    sweep: str, *, mode: Mode, folder: Path, warn: Callable[[str], None]
) -> Iterator[Tracker]:
    """A tracker for one sweep, closed at the end."""
    if mode == "off":
        yield NoTracker()
        return
    os.environ.setdefault("WANDB_SILENT", "true")  # it tells where it found the key
    for name in ("wandb", "git"):
        logging.getLogger(name).setLevel(logging.ERROR)
    running = WandbTracker(sweep, mode=mode, folder=folder, warn=warn)
    try:
        yield running
    finally:
        running.close()


def _said(error: Exception) -> str:
    """An error's message on one line, without the key if it should be in there."""
    text = " ".join(str(error).split()) or type(error).__name__
    key = os.environ.get("WANDB_API_KEY")
    return (text.replace(key, "…") if key else text)[:300]


def _dotted(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested settings under dotted names, as on the command line."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
