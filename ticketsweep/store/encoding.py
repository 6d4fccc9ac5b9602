"""The rows of a table as the bytes of a Parquet file, sealed with a digest of all of them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ticketsweep.errors import StorageError
from ticketsweep.store.schema import SCHEMA_VERSION, SCHEMAS, Table

VERSION_KEY = b"ticketsweep.schema_version"
TABLE_KEY = b"ticketsweep.table"
STATUS_KEY = b"ticketsweep.status"
REPLACES_KEY = b"ticketsweep.replaces"
_DIGEST_KEY = b"ticketsweep.digest"
SCHEMA_KEY = b"ARROW:schema"  # pyarrow's own
_BLANK = b"0" * 32  # stands where the digest will be while it is computed
# Between a key and its value a footer (Thrift, compact protocol) has a type and a length.
_SEAL = re.compile(re.escape(_DIGEST_KEY) + rb"..([0-9a-f]{32})", re.DOTALL)
# The bits of a mask hardly repeat. Looking for repetitions, as higher levels do, takes twice the
# time and makes the file larger: 1.17 times its entropy at level 3, 1.07 at 1 (density 0.1).
_LEVELS: Mapping[Table, int] = {"masks": 1}
_ENOUGH_BITS = 1 << 18  # bytes of a row group of masks, to which no other layer's are added
_MOST_BITS = 1 << 24  # bytes of a row group: what a reader holds at once
_ENOUGH_OF_PART, _MOST_OF_PART = 1 << 16, 1 << 23  # the same of a part, of which a query wants less
_MOST_WITHOUT_BITS = 1 << 20  # bytes of a row group of the other tables
_PART_LEVEL = 9  # of the tables without bits
_FEW_BITS = 1 << 18  # bytes, which take no time at any level
_LEAST_PAGE, _PAGE = 1 << 16, 120 << 10  # bytes: zstd's levels are others above 128 KiB
_LARGE_MASK = 1 << 18  # bytes, from which on they are others again
_SPARSE = 0.12  # density below which zstd's level 1 falls behind
_FEW_SPARSE = 0.02  # share of the bits, for which no time is spent
_FOOTER_END = 8  # bytes: the footer's length, and a magic word


def encode(table: Table, rows: pa.Table, *, status: str | None = None) -> pa.Buffer:
    """The rows of one trial as the bytes of a Parquet file; `status` is stamped into its footer."""
    stamp = {} if status is None else {STATUS_KEY: status.encode()}
    level = _LEVELS.get(table, 3)
    if table == "masks" and (pc.sum(rows["size"]).as_py() or 0) <= 8 * _FEW_BITS:
        level, _ = _packing(rows)
    with _Encoder(table, level, stamp) as encoder:
        for group in _row_groups(rows, enough=_ENOUGH_BITS, most=_MOST_BITS):
            encoder.add(group)
    return encoder.sealed()


def encode_part(
    table: Table, rows: pa.Table, replaces: Sequence[str], *, cancelled: Callable[[], bool]
) -> pa.Buffer:
    """The rows of many trials, in the order in which they lie there, as bytes of a Parquet file.

    Masks are packed harder than those of one trial, where that makes them smaller. Of all that
    Parquet offers, only zstd's optimal parsers come near the entropy of sparse masks. They are a
    hundred times slower than level 1, which is as good from a density of 0.12 on; in pages of less
    than 128 KiB, for which zstd has levels of their own, they need half the time.

    Parameters
    ----------
    replaces: names of parts whose trials are all in this one.
    cancelled: asked before each row group.

    Raises CancelledError if it was.
    """
    level, batch = _PART_LEVEL, None
    if table == "masks":
        level, batch = _packing(rows)
    stamp = {REPLACES_KEY: json.dumps(list(replaces)).encode()}
    with _Encoder(table, level, stamp, _LEAST_PAGE, batch) as encoder:
        for group in _row_groups(rows, enough=_ENOUGH_OF_PART, most=_MOST_OF_PART):
            if cancelled():
                raise CancelledError
            encoder.add(group)
    return encoder.sealed()


def _packing(masks: pa.Table) -> tuple[int, int]:
    """The level for the masks of a part, and how many rows may come before a page ends."""
    bits = pc.binary_length(masks["bits"]).to_numpy().astype(np.int64)
    kept, size = masks["kept"].to_numpy(), masks["size"].to_numpy()
    usual = (bits * bits).sum() / max(1, bits.sum())  # of the mask that a bit lies in
    batch = max(1, int(_PAGE / max(1, usual)))
    sparse = (kept < _SPARSE * size) & (kept > 0)
    if bits[sparse].sum() <= _FEW_SPARSE * bits.sum():
        return _LEVELS["masks"], batch
    return 16 if usual > _LARGE_MASK else 15, batch


class _Encoder(AbstractContextManager["_Encoder"]):
    """Writes row groups to memory, as a file stamped with the schema's version and sealed.

    The seal is a BLAKE2b-128 digest of all its bytes, the digest's own place being zeros: Parquet's
    checksums are of pages alone, and leave the footer and its statistics unguarded.
    """

    def __init__(
        self,
        table: Table,
        level: int,
        stamp: Mapping[bytes, bytes],
        page_size: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        whole = {
            VERSION_KEY: str(SCHEMA_VERSION).encode(),
            TABLE_KEY: table.encode(),
            _DIGEST_KEY: _BLANK,
            **stamp,
        }
        self._schema = SCHEMAS[table].with_metadata(whole)
        self._sink = pa.BufferOutputStream()
        # Bits neither repeat nor sort: a dictionary or statistics of them would only take space.
        columns = [name for name in self._schema.names if name != "bits"]
        self._writer = pq.ParquetWriter(
            self._sink,
            self._schema,
            compression="zstd",
            compression_level=level,
            use_dictionary=columns,
            write_statistics=columns,
            write_page_checksum=True,
            store_schema=True,
            data_page_size=page_size,
            write_batch_size=batch_size,
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._writer.close()

    def add(self, group: pa.Table) -> None:
        """Write rows as one row group."""
        stamped = group.replace_schema_metadata(self._schema.metadata)
        self._writer.write_table(stamped, row_group_size=max(1, len(group)))

    def sealed(self) -> pa.Buffer:
        """All bytes of the file, once it has been closed."""
        encoded: pa.Buffer = self._sink.getvalue()
        content = memoryview(encoded).cast("B")
        place = _place_of_digest(content)
        if place is None:
            raise StorageError(
                "this version of pyarrow writes footers in which no digest has a place"
            )
        content[place] = _digest(content, place)
        return encoded


def _row_groups(rows: pa.Table, *, enough: int, most: int) -> Iterator[pa.Table]:
    """The rows in runs that a reader can leave out: masks of large layers apart from the others.

    Parameters
    ----------
    enough: bytes of a run of masks, to which no other layer's are added.
    most: bytes of a run of masks.
    """
    if not len(rows):
        yield rows
        return
    if "bits" not in rows.column_names:
        at_once = max(1, len(rows) * _MOST_WITHOUT_BITS // max(1, rows.nbytes))
        for start in range(0, len(rows), at_once):
            yield rows.slice(start, at_once)
        return
    layers, sizes = rows["layer"].to_pylist(), pc.binary_length(rows["bits"]).to_pylist()
    start, held = 0, 0
    for at, size in enumerate(sizes):
        if held + size > most or (held > enough and layers[at] != layers[at - 1]):
            yield rows.slice(start, at - start)
            start, held = at, 0
        held += size
    yield rows.slice(start)


def is_sealed(content: pa.Buffer) -> bool | None:
    """Whether a file's bytes are those that were written; None if it has no digest of them."""
    whole = memoryview(content)
    place = _place_of_digest(whole)
    return None if place is None else whole[place] == _digest(whole, place)


def _place_of_digest(content: memoryview | bytearray) -> slice | None:
    """Where in a Parquet file the digest lies; None if its footer has none."""
    end = len(content) - _FOOTER_END
    footer = end - int.from_bytes(content[max(0, end) : max(0, end) + 4], "little")
    found = _SEAL.search(content, footer, end) if 0 < footer < end else None
    return None if found is None else slice(*found.span(1))


def _digest(content: memoryview | bytearray, place: slice) -> bytes:
    whole = memoryview(content)
    digest = hashlib.blake2b(whole[: place.start], digest_size=16)
    digest.update(_BLANK)
    digest.update(whole[place.stop :])
    return digest.hexdigest().encode()
