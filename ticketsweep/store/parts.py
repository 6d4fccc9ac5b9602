"""A trial wherever it lies: in files of its own, or with others in a part that was compacted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.dataset as ds

from ticketsweep.errors import StorageError
from ticketsweep.store.files import (
    UnreadableFile,
    open_fragment,
    read_file,
    replaced_by,
    trials_of,
)
from ticketsweep.store.paths import Storage, StoredFile, one_line
from ticketsweep.store.schema import SCHEMAS, TRIAL_TABLES, Table

_ATTEMPTS = 20  # at a storage that changes under every one of them


@dataclass(frozen=True)
class Part:
    """Complete trials of one sweep, merged: a file of each table, of which `trials` commits.

    Attributes
    ----------
    files: those that are there.
    trials: the ids of all it holds.
    """

    sweep: str
    name: str
    files: Mapping[Table, StoredFile]
    trials: frozenset[str]


@dataclass(frozen=True)
class PartStates:
    """The parts of a sweep.

    Attributes
    ----------
    committed: those that stand for their trials.
    unreadable: names of those whose file of `trials` is damaged.
    """

    committed: tuple[Part, ...]
    unreadable: frozenset[str]


def part_states(storage: Storage, sweep: str) -> PartStates:
    """The parts of a sweep as they are at this moment. Raises StorageError."""
    for _ in range(_ATTEMPTS):
        try:
            return _part_states(storage, sweep)
        except FileNotFoundError:
            continue  # merged into another since it was listed
    raise StorageError(f"storage {storage.uri}: the parts of sweep {sweep} change all the time")


def _part_states(storage: Storage, sweep: str) -> PartStates:
    trials: dict[str, frozenset[str]] = {}
    replaced: set[str] = set()
    unreadable: set[str] = set()
    for file in stable_parts(storage, sweep):
        try:
            fragment = open_fragment(storage, file)
            of, instead_of = trials_of(fragment, file), replaced_by(fragment, file)
        except UnreadableFile:
            unreadable.add(file.name)
            continue
        trials[file.name] = of
        replaced |= instead_of
    committed = tuple(
        Part(sweep, name, storage.part_files(sweep, name), of)
        for name, of in trials.items()
        if name not in replaced
    )
    return PartStates(committed, frozenset(unreadable))


def stable_parts(storage: Storage, sweep: str) -> list[StoredFile]:
    """The files of `trials` of a sweep's parts.

    A listing is not of one moment: of a part that is merged into another meanwhile, it may have
    neither. A second one that began after the first had ended then differs.
    """
    listed = storage.parts("trials", sweep)
    for _ in range(_ATTEMPTS):
        again = storage.parts("trials", sweep)
        if again == listed:
            break
        listed = again
    return listed


def committed_status(storage: Storage, sweep: str, trial_id: str) -> str | None:
    """The status of a trial whose files are all there and open; None for any other.

    A trial with a damaged or missing file counts as absent, so that it is run again.
    """
    # Files of its own come first: they go only after a part that has the trial has come.
    own = _own_status(storage, sweep, trial_id)
    if own == "complete":
        return own
    part = _part_of(storage, sweep, trial_id)
    if part is None:
        return own
    try:
        for table in TRIAL_TABLES:
            open_fragment(storage, part.files[table])
    except (UnreadableFile, FileNotFoundError, KeyError):
        return None
    return "complete"


def _own_status(storage: Storage, sweep: str, trial_id: str) -> str | None:
    marker = storage.file("trials", sweep, trial_id)
    if marker is None:
        return None
    try:
        status = str(read_file(storage, marker)["status"][0].as_py())
        if status != "failed":
            for table in ("masks", "replicates", "curves"):
                file = storage.file(table, sweep, trial_id)
                if file is None:
                    return None
                open_fragment(storage, file)
    except (UnreadableFile, FileNotFoundError, IndexError):
        return None
    return status


def _part_of(storage: Storage, sweep: str, trial_id: str) -> Part | None:
    committed = part_states(storage, sweep).committed
    return next((part for part in committed if trial_id in part.trials), None)


def read_trial(storage: Storage, sweep: str, trial_id: str) -> dict[Table, pa.Table] | None:
    """All rows of a committed trial, table by table; None if the sweep has none of this id.

    Raises UnreadableFile if a file of it is damaged.
    """
    for _ in range(_ATTEMPTS):
        try:
            if _own_status(storage, sweep, trial_id) is not None:
                return _own_rows(storage, sweep, trial_id)
            part = _part_of(storage, sweep, trial_id)
            return None if part is None else _rows_in(storage, part, trial_id)
        except FileNotFoundError:
            continue  # compacted since it was looked for
    raise StorageError(f"storage {storage.uri}: the files of sweep {sweep} change all the time")


def _own_rows(storage: Storage, sweep: str, trial_id: str) -> dict[Table, pa.Table]:
    files = storage.trial_files(sweep, trial_id)
    if "trials" not in files:
        raise FileNotFoundError(trial_id)
    return {
        table: read_file(storage, files[table]) if table in files else SCHEMAS[table].empty_table()
        for table in TRIAL_TABLES
    }


def _rows_in(storage: Storage, part: Part, trial_id: str) -> dict[Table, pa.Table]:
    rows: dict[Table, pa.Table] = {}
    for table in TRIAL_TABLES:
        file = part.files.get(table)
        if file is None:
            raise UnreadableFile(f"the part {part.name} of sweep {part.sweep} has no {table}")
        try:
            fragment = open_fragment(storage, file)
            rows[table] = fragment.to_table(
                schema=SCHEMAS[table], filter=ds.field("trial_id") == trial_id
            )
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UnreadableFile(f"{file.shown}: {one_line(error)}") from error
    return rows
