"""What the footer of a trial's own file says of its only row, hardly reading a page of it.

To open thousands of small files as a data set, and to read their pages, takes seconds. A column's
statistics hold its least and greatest value, which for one row are the value. Of a map they do not
tell which value is whose: its pages are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ticketsweep.store.encoding import SCHEMA_KEY, TABLE_KEY, VERSION_KEY, is_sealed
from ticketsweep.store.files import DAMAGE, UnreadableFile, open_fragment, read_bytes
from ticketsweep.store.paths import Storage, StoredFile
from ticketsweep.store.schema import TRIALS

_READERS = 8  # files at once; on an object store each is a round trip or two
_RUN = 64  # files that are handed to a thread at once

Outline = dict[str, Any]


@dataclass
class Footers:
    """Reads rows of trials from the footers of their own files of `trials`."""

    storage: Storage
    _known: set[tuple[bytes | None, ...]] = field(default_factory=set)

    def rows(
        self, files: Sequence[StoredFile], columns: Sequence[str]
    ) -> Iterator[tuple[StoredFile, Outline | None]]:
        """Values of some columns, by name; None where a footer is damaged or does not say.

        Parameters
        ----------
        files: of single trials.
        columns: of the table. Those that hold maps cost a page each.

        Raises FileNotFoundError if one has gone since it was listed.
        """
        runs = [files[start : start + _RUN] for start in range(0, len(files), _RUN)]
        with ThreadPoolExecutor(_READERS) as pool:
            for run, found in zip(
                runs, pool.map(lambda r: self._rows(r, columns), runs), strict=True
            ):
                yield from zip(run, found, strict=True)

    def _rows(self, files: Sequence[StoredFile], columns: Sequence[str]) -> list[Outline | None]:
        return [self.row(file, columns) for file in files]

    def row(self, file: StoredFile, columns: Sequence[str]) -> Outline | None:
        """That of one file; see `rows`."""
        maps = [name for name in columns if name in _MAPS]
        try:
            whole = read_bytes(self.storage, file)
            if is_sealed(whole) is False:  # in the footer too, which has no checksum of its own
                return None
            content = pa.BufferReader(whole)
            opened = pq.ParquetFile(content, page_checksum_verification=True) if maps else None
            metadata = pq.read_metadata(content) if opened is None else opened.metadata
            self._check(metadata, file)
            row = row_of(metadata, [name for name in columns if name not in _MAPS])
            if row is not None and opened is not None:
                row |= opened.read(columns=maps, use_threads=False).to_pylist()[0]
        except FileNotFoundError:
            raise
        except (*DAMAGE, UnreadableFile):
            return None
        return row

    def _check(self, metadata: pq.FileMetaData, file: StoredFile) -> None:
        """Raises UnreadableFile for a file of another table, version or schema."""
        stamp = metadata.metadata or {}
        kind = tuple(stamp.get(key) for key in (VERSION_KEY, TABLE_KEY, SCHEMA_KEY))
        if kind not in self._known:
            open_fragment(self.storage, file)
            self._known.add(kind)


def row_of(metadata: pq.FileMetaData, columns: Sequence[str]) -> Outline | None:
    """The only row of a file; None where there are more, or a column's value is not told.

    Parameters
    ----------
    columns: whose values are no maps.
    """
    if metadata.num_rows != 1 or metadata.num_row_groups != 1:
        return None
    group = metadata.row_group(0)
    row: Outline = {}
    for name in columns:
        found = group.column(_PLACES[name]).statistics
        if found is None:
            return None
        if found.has_min_max:
            row[name] = found.max
        elif found.has_null_count and found.null_count == 1:
            row[name] = None
        elif found.physical_type == "DOUBLE":  # NaN has no place in an order
            row[name] = math.nan
        else:
            return None
    return row


_MAPS = frozenset(f.name for f in TRIALS if pa.types.is_map(f.type))
# Of the leaves, of which a map has two.
_LEAVES = [name for name in TRIALS.names for _ in range(2 if name in _MAPS else 1)]
_PLACES = {name: _LEAVES.index(name) for name in TRIALS.names}
