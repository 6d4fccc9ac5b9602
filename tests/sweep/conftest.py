from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest

from ticketsweep.config import TrialConfig
from ticketsweep.space import SweepSpec, parse_space
from ticketsweep.store.paths import Storage

MINI: dict[str, Any] = {
    "model": "fc-16",
    "dataset": "digits",
    "weight_scale": {"uniform": [1.0, 2.0]},
    "gate": {"family": "gaussian", "l0_strength": {"loguniform": [0.3, 6]}},
    "train": {"steps": 40, "batch_size": 64},
    "replicates": {"init": 2, "data": 2, "gate": 1},
}
MakeSpec = Callable[..., SweepSpec]


@pytest.fixture(scope="session")
def make_spec() -> MakeSpec:
    """A search space of small trials on digits; keywords of the trial, and a `sweep` block."""

    def make(*, sweep: Mapping[str, Any] | None = None, **trial: Any) -> SweepSpec:
        block = {"name": "mini", "samples": 4} | dict(sweep or {})
        return parse_space(MINI | trial | {"sweep": block}, source="mini.yaml")

    return make


@pytest.fixture(scope="module")
def quiet_optuna() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.open(str(tmp_path / "storage"), create=True)


@dataclass
class Recorder:
    """An observer that writes down what it is told, and when."""

    events: list[tuple[str, Any, float]] = field(default_factory=list)
    on_event: Callable[[str, Any], None] | None = None

    def _note(self, kind: str, what: Any) -> None:
        self.events.append((kind, what, time.monotonic()))
        if self.on_event is not None and threading.current_thread() is threading.main_thread():
            self.on_event(kind, what)

    def of(self, kind: str) -> list[Any]:
        return [what for name, what, _ in self.events if name == kind]

    def phase(self, text: str) -> None:
        self._note("phase", text)

    def sweep_started(
        self, *, name: str, samples: int, stored: int, concurrency: int, earlier: object
    ) -> None:
        self._note("started", (name, samples, stored, concurrency))

    def trial_started(self, trial_id: str, config: TrialConfig, *, host: str) -> None:
        self._note("trial", trial_id)

    def trial_progressed(self, trial_id: str, progress: object) -> None:
        self._note("progress", (trial_id, progress))

    def trial_died(self, trial_id: str, reason: str) -> None:
        self._note("died", (trial_id, reason))

    def trial_finished(self, trial_id: str, row: Mapping[str, Any]) -> None:
        self._note("finished", dict(row))

    def warn(self, text: str) -> None:
        self._note("warning", text)


@pytest.fixture(scope="session")
def make_recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture
def recorder(make_recorder: type[Recorder]) -> Recorder:
    return make_recorder()
