"""Scans of the storage: how much of it one holds in memory at once, and how one fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import pyarrow.dataset as ds

from ticketsweep.errors import QueryError

_LARGE = "bits"
_FEWEST, _MOST = 16, 2048  # rows of a batch: what DuckDB and Arrow copy and combine at once …
_BATCH_BYTES = 1 << 25  # … and about how many bytes that may be
_ONE_AFTER_THE_OTHER = {
    "batch_readahead": 1,
    "fragment_readahead": 1,
    # Else the bits of a whole file stay buffered until its last row group has been read.
    "fragment_scan_options": ds.ParquetFragmentScanOptions(
        page_checksum_verification=True, pre_buffer=False
    ),
}

Answer = TypeVar("Answer")
"""What is made of the rows of a scan."""


class ScanError(QueryError):
    """The query failed while it ran: its own fault, or that of a file it read."""


class BoundedDataset(ds.FileSystemDataset):  # type: ignore[misc]  # pyarrow has no types
    """Files of a table, of which a scan that reads bits holds a few row groups at once.

    Arrow reads ahead 16 batches in each of 4 files, a batch being 131,072 rows: all masks of four
    files. DuckDB, which makes scans of its own of a dataset, has no setting for it.
    """

    def _scanner_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        # What every scan of a dataset asks for its options, and adds a dataset's own filter.
        given: dict[str, Any] = super()._scanner_options(options)
        columns = given.get("columns")
        wanted = self.schema.names if columns is None else columns
        if _LARGE not in wanted:
            return given
        rows = min(_MOST, max(_FEWEST, _BATCH_BYTES // self._largest_row()))
        return {**given, **_ONE_AFTER_THE_OTHER, "batch_size": rows}

    def _largest_row(self) -> int:
        """Bytes of a row in the row group that has the largest on average."""
        groups = (group for fragment in self.get_fragments() for group in fragment.row_groups)
        sizes = (group.total_byte_size // max(1, group.num_rows) for group in groups)
        return max(1, max(sizes, default=1))
