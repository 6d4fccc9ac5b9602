"""A sweep that is looked at again and again: each time, only what is new is read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from ticketsweep.results.rows import Row
from ticketsweep.results.standing import Standing, standing_of, standings, stored_views
from ticketsweep.results.sweeps import SweepView
from ticketsweep.store.database import Database
from ticketsweep.store.live import live_runs
from ticketsweep.store.paths import Storage, StoredFile
from ticketsweep.store.under_way import trials_under_way

_FEW = 50  # trials that are read one by one; of more, all are


class Following:
    """A sweep as it was when it was looked at last."""

    def __init__(self, storage: Storage, sweep: str) -> None:
        self._storage, self._sweep = storage, sweep
        self._database = Database(storage)
        self._files: Mapping[str, StoredFile] = {}
        self._row: Row | None = None
        self._trials: dict[str, Row] | None = None

    def look(self, now: datetime) -> Standing:
        """How far it is.

        Raises
        ------
        SweepError: there is no such sweep.
        StorageError: the storage cannot be read.
        """
        files = {file.path: file for file in self._storage.files("trials", self._sweep)}
        new = [file for path, file in files.items() if self._files.get(path) != file]
        if self._trials is None or len(new) > _FEW or any(file.compacted for file in new):
            self._read_all()
        elif new:
            for file in new:
                row = self._database.trial(self._sweep, file.name)
                if row is not None:
                    self._trials[file.name] = row
        self._files = files
        runs = live_runs(self._storage, self._sweep)
        begun = trials_under_way(self._storage, self._sweep)
        found = standings(self._views(), runs, now=now, begun=begun)
        return standing_of(found, self._sweep, self._database)

    def _read_all(self) -> None:
        views = stored_views(self._database, self._sweep)
        self._trials = {str(row["trial_id"]): row for view in views for row in view.trials}
        self._row = next((view.row for view in views), None)

    def _views(self) -> list[SweepView]:
        if self._row is None and not self._trials:
            self._trials = None  # to be read once it is there
            return []
        assert self._trials is not None
        rows = sorted(self._trials.values(), key=lambda row: str(row["started_at"]))
        return [SweepView(self._sweep, self._row, rows)]
