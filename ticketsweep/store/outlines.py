"""What the footers of a sweep's many small files say, gathered in one file by the sweep's driver.

Whoever looks at the sweep then opens that file, and the footers of what has come since: of
thousands of trials that is a second less, and on an object store as many requests. It is no part
of the database. A row of it counts for the very file that it was read from and no later one of that
name, and without it every footer is read.
"""

from __future__ import annotations

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

_FILE = "outlines.parquet"
_SIZE, _MTIME = "file_size", "file_mtime_ns"
_SCHEMA = TRIALS.append(pa.field(_SIZE, pa.int64())).append(pa.field(_MTIME, pa.int64()))
# Seconds. Some stores tell the second alone in which a file was written, and then a file that is
# written twice within it looks the same.
_SETTLED = 10.0
_EVERY = 60.0
_SHARE = 50  # an index of very many is written so seldom that this costs a fiftieth of the time
_CLOSING = 5.0


def _place(storage: Storage, sweep: str) -> str:
    return f"{storage.live_folder(sweep)}/{_FILE}"


def _key(file: StoredFile) -> tuple[str, int, int]:
    return file.name, file.size, file.mtime_ns


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
    path = _place(storage, sweep)
    try:
        with storage.filesystem.open_input_file(path) as stream:
            opened = pq.ParquetFile(stream, page_checksum_verification=True)
            if not opened.schema_arrow.equals(_SCHEMA):  # of another version
                return {}
            table = opened.read(columns=[*columns, "trial_id", _SIZE, _MTIME])
    except DAMAGE:  # or there is none
        return {}
    keys = zip(*(table[name].to_pylist() for name in ("trial_id", _SIZE, _MTIME)), strict=True)
    places = {key: place for place, key in enumerate(keys)}
    wanted = {file: place for file in files if (place := places.get(_key(file))) is not None}
    chosen = pa.array(wanted.values(), pa.int64())
    rows = table.select(list(dict.fromkeys(columns))).take(chosen).to_pylist()
    return dict(zip(wanted, rows, strict=True))


def outlined(
    footers: Footers, files: Sequence[StoredFile], columns: Sequence[str]
) -> Iterator[tuple[StoredFile, Outline | None]]:
    """Files of single trials and what an index or their footers say; see `Footers.rows`."""
    by_sweep: dict[str, list[StoredFile]] = {}
    for file in files:
        by_sweep.setdefault(file.sweep, []).append(file)
    for sweep, own in by_sweep.items():
        known = indexed_rows(footers.storage, sweep, own, columns)
        yield from known.items()
        yield from footers.rows([file for file in own if file not in known], columns)


class _Index:
    """The index of one sweep, as its driver keeps it."""

    def __init__(self, storage: Storage, sweep: str) -> None:
        self._storage, self._sweep = storage, sweep
        self._footers = Footers(storage)
        self._rows = _SCHEMA.empty_table()
        self._known: dict[tuple[str, int, int], int] = {}
        self._earliest = 0.0
        self.is_last = False

    def content(self) -> bytes | None:
        """The file's new content; None where it is too early for that, or there are too few."""
        began = time.monotonic()
        if began < self._earliest and not self.is_last:
            return None
        try:
            content = self._gathered()
        except (StorageError, *DAMAGE):  # away, perhaps: the next one will do
            return None
        self._earliest = time.monotonic() + _SHARE * (time.monotonic() - began)
        return content

    def _gathered(self) -> bytes | None:
        listed = self._storage.files("trials", self._sweep)
        limit = (time.time() - _SETTLED) * 1e9
        files = [file for file in listed if not file.compacted and file.mtime_ns < limit]
        if len(files) < FEWEST:
            return None
        gone = self._known.keys() - set(map(_key, files))
        new = [file for file in files if _key(file) not in self._known]
        rows = [
            {**row, _SIZE: file.size, _MTIME: file.mtime_ns}
            for file, row in self._footers.rows(new, TRIALS.names)
            if row is not None
        ]
        if not rows and not gone:
            return None
        if gone:
            left = [key for key in self._known if key not in gone]
            self._rows = self._rows.take(pa.array(map(self._known.get, left), pa.int64()))
            self._known = {key: at for at, key in enumerate(left)}
        self._rows = pa.concat_tables([self._rows, pa.Table.from_pylist(rows, schema=_SCHEMA)])
        keys = [(str(row["trial_id"]), int(row[_SIZE]), int(row[_MTIME])) for row in rows]
        self._known |= {key: at for at, key in enumerate(keys, start=len(self._known))}
        sink = pa.BufferOutputStream()
        pq.write_table(self._rows, sink, compression="zstd", write_page_checksum=True)
        return bytes(sink.getvalue())


@contextmanager
def indexing(storage: Storage, sweep: str) -> Iterator[None]:
    """Keep the sweep's index up to date, by a thread that nobody waits for."""
    index = _Index(storage, sweep)
    publication = Publication(
        *(storage, _place(storage, sweep), index.content), every=_EVERY, first=_EVERY, beat=_EVERY
    )
    try:
        yield
    finally:
        index.is_last = True
        publication.close(seconds=_CLOSING)
