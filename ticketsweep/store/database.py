"""Reading the mask database: Arrow tables, and SQL over all of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from ticketsweep.errors import QueryError, StorageError, did_you_mean
from ticketsweep.store.files import (
    DAMAGE,
    FORMAT,
    UnreadableFile,
    check_pages,
    committed_status,
    open_fragment,
    status_of,
)
from ticketsweep.store.paths import Storage, StoredFile, one_line, reason
from ticketsweep.store.remote import is_service_fault
from ticketsweep.store.schema import MASKS, SCHEMAS, Table, mask_digest, unpack_mask
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

    def replicates(self, sweep: str | None = None, trial: str | None = None) -> pa.Table:
        """One row per replicate, with the columns of `REPLICATES`."""
        return self._read("replicates", sweep=sweep, trial_id=trial)

    def masks(
        self,
        sweep: str | None = None,
        trial: str | None = None,
        layer: str | None = None,
        where: ds.Expression | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """One row per replicate and layer, with the columns of `MASKS`.

        Parameters
        ----------
        sweep, trial, layer: name, id and parameter's name of those wanted; None: all.
        where: of any columns, for example `pyarrow.compute.field("sparsity") > 0.95`.
        columns: those wanted, None: all. Without `bits` no mask is read from the storage.

        Raises QueryError for a column that there is not, in `where` or `columns`.
        """
        chosen = _checked(columns, where, layer)
        return self._read("masks", sweep=sweep, trial_id=trial, where=chosen, columns=columns)

    def mask_batches(
        self,
        sweep: str | None = None,
        trial: str | None = None,
        layer: str | None = None,
        where: ds.Expression | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """The rows of `masks`, of one file of the storage after the other.

        No more than one file's rows are in memory at once, however many there are. A trial that is
        written anew meanwhile is seen as it was or as it is, never as a mixture.
        """
        chosen = _checked(columns, where, layer)
        for file in self._committed("masks", sweep=sweep, trial_id=trial):
            of = {"sweep": file.sweep, "trial_id": file.name}
            yield from self._read("masks", where=chosen, columns=columns, **of).to_batches()

    def ticket(self, trial_id: str, replicate: int = 0) -> dict[str, NDArray[np.bool_]]:
        """The masks of one replicate of a trial: layer name -> bool array in the layer's shape.

        The layers come in the model's order, hardened at the last step stored, from the first sweep
        (by name) that has the trial.

        Raises StorageError if there are no such masks, UnreadableFile if a digest is wrong.
        """
        others: set[int] = set()
        for sweep in self.storage.sweeps_with_trials():
            stored = self.masks(sweep, trial_id, columns=["replicate", "step"]).to_pylist()
            others |= {row["replicate"] for row in stored}
            steps = [row["step"] for row in stored if row["replicate"] == replicate]
            if steps:
                chosen = (ds.field("replicate") == replicate) & (ds.field("step") == max(steps))
                rows = self.masks(sweep, trial_id, where=chosen).to_pylist()
                rows.sort(key=lambda row: int(row["layer_index"]))
                return {row["layer"]: _mask_of(row) for row in rows}
        known = f"it has masks of replicates {sorted(others)}" if others else "no sweep has masks"
        raise StorageError(
            f"storage {self.storage.uri} has no ticket of replicate {replicate} of trial {trial_id}"
            f" ({known}{' of it' if not others else ''})"
        )

    def curves(self, sweep: str | None = None, trial: str | None = None) -> pa.Table:
        """One row per replicate and logged step, with the columns of `CURVES`."""
        return self._read("curves", sweep=sweep, trial_id=trial)

    def find_complete(self, trial_id: str) -> str | None:
        """The first sweep (by name) that has this trial complete and whole, or None."""
        for sweep in self.storage.sweeps_with_trials():
            if committed_status(self.storage, sweep, trial_id) == "complete":
                return sweep
        return None

    def sql(self, query: str, parameters: Mapping[str, object] | None = None) -> pa.Table:
        """The answer to one SELECT or EXPLAIN over the views and macros of the database.

        Parameters
        ----------
        parameters: values of the query's `$name`s, which are never taken for SQL.

        Raises QueryError, in one line, for anything else and for SQL that is not valid.
        """
        bound = parameters or {}
        check_query(query, bound)
        tables = mentioned_tables(query)
        return self._answer(
            lambda: {table: self._committed(table) for table in tables},
            lambda datasets: run_query(query, datasets, bound),
        )

    def _read(
        self,
        table: Table,
        *,
        sweep: str | None = None,
        trial_id: str | None = None,
        where: ds.Expression | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        wanted = None if columns is None else list(columns)
        return self._answer(
            lambda: {table: self._committed(table, sweep=sweep, trial_id=trial_id)},
            lambda datasets: datasets[table].to_table(columns=wanted, filter=where),
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
                if is_service_fault(error):
                    raise StorageError(f"storage {self.storage.uri}: {reason(error)}") from error
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


def _checked(
    columns: Sequence[str] | None, where: ds.Expression | None, layer: str | None
) -> ds.Expression | None:
    """The condition on masks that `where` and `layer` make, if all columns are there."""
    for name in columns or ():
        if name not in MASKS.names:
            raise QueryError(f"masks have no column {name!r} ({did_you_mean(name, MASKS.names)})")
    if where is not None:
        try:
            ds.dataset(MASKS.empty_table()).to_table(filter=where)
        except (pa.ArrowException, TypeError) as error:
            raise QueryError(f"where is not a condition on masks: {one_line(error)}") from error
    if layer is None:
        return where
    own = ds.field("layer") == layer
    return own if where is None else own & where


def _mask_of(row: Mapping[str, Any]) -> NDArray[np.bool_]:
    if mask_digest(row["bits"], row["shape"]) != row["digest"]:
        raise UnreadableFile(
            f"sweep {row['sweep']}, trial {row['trial_id']}: the mask of layer {row['layer']} is "
            f"damaged (`ticketsweep masks verify --quarantine` moves such trials aside)"
        )
    return unpack_mask(row["bits"], row["shape"])
