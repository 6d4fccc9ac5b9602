"""What a part holds: which of its trials can be trusted, and their rows, if some cannot."""

from __future__ import annotations

import heapq
import itertools
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from ticketsweep.store.contents import (
    Rows,
    check_mask,
    check_statistics,
    disagreements,
    plain_rows,
)
from ticketsweep.store.encoding import is_sealed
from ticketsweep.store.files import (
    DAMAGE,
    UnreadableFile,
    check_stamp,
    open_fragment,
    read_bytes,
)
from ticketsweep.store.paths import Storage, StoredFile, one_line
from ticketsweep.store.schema import TRIAL_TABLES, Table, check_rows

_AT_ONCE = 1024  # rows
_TRIAL_ID = 1  # of the columns of each table
_ALL = ("", "\U0010ffff")
_UNSEALED = "its bytes are not those that were written (its digest differs)"


@dataclass
class PartContents:
    """What was found in the files of a part.

    Attributes
    ----------
    faults: of each table's file, what is wrong with it.
    trials: all ids that were met.
    lost: those with rows that are damaged, missing or contradictory.
    unknown: first and last id of those that may have rows in what cannot be read.
    files, bytes: how much was read.
    unsealed: files of a version that wrote no digest.
    """

    faults: dict[Table, list[str]] = field(default_factory=dict)
    trials: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    files: int = 0
    bytes: int = 0
    unsealed: int = 0
    unknown: list[tuple[str, str]] = field(default_factory=list)

    def fault(self, table: Table, text: str) -> None:
        """Note what is wrong with a table's file."""
        self.faults.setdefault(table, []).append(text)


def check_part(storage: Storage, files: Mapping[Table, StoredFile]) -> PartContents:
    """Read every byte of a part and check each trial of it.

    In memory are the largest file, and the rows of all but for the bits of masks.

    Raises FileNotFoundError if it goes meanwhile.
    """
    found = PartContents()
    tables: dict[Table, pa.Table] = {}
    for table in TRIAL_TABLES:
        if table not in files:
            found.fault(table, "is missing")
            found.unknown.append(_ALL)
            continue
        kept = [_without_bits(g, found) for g in readable_groups(storage, files[table], found)]
        if kept:
            tables[table] = pa.concat_tables(kept)
            found.trials |= set(tables[table]["trial_id"].unique().to_pylist())
    for first, last in found.unknown:
        found.lost |= {trial for trial in found.trials if first <= trial <= last}
    for trial, rows in _by_trial(tables):
        if trial in found.lost:
            continue
        try:
            fault = fault_of(rows, sweep=next(iter(files.values())).sweep)
        except ValueError as error:
            fault = "trials", str(error)
        if fault is not None:
            found.lost.add(trial)
            found.fault(fault[0], f"trial {trial}: {fault[1]}")
    return found


def readable_groups(storage: Storage, file: StoredFile, found: PartContents) -> Iterator[pa.Table]:
    """The rows of those row groups of a file that can be read.

    What is wrong with the others is noted in `found`, and their trials as lost.

    Raises FileNotFoundError.
    """
    try:
        content = read_bytes(storage, file)
        found.files += 1
        found.bytes += content.size
        sealed = is_sealed(content)
        fragment = open_fragment(storage, file, content)
        if sealed is None:
            found.unsealed += 1
            check_stamp(fragment, file)
            check_statistics(content)
        parquet = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
    except UnreadableFile as error:
        found.fault(file.table, str(error).removeprefix(f"{file.shown}: "))
        found.unknown.append(_ALL)
        return
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        found.fault(file.table, one_line(error))
        found.unknown.append(_ALL)
        return
    if sealed is False:
        found.fault(file.table, _UNSEALED)
    missing, rows = False, 0
    for index in range(parquet.num_row_groups):
        try:
            group = parquet.read_row_group(index)
            group.validate(full=True)
        except DAMAGE as error:
            found.fault(file.table, f"row group {index}: {one_line(error)}")
            missing = True
            _note_lost(parquet, index, found)
            continue
        rows += len(group)
        yield group
    if not missing and rows != fragment.metadata.num_rows:
        found.fault(file.table, f"it has {rows} rows, but its footer says otherwise")
        found.unknown.append(_ALL)


def _note_lost(parquet: pq.ParquetFile, index: int, found: PartContents) -> None:
    """The trials of a row group that cannot be read, from its column or else its statistics."""
    try:
        column = parquet.read_row_group(index, columns=["trial_id"])["trial_id"]
    except DAMAGE:
        stated = parquet.metadata.row_group(index).column(_TRIAL_ID).statistics
        known = stated is not None and stated.has_min_max
        found.unknown.append((stated.min, stated.max) if known else _ALL)
        return
    ids = set(column.to_pylist())
    found.trials |= ids
    found.lost |= ids


def _without_bits(group: pa.Table, found: PartContents) -> pa.Table:
    if "bits" not in group.column_names:
        return group
    for batch in group.to_batches(max_chunksize=16):
        for row in plain_rows(batch):
            try:
                check_mask(row)
            except ValueError as error:
                found.lost.add(row["trial_id"])
                found.fault("masks", f"trial {row['trial_id']}: {error}")
    return group.drop_columns(["bits"])


def _by_trial(tables: Mapping[Table, pa.Table]) -> Iterator[tuple[str, dict[Table, Rows]]]:
    """Each trial's rows of all tables, one trial after the other."""
    streams = [_runs(table, rows) for table, rows in tables.items()]
    merged = heapq.merge(*streams, key=operator.itemgetter(0))
    for trial, runs in itertools.groupby(merged, key=operator.itemgetter(0)):
        yield trial, {table: rows for _, table, rows in runs}


def _runs(table: Table, rows: pa.Table) -> Iterator[tuple[str, Table, Rows]]:
    batches = rows.sort_by("trial_id").to_batches(max_chunksize=_AT_ONCE)
    plain = itertools.chain.from_iterable(map(plain_rows, batches))
    for trial, run in itertools.groupby(plain, key=operator.itemgetter("trial_id")):
        yield trial, table, list(run)


def fault_of(rows: Mapping[Table, Rows], *, sweep: str) -> tuple[Table, str] | None:
    """What is wrong with a complete trial's rows (masks without bits), and in which table."""
    for table, of in rows.items():
        try:
            check_rows(table, of)  # keys that occur once, shares, a known status
        except ValueError as error:
            return table, str(error)
        if any(row["sweep"] != sweep for row in of):
            return table, f"it lies under sweep {sweep}, but has a row of another"
    own = rows.get("trials", ())
    if len(own) != 1:
        return "trials", f"it has {len(own)} rows instead of one"
    if own[0]["status"] != "complete":
        return "trials", f"it is {own[0]['status']}, and only complete ones are compacted"
    return next(disagreements({table: rows.get(table, ()) for table in TRIAL_TABLES}), None)


def sound_rows(
    storage: Storage, files: Mapping[Table, StoredFile], trials: frozenset[str]
) -> dict[Table, pa.Table]:
    """The rows of trials that `check_part` has met and not found lost. Raises FileNotFoundError."""
    wanted = ds.field("trial_id").isin(sorted(trials))
    return {
        table: pa.concat_tables(
            group.filter(wanted) for group in readable_groups(storage, files[table], PartContents())
        )
        for table in TRIAL_TABLES
    }
