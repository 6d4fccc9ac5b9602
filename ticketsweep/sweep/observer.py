"""What a front end learns of a running sweep."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ticketsweep.config import TrialConfig
from ticketsweep.results.rows import Row

if TYPE_CHECKING:
    from ticketsweep.progress import Alive, Progress, StageProgress


class Observer(Protocol):
    """Told of everything in the driver's main thread; of warnings from any thread."""

    def phase(self, text: str) -> None:
        """What is going on while nothing else moves."""

    def sweep_started(
        self, *, name: str, samples: int, stored: int, concurrency: int, earlier: Collection[Row]
    ) -> None:
        """Ray is there; of `earlier` trials, `stored` of `samples` need not be run again."""

    def trial_started(self, trial_id: str, config: TrialConfig, *, host: str) -> None:
        """A worker on this machine has taken the trial up, perhaps for the second time."""

    def trial_progressed(self, trial_id: str, progress: Progress | StageProgress | Alive) -> None:
        """A logged step; or, without figures, steps between two of them."""

    def trial_died(self, trial_id: str, reason: str) -> None:
        """The trial's worker has died; it is started again, or `trial_finished` follows."""

    def trial_finished(self, trial_id: str, row: Mapping[str, Any]) -> None:
        """The trial is stored: complete, failed, or copied from another sweep."""

    def warn(self, text: str) -> None:
        """One sentence that the user should read."""
