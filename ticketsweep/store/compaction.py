"""Merging the many files of a sweep's complete trials into few: parts.

A part is a file of each table under one new name. That of `trials` is written last and commits the
others; from then on readers take its trials from it, and leave out their own files as well as parts
whose trials it has taken in. Then those are deleted, the file that commits a trial first. So every
trial is there once at any moment, and a compaction that was killed has left only files that no
reader sees, which the next one deletes.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from threading import Event

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ticketsweep.errors import StorageError
from ticketsweep.store.claims import Claim, claimed
from ticketsweep.store.contents import plain_rows
from ticketsweep.store.encoding import encode_part, is_sealed
from ticketsweep.store.files import (
    DAMAGE,
    UnreadableFile,
    open_fragment,
    put,
    read_bytes,
    remove,
    status_of,
)
from ticketsweep.store.part_contents import check_part, fault_of
from ticketsweep.store.parts import Part, part_states
from ticketsweep.store.paths import Storage, StoredFile, one_line
from ticketsweep.store.schema import SCHEMAS, TRIAL_TABLES, TRIALS, Table
from ticketsweep.store.threads import in_order
from ticketsweep.store.writer import remove_leftovers

PART_BYTES = 1 << 27
"""Of rows in memory, of which a part is made; a larger trial is a part of its own."""

_THREADS = min(4, os.cpu_count() or 1)  # each packs one part
_READERS = 4
_ORDER: Mapping[Table, tuple[str, ...]] = {
    "masks": ("layer", "trial_id", "replicate", "step"),
    "replicates": ("trial_id", "replicate"),
    "curves": ("trial_id", "replicate", "step"),
    "trials": ("trial_id",),
}

Rows = dict[Table, pa.Table]
Report = Callable[[int, int], None]
"""Is told how many of how many trials are merged."""


@dataclass(frozen=True)
class Compaction:
    """What has been done to one sweep.

    Attributes
    ----------
    trials: how many were written into new parts, those of merged parts included.
    files_before, bytes_before, files_after, bytes_after: of the sweep's trials.
    left: a line for each trial or part that stays as it is, since it cannot be read or contradicts
        itself.
    """

    sweep: str
    trials: int
    files_before: int
    bytes_before: int
    files_after: int
    bytes_after: int
    left: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """Trials to be merged: one with files of its own, or those of a part."""

    files: Mapping[Table, StoredFile]
    trials: frozenset[str]
    part: str | None
    sparsity: float


@dataclass(frozen=True)
class _Group:
    """Sources that become one part, with their rows."""

    sources: list[_Source]
    rows: list[Rows]

    @property
    def trials(self) -> int:
        return sum(len(source.trials) for source in self.sources)

    @property
    def replaced(self) -> list[str]:
        return [source.part for source in self.sources if source.part is not None]


def compact(storage: Storage, sweep: str, *, report: Report) -> Compaction:
    """Merge the files of a sweep's complete trials.

    Trials go into parts from dense to sparse, so that a query for sparse masks leaves out whole
    parts; within a part masks lie by layer and then by trial. Parts that are less than half full
    are merged again. Stopped and failed trials stay as they are, since they may be written anew.
    Readers and writers may go on meanwhile. In memory are a few times `PART_BYTES`, whatever the
    sweep's size, or the largest trial's rows if that is more.

    Raises StorageError if there is no such sweep, if another process compacts it, or where the
    storage cannot be written to; what has been merged until then stays merged.
    """
    _check_sweep(storage, sweep)
    with compacting(storage, sweep) as claim:
        files_before, bytes_before = _totals(storage, sweep)
        left = _finish_earlier(storage, sweep)
        work = _sources(storage, sweep)
        done, total = 0, sum(len(source.trials) for source in work)
        report(done, total)
        for group, encoded in _encoded(_groups(storage, work, left)):
            claim.check()
            _commit(storage, sweep, group, encoded)
            done += group.trials
            report(done, total)
        files_after, bytes_after = _totals(storage, sweep)
    return Compaction(
        sweep, done, files_before, bytes_before, files_after, bytes_after, tuple(left)
    )


def _check_sweep(storage: Storage, sweep: str) -> None:
    known = storage.sweeps_with_trials()
    if sweep not in known:
        has = f"it has {', '.join(known)}" if known else "it has no trial yet"
        raise StorageError(f"storage {storage.uri} has no trials of a sweep {sweep!r} ({has})")


def compacting(storage: Storage, sweep: str) -> AbstractContextManager[Claim]:
    """The claim of the only process that changes a sweep's parts.

    Raises StorageError, on entering, if another one has it.
    """
    return claimed(storage, sweep, "compaction", waiting=lambda _: None)


def _totals(storage: Storage, sweep: str) -> tuple[int, int]:
    files = [file for table in TRIAL_TABLES for file in storage.files(table, sweep)]
    return len(files), sum(file.size for file in files)


def _finish_earlier(storage: Storage, sweep: str) -> list[str]:
    """Delete what no reader sees, since a part has replaced it or was never committed.

    A part whose originals are still there is checked first, every byte and row of it. Returns a
    line for each that is not sound; its originals stay, the last whole copy of some trials.
    """
    remove_leftovers(storage, sweep)
    states = part_states(storage, sweep)
    kept = {part.name for part in states.committed} | states.unreadable
    there = [file for table in reversed(TRIAL_TABLES) for file in storage.files(table, sweep)]
    merged = any(file.compacted and file.name not in kept for file in there)
    own = {file.name for file in there if not file.compacted}
    bad = {
        part.name: fault
        for part in states.committed
        if (merged or part.trials & own) and (fault := _fault_in(storage, part)) is not None
    }
    inside = frozenset[str]().union(*(p.trials for p in states.committed if p.name not in bad))
    for file in there:  # `trials` first
        # Which parts a bad one has replaced is not looked for: all of them stay.
        if file.name not in kept and not bad if file.compacted else file.name in inside:
            remove(storage, file.path)
    return list(bad.values())


def _fault_in(storage: Storage, part: Part) -> str | None:
    try:
        faults = check_part(storage, part.files).faults
    except FileNotFoundError:
        return f"compacted part {part.name}: it has gone meanwhile"
    for table, reasons in faults.items():
        path = storage.part_file(table, part.sweep, part.name).removeprefix(f"{storage.root}/")
        return f"{path}: {reasons[0]} (the files it was made of stay too)"
    return None


def _sources(storage: Storage, sweep: str) -> list[_Source]:
    """All that is worth merging, from dense to sparse; nothing where that would change nothing."""
    parts = part_states(storage, sweep).committed
    inside = frozenset[str]().union(*(part.trials for part in parts))
    files: dict[str, dict[Table, StoredFile]] = {}
    for table in reversed(TRIAL_TABLES):  # `trials` first: what it commits is there by then
        for file in storage.files(table, sweep):
            if not file.compacted and file.name not in inside:
                files.setdefault(file.name, {})[table] = file
    committed = [of for of in files.values() if "trials" in of]
    with ThreadPoolExecutor(_READERS) as pool:
        looked = pool.map(lambda of: _own_source(storage, of), committed)
        own = [source for source in looked if source is not None]
    small = [source for part in parts if (source := _small_part(storage, part)) is not None]
    if not own and len(small) < 2:
        return []
    return sorted([*small, *own], key=lambda source: source.sparsity)


def _own_source(storage: Storage, files: Mapping[Table, StoredFile]) -> _Source | None:
    """A trial with files of its own; None unless it is complete."""
    try:
        fragment = open_fragment(storage, files["trials"])
    except (UnreadableFile, FileNotFoundError):
        return None
    if status_of(fragment) != "complete":
        return None
    sparsity = 0.0
    if fragment.metadata.num_row_groups:  # else `_loaded` says that it has no row
        stated = fragment.metadata.row_group(0).column(TRIALS.names.index("sparsity")).statistics
        sparsity = stated.min if stated is not None and stated.has_min_max else 0.0
    return _Source(files, frozenset([files["trials"].name]), None, sparsity)


def _small_part(storage: Storage, part: Part) -> _Source | None:
    try:
        fragments = [open_fragment(storage, file) for file in part.files.values()]
    except (UnreadableFile, FileNotFoundError):
        return None
    groups = [group for fragment in fragments for group in fragment.row_groups]
    if sum(group.total_byte_size for group in groups) >= PART_BYTES // 2:
        return None
    return _Source(part.files, part.trials, part.name, 0.0)


def _groups(storage: Storage, work: Sequence[_Source], left: list[str]) -> Iterator[_Group]:
    """The sources by what fits one part, read; what cannot be read is added to `left`."""
    group, held = _Group([], []), 0
    loaded = in_order(
        work, lambda each: _loaded(storage, each), threads=_READERS, ahead=2 * _READERS
    )
    for source, rows in loaded:
        if isinstance(rows, str):
            left.append(rows)
            continue
        size = sum(table.nbytes for table in rows.values())
        if group.sources and held + size > PART_BYTES:
            yield group
            group, held = _Group([], []), 0
        group.sources.append(source)
        group.rows.append(rows)
        held += size
    if group.sources:
        yield group


def _loaded(storage: Storage, source: _Source) -> Rows | str:
    """The rows of a source, every byte of which has been checked; or why it must stay."""
    rows: dict[Table, pa.Table] = {}
    for table in TRIAL_TABLES:
        file = source.files.get(table)
        if file is None:
            return f"{source.files['trials'].shown}: its file of {table} is missing"
        try:
            content = read_bytes(storage, file)
            if is_sealed(content) is False:
                return f"{file.shown}: its bytes are not those that were written"
            open_fragment(storage, file, content)  # whose scan would take ids from the file's name
            parquet = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
            rows[table] = parquet.read().replace_schema_metadata(SCHEMAS[table].metadata)
            rows[table].validate(full=True)
        except FileNotFoundError:
            return f"{file.shown}: it has gone meanwhile"
        except UnreadableFile as error:
            return str(error)
        except DAMAGE as error:
            return f"{file.shown}: {one_line(error)}"
        found = set(rows[table]["trial_id"].unique().to_pylist())
        if found - source.trials:
            return f"{file.shown}: it has rows of another trial"
        if table == "trials" and found != source.trials:
            return f"{file.shown}: it has no row of its trial"
    # Of a part's trials this is asked when it is verified, before the merging as after it.
    return rows if source.part is not None else _contradiction(source, rows) or rows


def _contradiction(source: _Source, rows: Rows) -> str | None:
    """What the tables of one trial say against each other."""
    files = source.files
    try:
        plain = {
            table: plain_rows(of.drop_columns(["bits"]) if table == "masks" else of)
            for table, of in rows.items()
        }
        fault = fault_of(plain, sweep=files["trials"].sweep)
    except ValueError as error:
        fault = "trials", str(error)
    return None if fault is None else f"{files[fault[0]].shown}: {fault[1]}"


def _encoded(groups: Iterator[_Group]) -> Iterator[tuple[_Group, Mapping[Table, pa.Buffer]]]:
    """Each group with the files of its part, in order; some threads pack the ones that follow."""
    cancelled = Event()
    encoded = in_order(
        groups, lambda each: _encode(each, cancelled.is_set), threads=_THREADS, ahead=_THREADS
    )
    with closing(encoded):
        try:
            yield from encoded
        finally:
            cancelled.set()


def _encode(group: _Group, cancelled: Callable[[], bool]) -> Mapping[Table, pa.Buffer]:
    files: dict[Table, pa.Buffer] = {}
    for table in TRIAL_TABLES:
        rows = pa.concat_tables([each.pop(table) for each in group.rows])  # freed when packed
        keys = rows.select(_ORDER[table])
        rows = rows.take(pc.sort_indices(keys, [(k, "ascending") for k in _ORDER[table]]))
        files[table] = encode_part(table, rows, group.replaced, cancelled=cancelled)
        if not _decodes_to(files[table], rows, cancelled):
            raise StorageError(f"this version of pyarrow does not read the {table} it has written")
    return files


def _decodes_to(encoded: pa.Buffer, rows: pa.Table, cancelled: Callable[[], bool]) -> bool:
    parquet = pq.ParquetFile(pa.BufferReader(encoded), page_checksum_verification=True)
    start = 0
    for index in range(parquet.num_row_groups):
        if cancelled():
            raise CancelledError
        group = parquet.read_row_group(index)
        expected = rows.slice(start, len(group))
        # No NaN is equal to another; masks have none.
        own = [name for name in rows.column_names if not pa.types.is_floating(rows[name].type)]
        own = [name for name in own if not pa.types.is_map(rows[name].type)]
        if not group.select(own).equals(expected.select(own)):
            return False
        start += len(group)
    return start == len(rows)


def _commit(
    storage: Storage, sweep: str, group: _Group, encoded: Mapping[Table, pa.Buffer]
) -> None:
    """Put a part in place, and delete what it replaces."""
    _put_part(storage, sweep, encoded)
    for source in group.sources:
        for table in reversed(TRIAL_TABLES):  # `trials` first
            remove(storage, source.files[table].path)


def _put_part(storage: Storage, sweep: str, encoded: Mapping[Table, pa.Buffer]) -> None:
    """Write a part and read it back; its last file commits it."""
    name = secrets.token_hex(8)
    for table in TRIAL_TABLES:
        path = storage.part_file(table, sweep, name)
        put(storage, path, encoded[table])
        try:
            with storage.filesystem.open_input_file(path) as stream:
                same = stream.read_buffer().equals(encoded[table])
        except (pa.ArrowException, OSError) as error:
            raise StorageError(
                f"storage {storage.uri}: cannot read back {path}: {one_line(error)}"
            ) from error
        if not same:
            remove(storage, path)
            raise StorageError(
                f"storage {storage.uri}: {path} does not read as it was written (check the disk; "
                f"all trials are where they were)"
            )


def rewrite_part(
    storage: Storage, sweep: str, part: str, trials: frozenset[str], rows: Rows
) -> None:
    """Commit these trials' rows in place of a part, whose files stay where they are.

    To be called under the claim of `compacting`. Raises StorageError where it cannot be written.
    """
    group = _Group([_Source({}, trials, part, 0.0)], [rows])
    _put_part(storage, sweep, _encode(group, lambda: False))
