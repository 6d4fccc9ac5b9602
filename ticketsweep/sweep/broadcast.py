"""A sweep's run, told in the storage as well as to its observer: for `status` on any machine."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ticketsweep.config import TrialConfig
from ticketsweep.progress import Alive, Progress, StageProgress
from ticketsweep.results.rows import Row
from ticketsweep.store.live import LivePage
from ticketsweep.store.logs import ENDED, add_note
from ticketsweep.store.paths import Storage
from ticketsweep.sweep.observer import Observer

_LAST_SECONDS = 3.0  # for what is noted at the end of a run


class Broadcast:
    """An observer that hands on all that it is told, and puts it onto the sweep's page."""

    def __init__(self, observer: Observer, page: LivePage) -> None:
        self._observer, self._page = observer, page
        self._dead: set[str] = set()
        self._under_way: set[str] = set()
        self.outcome = "done"  # of a run that ends without an error, unless it is told otherwise

    def phase(self, text: str) -> None:
        """See `Observer`."""
        self._page.phase(text)
        self._observer.phase(text)

    def sweep_started(
        self, *, name: str, samples: int, stored: int, concurrency: int, earlier: Collection[Row]
    ) -> None:
        """See `Observer`."""
        self._page.begun(samples=samples, stored=stored, concurrency=concurrency)
        self._observer.sweep_started(
            name=name, samples=samples, stored=stored, concurrency=concurrency, earlier=earlier
        )

    def trial_started(self, trial_id: str, config: TrialConfig, *, host: str) -> None:
        """See `Observer`."""
        self._dead.discard(trial_id)
        self._under_way.add(trial_id)
        of = config.replicates
        replicates = of.init * of.data * of.gate
        self._page.started(trial_id, steps=config.train.steps, replicates=replicates, host=host)
        self._observer.trial_started(trial_id, config, host=host)

    def trial_progressed(self, trial_id: str, progress: Progress | StageProgress | Alive) -> None:
        """See `Observer`."""
        self._page.progressed(trial_id, progress)
        self._observer.trial_progressed(trial_id, progress)

    def trial_finished(self, trial_id: str, row: Mapping[str, Any]) -> None:
        """See `Observer`."""
        self._under_way.discard(trial_id)
        self._page.finished(trial_id, str(row["status"]))
        if trial_id in self._dead:  # there is no worker that could say so
            self._note(trial_id, f"{ENDED}{row['status']}: {row['error']}")
        self._observer.trial_finished(trial_id, row)

    def trial_died(self, trial_id: str, reason: str) -> None:
        """See `Observer`."""
        self._dead.add(trial_id)
        self._note(trial_id, f"the trial's worker has died: {reason}")
        self._page.died(trial_id)
        self._page.warn(f"the worker of trial {trial_id} has died: {reason}")
        self._observer.trial_died(trial_id, reason)

    def close(self) -> None:
        """The run is over; the workers of trials under way were ended with it."""
        until = time.monotonic() + _LAST_SECONDS
        for trial_id in self._under_way:
            left = max(0.0, until - time.monotonic())
            self._note(trial_id, f"{ENDED}cut off with the run ({self.outcome})", seconds=left)
        self._page.close(self.outcome)

    def _note(self, trial_id: str, text: str, *, seconds: float = 0.0) -> None:
        add_note(self._page.storage, self._page.sweep, trial_id, text, seconds=seconds)

    def warn(self, text: str) -> None:
        """See `Observer`."""
        self._page.warn(text)
        self._observer.warn(text)


@contextlib.contextmanager
def broadcast(observer: Observer, storage: Storage, sweep: str) -> Iterator[Broadcast]:
    """An observer that tells the storage as well, for as long as the run lasts."""
    telling = Broadcast(observer, LivePage(storage, sweep))
    try:
        yield telling
    except Exception as error:
        telling.outcome = f"failed: {' '.join(str(error).split()) or type(error).__name__}"
        raise
    except BaseException:
        telling.outcome = "interrupted"
        raise
    finally:
        telling.close()
