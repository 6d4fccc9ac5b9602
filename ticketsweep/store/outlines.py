"""What the footers of a sweep's many small files say, gathered in one file by the sweep's driver.

Whoever looks at the sweep then opens that file, and the footers of what has come since: of
thousands of trials that is a second less, and on an object store as many requests. It is no part
of the database. A row of it counts for the very file that it was read from and no later one of that
name, and without it every footer is read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from ticketsweep.errors import StorageError
from ticketsweep.store.files import DAMAGE
from ticketsweep.store.footers import Footers, Outline
from ticketsweep.store.paths import Storage, StoredFile
from ticketsweep.store.publication import Publication
from ticketsweep.store.schema import TRIALS

FEWEST = 100
"""Files of single trials that are worth an index."""

_SIZE, _MTIME = "file_size", "file_mtime_ns"
_SCHEMA = TRIALS.append(pa.field(_SIZE, pa.int64())).append(pa.field(_MTIME, pa.int64()))
# Seconds. Some stores tell the second alone in which a file was written, and then a file that is
# written twice within it looks the same.
_SETTLED = 10.0
_EVERY = 60.0
_SHARE = 50  # an index of very many is written so seldom that this costs a fiftieth of the time
_CLOSING = 5.0


def _key(file: StoredFile) -> tuple[str, int, int]:
    return file.name, file.size, file.mtime_ns


def _read(storage: Storage, sweep: str, columns: Sequence[str]) -> pa.Table | None:
    """Some columns of the index, and those that tell of which files it is; None without one."""
    try:
        with storage.filesystem.open_input_file(storage.outlines_file(sweep)) as stream:
            opened = pq.ParquetFile(stream, page_checksum_verification=True)
            if not opened.schema_arrow.equals(_SCHEMA):  # of another version
                return None
            return opened.read(columns=[*columns, "trial_id", _SIZE, _MTIME])
    except DAMAGE:  # or there is none
        return None


def _keys(index: pa.Table) -> Iterator[tuple[str, int, int]]:
    return zip(*(index[name].to_pylist() for name in ("trial_id", _SIZE, _MTIME)), strict=True)


def indexed_rows(
    storage: Storage, sweep: str, files: Sequence[StoredFile], columns: Sequence[str]
) -> dict[StoredFile, Outline]:
    """Values of some columns of `trials`, of those of the files that the sweep's index knows.

    Parameters
    ----------
    files: of single trials of this sweep, as they were just listed.
    """
    if len(files) < FEWEST:
        return {}
    table = _read(storage, sweep, columns)
    if table is None:
        return {}
    places = {key: place for place, key in enumerate(_keys(table))}
    wanted = {file: place for file in files if (place := places.get(_key(file))) is not None}
    chosen = pa.array(wanted.values(), pa.int64())
    rows = table.select(list(dict.fromkeys(columns))).take(chosen).to_pylist()
    return dict(zip(wanted, rows, strict=True))


def outlined(
    footers: Footers, files: Sequence[StoredFile], columns: Sequence[str], *, indexed: bool
) -> Iterator[tuple[StoredFile, Outline | None]]:
    """Files of single trials and what an index or their footers say; see `Footers.rows`."""
    by_sweep: dict[str, list[StoredFile]] = {}
    for file in files:
        by_sweep.setdefault(file.sweep, []).append(file)
    for sweep, own in by_sweep.items():
        known = indexed_rows(footers.storage, sweep, own, columns) if indexed else {}
        yield from known.items()
        yield from footers.rows([file for file in own if file not in known], columns)


class _Index:
    """The index of one sweep, as its driver keeps it."""

    def __init__(self, storage: Storage, sweep: str) -> None:
        self._storage, self._sweep = storage, sweep
        self._footers = Footers(storage)
        self._rows: pa.Table | None = None
        self._known: dict[tuple[str, int, int], int] = {}  # row of each file
        self._is_written = True
        self._earliest, self._until = 0.0, math.inf

    def content(self) -> bytes | None:
        """The file's new content; None where it is too early for that, or nothing is new."""
        began = time.monotonic()
        if began < self._earliest and self._until == math.inf:
            return None
        try:
            content = self._gathered()
        except (StorageError, *DAMAGE):  # away, perhaps: the next one will do
            return None
        self._earliest = time.monotonic() + _SHARE * (time.monotonic() - began)
        return content

    def failed(self) -> None:
        """What was returned last could not be written."""
        self._is_written = False

    def end(self, seconds: float) -> None:
        """The next content is the last one, and may take so long."""
        self._until = time.monotonic() + seconds

    def _gathered(self) -> bytes | None:
        listed = self._storage.files("trials", self._sweep)
        limit = (time.time() - _SETTLED) * 1e9
        files = [file for file in listed if not file.compacted and file.mtime_ns < limit]
        if len(files) < FEWEST:
            return None
        if self._rows is None:  # what an earlier run has gathered
            found = _read(self._storage, self._sweep, TRIALS.names)
            self._rows = _SCHEMA.empty_table() if found is None else found.select(_SCHEMA.names)
            self._known = {key: at for at, key in enumerate(_keys(self._rows))}
        gone = self._known.keys() - set(map(_key, files))
        rows = list(self._new_rows(files))
        if not rows and not gone and self._is_written:
            return None
        if gone:
            left = [key for key in self._known if key not in gone]
            self._rows = self._rows.take(pa.array(map(self._known.get, left), pa.int64()))
            self._known = {key: at for at, key in enumerate(left)}
        new = pa.Table.from_pylist(rows, schema=_SCHEMA)
        self._known |= {key: at for at, key in enumerate(_keys(new), start=len(self._known))}
        self._rows = pa.concat_tables([self._rows, new])
        sink = pa.BufferOutputStream()
        pq.write_table(self._rows, sink, compression="zstd", write_page_checksum=True)
        self._is_written = True
        return bytes(sink.getvalue())

    def _new_rows(self, files: Sequence[StoredFile]) -> Iterator[Outline]:
        """One after the other: a pool of threads would be waited for at the interpreter's end."""
        for file in files:
            if time.monotonic() > self._until:
                return
            if _key(file) not in self._known:
                row = self._footers.row(file, TRIALS.names)
                if row is not None:
                    yield {**row, _SIZE: file.size, _MTIME: file.mtime_ns}


@contextmanager
def indexing(storage: Storage, sweep: str) -> Iterator[None]:
    """Keep the sweep's index up to date, by a thread of its own; the end waits some seconds."""
    index = _Index(storage, sweep)
    publication = Publication(
        storage,
        storage.outlines_file(sweep),
        index.content,
        every=_EVERY,
        first=_EVERY,
        beat=_EVERY,
        failed=index.failed,
    )
    try:
        yield
    finally:
        index.end(_CLOSING / 2)
        publication.close(seconds=_CLOSING)
