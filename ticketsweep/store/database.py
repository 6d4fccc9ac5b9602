"""Reading the mask database: Arrow tables, and SQL over all of it."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from ticketsweep.errors import QueryError, StorageError
from ticketsweep.store.catalogue import Catalogue
from ticketsweep.store.conditions import all_of, checked
from ticketsweep.store.files import DAMAGE, FORMAT, UnreadableFile
from ticketsweep.store.footers import Footers
from ticketsweep.store.outlines import outlined
from ticketsweep.store.parts import committed_status
from ticketsweep.store.paths import Storage, StoredFile, one_line, reason
from ticketsweep.store.remote import is_service_fault
from ticketsweep.store.scanning import Answer, BoundedDataset, ScanError
from ticketsweep.store.schema import MASKS, SCHEMAS, Table, mask_digest, unpack_mask
from ticketsweep.store.threads import in_order

_IN_ORDER = ("sweep", "started_at", "trial_id")
_ASKED_AT_ONCE = 16  # sweeps of an object store
_ATTEMPTS = 100  # a reader gives up on a storage that changes under every one of them


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
        self._catalogue = Catalogue(storage)
        self._footers = Footers(storage)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each file that the answers so far leave out: which, and why."""
        return self._catalogue.warnings

    @property
    def crowded(self) -> tuple[str, ...]:
        """Sweeps whose many files of single trials have slowed down the answers so far.

        `ticketsweep masks compact` merges them.
        """
        return self._catalogue.crowded

    def sweeps(self) -> pa.Table:
        """One row per sweep, with the columns of `SWEEPS`, by name."""
        return self._read("sweeps")

    def trials(
        self,
        sweep: str | None = None,
        *,
        only: Collection[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """One row per trial, with the columns of `TRIALS`, by sweep and time of starting.

        Parameters
        ----------
        only: ids of those wanted; None: all.
        columns: those wanted besides sweep, trial and time of starting; None: all.
        """
        where = None if only is None else ds.field("trial_id").isin(list(only))

        def wanted() -> Mapping[Table, Sequence[StoredFile]]:
            if only is None:
                return {"trials": self._catalogue.committed("trials", sweep=sweep)}
            own, parts = self._catalogue.markers(sweep)
            return {"trials": [*self._catalogue.sound([f for f in own if f.name in only]), *parts]}

        names = None if columns is None else list(dict.fromkeys([*_IN_ORDER, *columns]))
        rows = self._answer(
            wanted, lambda datasets: datasets["trials"].to_table(columns=names, filter=where)
        )
        return rows.sort_by([(key, "ascending") for key in _IN_ORDER])

    def outlines(
        self, sweep: str | None = None, *, columns: Sequence[str], indexed: bool = True
    ) -> list[dict[str, Any]]:
        """The rows of `trials` with some columns alone, as plain values, in the same order.

        Of trials with files of their own they are taken from the sweep's index, if a driver has
        made one, or from the footers: of thousands, that takes a third of the time.

        Parameters
        ----------
        columns: those wanted besides `sweep`, `trial_id` and `started_at`; `metrics` becomes a list
            of pairs.
        indexed: whether the index will do, of whose files damage done since goes unnoticed.
        """
        wanted = list(dict.fromkeys([*_IN_ORDER, *columns]))
        told: list[dict[str, Any]] = []

        def others() -> Mapping[Table, Sequence[StoredFile]]:
            for _ in range(_ATTEMPTS):
                own, parts = self._catalogue.markers(sweep)
                told.clear()
                rest = []
                try:
                    for file, row in outlined(self._footers, own, wanted, indexed=indexed):
                        if row is None:
                            rest.append(file)
                        else:
                            told.append(row)
                except FileNotFoundError:  # compacted, or written anew, since it was listed
                    continue
                break
            return {"trials": [*self._catalogue.sound(rest), *parts]}

        read = self._answer(others, lambda datasets: datasets["trials"].to_table(columns=wanted))
        rows = [*told, *read.to_pylist()]
        return sorted(rows, key=lambda row: tuple(map(str, map(row.get, _IN_ORDER))))

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
        """One row per replicate, layer and step, with the columns of `MASKS`.

        The ticket has the last step of its trial. There are earlier ones where snapshots were asked
        for; SQL's view `tickets` and `ticket` leave them out.

        Parameters
        ----------
        sweep, trial, layer: name, id and parameter's name of those wanted; None: all.
        where: of any columns, for example `pyarrow.compute.field("sparsity") > 0.95`.
        columns: those wanted, None: all. Without `bits` no mask is read from the storage.

        Raises QueryError for a column that there is not, in `where` or `columns`.
        """
        chosen = checked(columns, where, layer)
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

        Of a single trial's file all rows are in memory at once, of a part those of a few row
        groups. A trial that is written anew or compacted meanwhile is seen once, as it was or as it
        is, never as a mixture.
        """
        chosen = checked(columns, where, layer)
        waiting = deque(self._catalogue.committed("masks", sweep=sweep, trial_id=trial))
        seen: dict[str, set[str]] = {}
        while waiting:
            file = waiting.popleft()
            done = seen.setdefault(file.sweep, set())
            if not file.compacted:
                if file.name not in done:
                    of = {"sweep": file.sweep, "trial_id": file.name}
                    yield from self._read("masks", where=chosen, columns=columns, **of).to_batches()
                done.add(file.name)
                continue
            trials = self._catalogue.trials_in(file)
            some = [] if chosen is None else [chosen]
            if trial is not None:
                some.append(ds.field("trial_id") == trial)
            if done & trials:
                some.append(~ds.field("trial_id").isin(sorted(done & trials)))
            try:
                yield from self._part_batches(file, all_of(some), columns)
            except FileNotFoundError:  # merged into another since it was listed
                waiting = deque(self._catalogue.committed("masks", sweep=sweep, trial_id=trial))
                continue
            done |= trials

    def ticket(
        self, trial_id: str, replicate: int = 0, *, sweep: str | None = None
    ) -> dict[str, NDArray[np.bool_]]:
        """The masks of one replicate of a trial: layer name -> bool array in the layer's shape.

        The layers come in the model's order, hardened at the last step stored.

        Parameters
        ----------
        sweep: whose trial is meant; None: of all that have it the one that has come furthest, since
            a scheduler may have stopped it early in some, and of equals the first by name.

        Raises StorageError if there are no such masks, UnreadableFile if a digest is wrong.
        """
        furthest: tuple[int, str] | None = None
        others: set[int] = set()
        for name in self.storage.sweeps_with_trials() if sweep is None else [sweep]:
            stored = self.masks(name, trial_id, columns=["replicate", "step"]).to_pylist()
            others |= {row["replicate"] for row in stored}
            steps = [row["step"] for row in stored if row["replicate"] == replicate]
            if steps and (furthest is None or max(steps) > furthest[0]):
                furthest = max(steps), name
        if furthest is not None:
            step, name = furthest
            chosen = (ds.field("replicate") == replicate) & (ds.field("step") == step)
            rows = self.masks(name, trial_id, where=chosen).to_pylist()
            rows.sort(key=lambda row: int(row["layer_index"]))
            return {row["layer"]: _mask_of(row) for row in rows}
        if others:
            known = f"it has masks of replicates {sorted(others)}"
        else:
            known = "no sweep has masks of it" if sweep is None else f"sweep {sweep} has none of it"
        raise StorageError(
            f"storage {self.storage.uri} has no ticket of replicate {replicate} of trial {trial_id}"
            f" ({known})"
        )

    def curves(self, sweep: str | None = None, trial: str | None = None) -> pa.Table:
        """One row per replicate and logged step, with the columns of `CURVES`."""
        return self._read("curves", sweep=sweep, trial_id=trial)

    def comparisons(self, sweep: str | None = None, trial: str | None = None) -> pa.Table:
        """One row per ordered pair of replicates that were compared, columns of `COMPARISONS`.

        Rows come by sweep, trial and pair; those of one ticket with itself have first == second.
        """
        rows = self._read("comparisons", sweep=sweep, trial_id=trial)
        keys = ("sweep", "trial_id", "first", "second")
        return rows.sort_by([(key, "ascending") for key in keys])

    def find_complete(self, trial_id: str) -> str | None:
        """The first sweep (by name) that has this trial complete and whole, or None."""
        # On an object store each sweep that is asked costs requests, one after the other.
        at_once = 1 if self.storage.local is not None else _ASKED_AT_ONCE
        looks = in_order(
            self.storage.sweeps_with_trials(),
            lambda sweep: committed_status(self.storage, sweep, trial_id),
            threads=at_once,
            ahead=at_once,
        )
        with contextlib.closing(looks):
            return next((sweep for sweep, status in looks if status == "complete"), None)

    def sql(self, query: str, parameters: Mapping[str, object] | None = None) -> pa.Table:
        """The answer to one SELECT or EXPLAIN over the views and macros of the database.

        Parameters
        ----------
        parameters: values of the query's `$name`s, which are never taken for SQL.

        Raises QueryError, in one line, for anything else and for SQL that is not valid.
        """
        answer: pa.Table = self.sql_stream(query, parameters, lambda rows: rows.read_all())
        return answer

    def sql_stream(
        self,
        query: str,
        parameters: Mapping[str, object] | None,
        consume: Callable[[pa.RecordBatchReader], Answer],
    ) -> Answer:
        """What `consume` makes of the answer to a query, which need not fit into memory.

        Parameters
        ----------
        query, parameters: as `sql` takes and refuses them.
        consume: is handed the answer's rows, in another thread. Where a damaged file shows itself
            in the middle of them, it is called again with all rows from the first on. What else it
            raises is its own, and comes out unchanged.
        """
        # Only here, since the engine takes a tenth of a second to import.
        from ticketsweep.store.sql import check_query, mentioned_tables, run_query

        bound = parameters or {}
        check_query(query, bound)
        tables = mentioned_tables(query)

        def guarded(rows: pa.RecordBatchReader) -> Answer:
            try:
                return consume(rows)
            except QueryError:  # of the rows that it reads
                raise
            except Exception as error:
                raise _ConsumerError(error) from error

        try:
            return self._answer(
                lambda: {table: self._catalogue.committed(table) for table in tables},
                lambda datasets: run_query(query, datasets, bound, guarded),
            )
        except _ConsumerError as failed:
            own = failed.error
        raise own  # as it was, here where it has no other context

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
        if trial_id is not None:  # a part has others beside it
            own = ds.field("trial_id") == trial_id
            where = own if where is None else own & where
        return self._answer(
            lambda: {table: self._catalogue.committed(table, sweep=sweep, trial_id=trial_id)},
            lambda datasets: datasets[table].to_table(columns=wanted, filter=where),
        )

    def _answer(
        self,
        select: Callable[[], Mapping[Table, Sequence[StoredFile]]],
        scan: Callable[[Mapping[Table, ds.Dataset]], Answer],
    ) -> Answer:
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
                    self._catalogue.changed(files) or self._catalogue.skip_damaged(read)
                ):
                    continue
                if isinstance(error, QueryError):
                    raise QueryError(str(error)) from error
                raise UnreadableFile(f"storage {self.storage.uri}: {one_line(error)}") from error

    def _dataset(self, table: Table, files: Sequence[StoredFile]) -> ds.Dataset:
        fragments = [self._catalogue.fragment(file) for file in files]
        return BoundedDataset(fragments, SCHEMAS[table], FORMAT, self.storage.filesystem)

    def _part_batches(
        self, file: StoredFile, where: ds.Expression | None, columns: Sequence[str] | None
    ) -> Iterator[pa.RecordBatch]:
        """The rows of a part, a row group or two in memory at once; it is opened but once.

        Raises FileNotFoundError if it has gone, before the first batch.
        """
        scanner = ds.Scanner.from_fragment(
            self._catalogue.fragment(file),
            schema=MASKS,
            columns=None if columns is None else list(columns),
            filter=where,
            batch_readahead=1,
            fragment_readahead=1,
        )
        begun = False
        try:
            for batch in scanner.to_batches():
                begun = True
                if batch.num_rows:
                    yield batch
        except DAMAGE as error:
            if is_service_fault(error):
                raise StorageError(f"storage {self.storage.uri}: {reason(error)}") from error
            if isinstance(error, FileNotFoundError) and not begun:
                raise
            if not self._catalogue.skip_damaged([file]):
                raise UnreadableFile(f"{file.shown}: {one_line(error)} (ask again)") from error


class _ConsumerError(Exception):
    """What is done with an answer has failed, not the reading of it."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def _mask_of(row: Mapping[str, Any]) -> NDArray[np.bool_]:
    if mask_digest(row["bits"], row["shape"]) != row["digest"]:
        raise UnreadableFile(
            f"sweep {row['sweep']}, trial {row['trial_id']}: the mask of layer {row['layer']} is "
            f"damaged (`ticketsweep masks verify --quarantine` moves such trials aside)"
        )
    return unpack_mask(row["bits"], row["shape"])
