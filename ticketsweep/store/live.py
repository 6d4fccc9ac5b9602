"""How far a run is, told in the storage while it goes on, for whoever can read the storage.

One small document for each process that runs trials of a sweep: `run` for the driver of a sweep,
else the id of the only trial. It is no part of the database: where it is late, damaged or missing,
nothing but the view of the sweep suffers.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from ticketsweep.progress import Alive, Progress, StageProgress
from ticketsweep.store.claims import LEASE_SECONDS, is_running, this_process
from ticketsweep.store.paths import Storage, check_name
from ticketsweep.store.publication import Publication
from ticketsweep.store.redaction import Redaction

RUN = "run"
"""Who tells of a whole sweep: its driver."""

BEAT_SECONDS = 10.0
CHANGE_SECONDS = 3.0  # of changes no more than one writing in so long
_CLOSING_SECONDS = 5.0  # a storage that takes longer keeps an outdated document
_WARNINGS = 20  # that are kept
_FORMAT = 1


@dataclass(frozen=True)
class LiveTrial:
    """A trial under way.

    Attributes
    ----------
    stage: what it does; empty while it learns its gates.
    step, steps: of that stage.
    loss, val_accuracy, expected_density: at the latest logged step; None before, or if not finite.
    """

    trial_id: str
    host: str
    started: datetime
    stage: str = ""
    step: int = 0
    steps: int = 0
    loss: float | None = None
    val_accuracy: float | None = None
    expected_density: float | None = None

    @property
    def share(self) -> float:
        """Share of the stage's steps that are done."""
        return min(1.0, self.step / self.steps) if self.steps else 0.0

    def seconds(self, now: datetime) -> float:
        """Since it was taken up, by the clock of its driver."""
        return max(0.0, (now - self.started).total_seconds())


@dataclass(frozen=True)
class Told:
    """Something that the user should know, and when it was told."""

    at: datetime
    text: str


@dataclass(frozen=True)
class LiveRun:
    """What a process has told last. All times are by that process's clock.

    Attributes
    ----------
    process: as `claims.this_process` describes it.
    since, heard: when it began, and wrote this.
    beat: differs from one writing to the next.
    ended: None while it goes on.
    outcome: how it ended; empty while it goes on.
    phase: what is waited for; empty while trials are under way.
    samples, stored: trials asked for, and those that were there when it began.
    concurrency: trials at a time.
    finished, replicates: trials that have ended, and replicates of those that did not fail.
    first: when the first trial was taken up.
    """

    sweep: str
    who: str
    process: Mapping[str, Any]
    since: datetime
    heard: datetime
    beat: int
    ended: datetime | None = None
    outcome: str = ""
    phase: str = ""
    samples: int = 0
    stored: int = 0
    concurrency: int = 1
    finished: int = 0
    replicates: int = 0
    first: datetime | None = None
    trials: tuple[LiveTrial, ...] = ()
    warnings: tuple[Told, ...] = ()

    @property
    def host(self) -> str:
        """The machine on which it runs."""
        return str(self.process.get("host", "?"))

    @property
    def pid(self) -> str:
        """The number of its process."""
        return str(self.process.get("pid", "?"))

    def is_alive(self, now: datetime) -> bool:
        """Whether it goes on: known on its own machine, elsewhere by when it was heard of last."""
        if self.ended is not None:
            return False
        known = is_running(self.process)
        return known if known is not None else self.silent(now) < LEASE_SECONDS

    def silent(self, now: datetime) -> float:
        """Seconds since it was heard of, as far as the two clocks agree."""
        return abs((now - self.heard).total_seconds())


@dataclass
class _Trial:
    live: LiveTrial
    replicates: int


@dataclass
class LivePage:
    """What this process tells of its run. Nothing here waits for the storage, or raises.

    Parameters
    ----------
    sweep, who: what it runs; `who` is `RUN`, or the id of the only trial.

    Raises StorageError for names that there cannot be.
    """

    storage: Storage
    sweep: str
    who: str = RUN
    _state: dict[str, Any] = field(default_factory=dict)
    _trials: dict[str, _Trial] = field(default_factory=dict)
    _warnings: list[Told] = field(default_factory=list)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _beat: int = 0

    def __post_init__(self) -> None:
        self._since, self._process = _now(), this_process()
        self._redacted = Redaction()
        path = f"{self.storage.live_folder(self.sweep)}/{check_name(self.who)}.json"
        self._publication = Publication(
            self.storage,
            path,
            self._content,
            every=CHANGE_SECONDS,
            first=0.0,
            beat=BEAT_SECONDS,
        )

    def begun(self, *, samples: int, stored: int, concurrency: int) -> None:
        """Trials are about to be started."""
        state = {"samples": samples, "stored": stored, "concurrency": concurrency}
        self._note(**state, phase="waiting for a trial to begin")

    def phase(self, text: str) -> None:
        """What is waited for."""
        self._note(phase=self._redacted(text))

    def started(self, trial_id: str, *, steps: int, replicates: int, host: str) -> None:
        """A trial has been taken up, perhaps once more."""
        with self._lock:
            now = _now()
            self._state.setdefault("first", now)
            live = LiveTrial(trial_id, host, now, steps=steps)
            self._trials[trial_id] = _Trial(live, replicates)
            self._note(phase="")

    def progressed(self, trial_id: str, progress: Progress | StageProgress | Alive) -> None:
        """A trial has come further."""
        with self._lock:
            is_told = isinstance(progress, Progress) or progress.steps
            if is_told and (trial := self._trials.get(trial_id)) is not None:
                trial.live = _further(trial.live, progress)
                self._note(phase="")

    def finished(self, trial_id: str, status: str) -> None:
        """A trial has ended, well or not; one that was not under way has cost no time."""
        with self._lock:
            if (trial := self._trials.pop(trial_id, None)) is not None:
                self._state["finished"] = self._state.get("finished", 0) + 1
                if status != "failed":
                    done = self._state.get("replicates", 0)
                    self._state["replicates"] = done + trial.replicates
                self._note()

    def died(self, trial_id: str) -> None:
        """A trial has lost its worker, and waits for another."""
        with self._lock:
            self._trials.pop(trial_id, None)
            self._note()

    def warn(self, text: str) -> None:
        """Something that the user should know."""
        with self._lock:
            told = Told(_now(), self._redacted(text))
            self._warnings = [*self._warnings, told][-_WARNINGS:]
            self._note()

    def close(self, outcome: str) -> None:
        """The run is over; the page says so, or goes with the only trial."""
        with self._lock:
            self._trials.clear()
            self._note(ended=_now(), outcome=self._redacted(outcome), phase="")
        self._publication.close(seconds=_CLOSING_SECONDS, removed=self.who != RUN)

    def _note(self, **state: object) -> None:
        with self._lock:
            self._state |= state
        self._publication.changed()

    def _content(self) -> bytes:
        with self._lock:
            self._beat += 1
            run = LiveRun(
                sweep=self.sweep,
                who=self.who,
                process=self._process,
                since=self._since,
                heard=_now(),
                beat=self._beat,
                trials=tuple(trial.live for trial in self._trials.values()),
                warnings=tuple(self._warnings),
                **self._state,
            )
        return encode(run)


def _now() -> datetime:
    return datetime.now(UTC)


def _further(trial: LiveTrial, progress: Progress | StageProgress | Alive) -> LiveTrial:
    known = vars(trial) | {"step": progress.step, "steps": progress.steps or trial.steps}
    if isinstance(progress, Progress):
        figures = {name: getattr(progress, name) for name in _FIGURES}
        known |= {name: v if math.isfinite(v) else None for name, v in figures.items()}
    stage = "" if isinstance(progress, Progress) else progress.stage
    return LiveTrial(**known | {"stage": stage})


_FIGURES = ("loss", "val_accuracy", "expected_density")


def encode(run: LiveRun) -> bytes:
    """The document, as JSON."""
    trials = [vars(trial) for trial in run.trials]
    plain = vars(run) | {"trials": trials, "warnings": [vars(told) for told in run.warnings]}
    return json.dumps({"format": _FORMAT, **plain}, default=_plain).encode()


def decode(content: bytes) -> LiveRun | None:
    """What a document says; None for one that is damaged, or of another version."""
    try:
        plain = json.loads(content)
        if plain.pop("format") != _FORMAT:
            return None
        trials = [LiveTrial(**_with_times(trial)) for trial in plain.pop("trials")]
        warnings = [Told(**_with_times(told)) for told in plain.pop("warnings")]
        return LiveRun(**_with_times(plain), trials=tuple(trials), warnings=tuple(warnings))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


_TIMES = ("since", "heard", "ended", "first", "started", "at")


def _with_times(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: datetime.fromisoformat(value) if name in _TIMES and value is not None else value
        for name, value in plain.items()
    }


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no plain value: {value!r}")


def live_runs(storage: Storage, sweep: str | None = None) -> list[LiveRun]:
    """What all processes (that run trials of one sweep) have told last, by sweep and name.

    Raises StorageError where the storage cannot be listed.
    """
    found = []
    for of, name, info in storage.told(storage.live_folder(sweep)):
        if not name.endswith(".json"):
            continue
        with suppress(FileNotFoundError, pa.ArrowException, OSError):  # gone, or not ours to read
            with storage.filesystem.open_input_file(info.path) as stream:
                run = decode(stream.read())
            if run is not None and run.sweep == of:
                found.append(run)
    return sorted(found, key=lambda run: (run.sweep, run.who))
