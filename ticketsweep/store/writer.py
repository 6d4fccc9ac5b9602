"""Writing: a trial's files in an order that makes the last one its commit."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress

import pyarrow as pa

from ticketsweep.errors import StorageError
from ticketsweep.store.encoding import encode
from ticketsweep.store.files import UnreadableFile, open_fragment, put, remove, status_of
from ticketsweep.store.parts import committed_status, read_trial
from ticketsweep.store.paths import Leftover, Storage, this_host
from ticketsweep.store.schema import TRIAL_TABLES, Table, TrialRows, arrow_table

_STALE_SECONDS = 3600.0  # no write takes this long: what is older has lost its writer


def write_trial(storage: Storage, sweep: str, rows: TrialRows) -> None:
    """Store a trial: masks, replicates, curves, and last the trial's own row, which commits them.

    A complete trial that is already there and whole stays as it is, whatever is written: its id
    says that its content is the same. Anything else of the same id is replaced, and at no moment
    does a reader see rows of both. Of a failed trial only its own row is stored.

    Raises
    ------
    StorageError: the storage cannot be written to; the trial is then not there.
    ValueError: a row that does not fit its table (see `arrow_table`).
    """
    trial_id, status = str(rows.trial["trial_id"]), str(rows.trial["status"])
    of = {"sweep": sweep, "trial_id": trial_id}
    tables: dict[Table, pa.Table] = {
        "masks": arrow_table("masks", (mask.row() for mask in rows.masks), **of),
        "replicates": arrow_table("replicates", rows.replicates, **of),
        "curves": arrow_table("curves", rows.curves, **of),
        "trials": arrow_table("trials", [rows.trial], **of),
    }
    _commit(storage, sweep, trial_id, status, tables)


def _commit(
    storage: Storage, sweep: str, trial_id: str, status: str, tables: Mapping[Table, pa.Table]
) -> None:
    paths = {table: storage.trial_file(table, sweep, trial_id) for table in TRIAL_TABLES}
    if committed_status(storage, sweep, trial_id) == "complete":
        return
    if status == "failed":
        put(storage, paths["trials"], encode("trials", tables["trials"], status=status))
        for table in TRIAL_TABLES[:-1]:
            remove(storage, paths[table])
        return
    if _shows_rows(storage, sweep, trial_id):
        remove(storage, paths["trials"])  # else its row would stand beside the new masks
    for table in TRIAL_TABLES[:-1]:
        put(storage, paths[table], encode(table, tables[table]))
    put(storage, paths["trials"], encode("trials", tables["trials"], status=status))


def replace_row(storage: Storage, sweep: str, trial: Mapping[str, object]) -> None:
    """Replace the row of a stopped trial in `trials`, whose other rows stay.

    Raises StorageError and ValueError as `write_trial` does.
    """
    trial_id, status = str(trial["trial_id"]), str(trial["status"])
    rows = arrow_table("trials", [trial], sweep=sweep, trial_id=trial_id)
    path = storage.trial_file("trials", sweep, trial_id)
    put(storage, path, encode("trials", rows, status=status))


def _shows_rows(storage: Storage, sweep: str, trial_id: str) -> bool:
    """Whether readers take a marker that is there for the commit of the other tables' rows."""
    marker = storage.file("trials", sweep, trial_id)
    if marker is None:
        return False
    try:
        return status_of(open_fragment(storage, marker)) != "failed"
    except (UnreadableFile, FileNotFoundError):
        return False


def write_sweep(storage: Storage, row: Mapping[str, object]) -> None:
    """Store (or replace) the row of a sweep; `row` has the columns of `SWEEPS`.

    Raises StorageError as `write_trial` does, ValueError for a row that does not fit the table.
    """
    path = storage.sweep_file(str(row["sweep"]))
    put(storage, path, encode("sweeps", arrow_table("sweeps", [row])))


def copy_trial(
    storage: Storage, trial_id: str, source_sweep: str, target_sweep: str, *, search: str | None
) -> None:
    """Store all rows of one sweep's trial under another sweep's name as well.

    Parameters
    ----------
    search: the target sweep's own record of the suggestion (JSON), in place of the source's.

    Raises StorageError if the source's files are missing or damaged.
    """
    if source_sweep == target_sweep:
        raise ValueError(f"a trial is copied from one sweep to another, got {source_sweep!r} twice")
    rows = read_trial(storage, source_sweep, trial_id)
    if rows is None:
        raise StorageError(f"sweep {source_sweep} has no whole trial {trial_id} to copy")
    status = str(rows["trials"]["status"][0].as_py())
    tables = {table: _with_column(of, "sweep", target_sweep) for table, of in rows.items()}
    tables["trials"] = _with_column(tables["trials"], "search", search)
    _commit(storage, target_sweep, trial_id, status, tables)


def _with_column(rows: pa.Table, name: str, value: str | None) -> pa.Table:
    column = pa.array([value] * len(rows), type=pa.string())
    return rows.set_column(rows.schema.get_field_index(name), name, column)


def remove_leftovers(storage: Storage, sweep: str) -> int:
    """Delete the temporary files that dead writers of this sweep have left; returns how many.

    A file of a running process of this machine stays, and one of another machine for an hour.
    Raises StorageError where deleting is not allowed.
    """
    dead = dead_leftovers(storage, sweep)
    for file in dead:
        remove(storage, file.path)
    return len(dead)


def dead_leftovers(storage: Storage, sweep: str | None) -> list[Leftover]:
    """What `remove_leftovers` would delete; for None, what there is of no sweep."""
    return [file for file in storage.leftovers(sweep) if _is_dead(file)]


def _is_dead(file: Leftover) -> bool:
    """Whether the process that has left this is no more, as far as can be told from here."""
    if time.time() - file.mtime_ns / 1e9 > _STALE_SECONDS:
        return True
    if file.host != this_host():
        return False
    with suppress(PermissionError):  # somebody else's process is a running one
        try:
            os.kill(file.pid, 0)
        except ProcessLookupError:
            return True
    return False
