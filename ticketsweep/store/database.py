"""Reading the mask database: Arrow tables, and SQL over all of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from ticketsweep.errors import QueryError
from ticketsweep.store.files import (
    DAMAGE,
    FORMAT,
    UnreadableFile,
    check_pages,
    committed_status,
    open_fragment,
    status_of,
)
from ticketsweep.store.paths import Storage, StoredFile, one_line
from ticketsweep.store.schema import SCHEMAS, Table
from ticketsweep.store.sql import ScanError, check_query, mentioned_tables, run_query

_ATTEMPTS = 20  # a reader gives up on a storage that changes under every one of them
_OPENERS = 8  # footers read at once; on an object store each is a round trip or two


def open_database(uri: str) -> Database:
    """The database at a local path or a `file://`, `s3://` or `gs://` URI.

    Raises StorageError if there is none.
    """
    return Database(Storage.open(uri, create=False))


class Database:
    """A reader. What it returns is what is stored at that moment; it holds no lock.

    Files that are damaged, or written by a newer version, are left out of every answer and named
    in `warnings`. Rows of trials that are not committed are not seen.
    """

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._opened: dict[StoredFile, ds.ParquetFileFragment] = {}
        self._skipped: dict[str, tuple[StoredFile, str]] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each file that the answers so far leave out: which, and why."""
        return tuple(f"skipped {self._skipped[path][1]}" for path in sorted(self._skipped))

    def sweeps(self) -> pa.Table:
        """One row per sweep, with the columns of `SWEEPS`, by name."""
        return self._read("sweeps")

    def trials(self, sweep: str | None = None) -> pa.Table:
        """One row per trial, with the columns of `TRIALS`, by sweep and time of starting."""
        rows = self._read("trials", sweep=sweep)
        keys = ("sweep", "started_at", "trial_id")
        return rows.sort_by([(key, "ascending") for key in keys])

    def trial(self, sweep: str, trial_id: str) -> dict[str, Any] | None:
        """One trial's row as plain values (`metrics` as a list of pairs), or None without it."""
        rows: list[dict[str, Any]] = self._read(
            "trials", sweep=sweep, trial_id=trial_id
        ).to_pylist()
        return rows[0] if rows else None

    def replicates(self, sweep: str | None = None, trial_id: str | None = None) -> pa.Table:
        """One row per replicate, with the columns of `REPLICATES`."""
        return self._read("replicates", sweep=sweep, trial_id=trial_id)

    def masks(
        self, sweep: str | None = None, trial_id: str | None = None, layer: str | None = None
    ) -> pa.Table:
        """One row per replicate and layer, with the columns of `MASKS`."""
        where = None if layer is None else ds.field("layer") == layer
        return self._read("masks", sweep=sweep, trial_id=trial_id, where=where)

    def curves(self, sweep: str | None = None, trial_id: str | None = None) -> pa.Table:
        """One row per replicate and logged step, with the columns of `CURVES`."""
        return self._read("curves", sweep=sweep, trial_id=trial_id)

    def find_complete(self, trial_id: str) -> str | None:
        """The first sweep (by name) that has this trial complete and whole, or None."""
        for sweep in self.storage.sweeps_with_trials():
            if committed_status(self.storage, sweep, trial_id) == "complete":
                return sweep
        return None

    def sql(self, query: str) -> pa.Table:
        """The answer to one SELECT or EXPLAIN over the views and macros of the database.

        Raises QueryError, in one line, for anything else and for SQL that is not valid.
        """
        check_query(query)
        tables = mentioned_tables(query)
        return self._answer(
            lambda: {table: self._committed(table) for table in tables},
            lambda datasets: run_query(query, datasets),
        )

    def _read(
        self,
        table: Table,
        *,
        sweep: str | None = None,
        trial_id: str | None = None,
        where: ds.Expression | None = None,
    ) -> pa.Table:
        return self._answer(
            lambda: {table: self._committed(table, sweep=sweep, trial_id=trial_id)},
            lambda datasets: datasets[table].to_table(filter=where),
        )

    def _answer(
        self,
        select: Callable[[], Mapping[Table, Sequence[StoredFile]]],
        scan: Callable[[Mapping[Table, ds.Dataset]], pa.Table],
    ) -> pa.Table:
        """Scan the selected files; where that fails because of a file, select and scan again.

        A file is at fault if it has been replaced since it was selected (the next selection has
        the new one) or if a page of it is damaged (the next selection leaves it out).
        """
        attempts = itertools.count(1)
        while True:
            files = select()
            datasets = {table: self._dataset(table, files[table]) for table in files}
            try:
                return scan(datasets)
            except (ScanError, *DAMAGE) as error:
                read = [file for table in files for file in files[table]]
                if next(attempts) < _ATTEMPTS and (
                    self._replaced(files) or self._skip_damaged(read)
                ):
                    continue
                if isinstance(error, QueryError):
                    raise QueryError(str(error)) from error
                raise UnreadableFile(f"storage {self.storage.uri}: {one_line(error)}") from error

    def _dataset(self, table: Table, files: Sequence[StoredFile]) -> ds.Dataset:
        fragments = [self._opened[file] for file in files]
        return ds.FileSystemDataset(fragments, SCHEMAS[table], FORMAT, self.storage.filesystem)

    def _replaced(self, files: Mapping[Table, Sequence[StoredFile]]) -> bool:
        return any(set(files[table]) - set(self.storage.files(table)) for table in files)

    def _committed(
        self, table: Table, *, sweep: str | None = None, trial_id: str | None = None
    ) -> list[StoredFile]:
        """The readable files of a table that a commit stands for, opened."""
        # Markers are listed first: what is committed after that has its files listed in vain.
        markers = [] if table == "sweeps" else self._open("trials", sweep, trial_id)
        if table == "trials":
            return markers
        files = self._open(table, sweep, trial_id)
        if table == "sweeps":
            return files
        visible = {
            (file.sweep, file.name) for file in markers if status_of(self._opened[file]) != "failed"
        }
        return [file for file in files if (file.sweep, file.name) in visible]

    def _open(self, table: Table, sweep: str | None, trial_id: str | None) -> list[StoredFile]:
        """The files of a table whose footers are sound; the others are noted as skipped."""
        if sweep is not None and trial_id is not None:
            file = self.storage.file(table, sweep, trial_id)
            listed = [] if file is None else [file]
        else:
            listed = self.storage.files(table, sweep)
            listed = [file for file in listed if trial_id in (None, file.name)]
        for file in listed:
            known = self._skipped.get(file.path)
            if known is not None and known[0] != file:
                del self._skipped[file.path]  # written anew since
        unseen = [f for f in listed if f not in self._opened and f.path not in self._skipped]
        if unseen:
            with ThreadPoolExecutor(_OPENERS) as pool:
                list(pool.map(self._open_one, unseen))
        return [f for f in listed if f in self._opened and f.path not in self._skipped]

    def _open_one(self, file: StoredFile) -> None:
        try:
            self._opened[file] = open_fragment(self.storage, file)
        except FileNotFoundError:
            return  # replaced or removed since it was listed
        except UnreadableFile as error:
            self._skipped[file.path] = (file, str(error))

    def _skip_damaged(self, files: Sequence[StoredFile]) -> bool:
        """Read the files through and note the damaged ones as skipped; whether there were any."""
        before = len(self._skipped)
        for file in files:
            try:
                check_pages(self._opened[file], file)
            except UnreadableFile as error:
                self._skipped[file.path] = (file, str(error))
        return len(self._skipped) > before
