"""One Parquet file of the database: encoded, put in place atomically, checked when it is read."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from ticketsweep.errors import StorageError
from ticketsweep.store.paths import Storage, StoredFile, one_line, reason, temporary_path
from ticketsweep.store.remote import is_service_fault, remedy
from ticketsweep.store.schema import SCHEMA_VERSION, SCHEMAS, Table

_VERSION_KEY = b"ticketsweep.schema_version"
_TABLE_KEY = b"ticketsweep.table"
_STATUS_KEY = b"ticketsweep.status"
_DIGEST_KEY = b"ticketsweep.digest"
_SCHEMA_KEY = b"ARROW:schema"  # pyarrow's own
_BLANK = b"0" * 32  # stands where the digest will be while it is computed
# Between a key and its value a footer (Thrift, compact protocol) has a type and a length.
_SEAL = re.compile(re.escape(_DIGEST_KEY) + rb"..([0-9a-f]{32})", re.DOTALL)
# The bits of a mask hardly repeat. Looking for repetitions, as higher levels do, takes twice the
# time and makes the file larger: 1.17 times its entropy at level 3, 1.07 at 1 (density 0.1).
_LEVELS: Mapping[Table, int] = {"masks": 1}
_ENOUGH_BITS = 1 << 18  # bytes of a row group of masks, to which no other layer's are added
_MOST_BITS = 1 << 24  # bytes of a row group: what a reader holds at once
_FOOTER_END = 8  # bytes: the footer's length, and a magic word

FORMAT = ds.ParquetFileFormat(
    # A flipped bit in a page is an error, not another mask.
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)
DAMAGE = (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError)
"""What reading a damaged Parquet file has been seen to raise."""


class UnreadableFile(StorageError):
    """A data file that is damaged, of another table, or of a newer schema version."""


_SOURCE = re.compile(r"^Could not open Parquet input source '.*?': ")


def _unreadable(file: StoredFile, error: BaseException) -> StorageError:
    """What failed: the file, or the service that should have handed it over."""
    said = _SOURCE.sub("", reason(error))
    if is_service_fault(error):
        return StorageError(f"{file.shown} cannot be read: {said}")
    return UnreadableFile(f"{file.shown}: {said}")


def encode(table: Table, rows: pa.Table, *, status: str | None = None) -> pa.Buffer:
    """The table as the bytes of a Parquet file, stamped with the schema's version and sealed.

    The seal is a BLAKE2b-128 digest of all its bytes, the digest's own place being zeros: Parquet's
    checksums are of pages alone, and leave the footer and its statistics unguarded.
    """
    stamp = {
        _VERSION_KEY: str(SCHEMA_VERSION).encode(),
        _TABLE_KEY: table.encode(),
        _DIGEST_KEY: _BLANK,
    }
    if status is not None:
        stamp[_STATUS_KEY] = status.encode()
    stamped = rows.replace_schema_metadata(stamp)
    sink = pa.BufferOutputStream()
    # Bits neither repeat nor sort: a dictionary or statistics of them would only take space.
    columns = [name for name in rows.column_names if name != "bits"]
    with pq.ParquetWriter(
        sink,
        stamped.schema,
        compression="zstd",
        compression_level=_LEVELS.get(table, 3),
        use_dictionary=columns,
        write_statistics=columns,
        write_page_checksum=True,
        store_schema=True,
    ) as writer:
        for group in _row_groups(stamped):
            writer.write_table(group, row_group_size=max(1, len(group)))
    content = bytearray(sink.getvalue())
    place = _place_of_digest(content)
    if place is None:
        raise StorageError("this version of pyarrow writes footers in which no digest has a place")
    content[place] = _digest(content, place)
    return pa.py_buffer(content)


def _row_groups(rows: pa.Table) -> Iterator[pa.Table]:
    """The rows in runs that a reader can leave out: masks of large layers apart from the others."""
    if "bits" not in rows.column_names or not len(rows):
        yield rows
        return
    layers, sizes = rows["layer"].to_pylist(), pc.binary_length(rows["bits"]).to_pylist()
    start, held = 0, 0
    for at, size in enumerate(sizes):
        if held + size > _MOST_BITS or (held > _ENOUGH_BITS and layers[at] != layers[at - 1]):
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


def put(storage: Storage, path: str, data: pa.Buffer) -> None:
    """Make `data` the content of `path`, all of it or nothing.

    On a local disk the bytes go to a temporary name in the same folder and reach the disk before
    the rename; on an object store they are one upload.

    Raises StorageError (disk full, no permission, no network), with nothing half-written in sight.
    """
    try:
        if storage.local is None:
            with storage.filesystem.open_output_stream(path) as stream:
                stream.write(data)
        else:
            _put_locally(Path(path), data)
    except (pa.ArrowException, OSError) as error:
        hint = remedy(error) or "free some space or mend the permissions"
        raise StorageError(
            f"storage {storage.uri}: cannot write {path}: {one_line(error)} "
            f"({hint}, then run the same command again: finished trials are kept)"
        ) from error


def _put_locally(path: Path, data: pa.Buffer) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(temporary_path(path.as_posix()))
    try:
        with temporary.open("xb", buffering=0) as stream:
            rest = memoryview(data)
            while rest:
                rest = rest[stream.write(rest) :]
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    # The rename itself should outlive a power cut; some network file systems refuse to promise it.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(storage: Storage, path: str) -> None:
    """Delete a file if it is there. Raises StorageError where that is not allowed."""
    try:
        storage.filesystem.delete_file(path)
    except FileNotFoundError:
        return
    except (pa.ArrowException, OSError) as error:
        raise StorageError(
            f"storage {storage.uri}: cannot delete {path}: {one_line(error)}"
        ) from error


def open_fragment(
    storage: Storage, file: StoredFile, content: pa.Buffer | None = None
) -> ds.ParquetFileFragment:
    """A file with its footer read and checked; its rows are not read yet.

    The sweep and trial that its name tells are known to the scan, so that filters on them skip it.

    Parameters
    ----------
    content: the whole of the file, where it has been read already.

    Raises UnreadableFile, or FileNotFoundError if it has gone since it was listed.
    """
    known = ds.field("sweep") == file.sweep
    if file.table != "sweeps":
        known &= ds.field("trial_id") == file.name
    try:
        source = (file.path, storage.filesystem) if content is None else (content, None)
        fragment = FORMAT.make_fragment(*source, partition_expression=known)
        fragment.ensure_complete_metadata()
        stamp, schema = fragment.metadata.metadata or {}, fragment.physical_schema
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise _unreadable(file, error) from error
    version = stamp.get(_VERSION_KEY, b"")
    if not version.isdigit() or stamp.get(_TABLE_KEY) != file.table.encode():
        raise UnreadableFile(f"{file.shown}: not a file of the table {file.table}")
    if int(version) > SCHEMA_VERSION:
        raise UnreadableFile(
            f"{file.shown}: written by a newer ticketsweep (schema version {int(version)}, this "
            f"one reads up to {SCHEMA_VERSION}): upgrade with `pip install --upgrade ticketsweep`"
        )
    if not schema.equals(SCHEMAS[file.table]):
        raise UnreadableFile(f"{file.shown}: its columns are not those of the table {file.table}")
    return fragment


def status_of(fragment: ds.ParquetFileFragment) -> str:
    """The status of a `trials` file's one row, from its footer."""
    stamp: dict[bytes, bytes] = fragment.metadata.metadata or {}
    return stamp.get(_STATUS_KEY, b"").decode(errors="replace")


def check_stamp(fragment: ds.ParquetFileFragment, file: StoredFile) -> None:
    """Raises UnreadableFile for a stamp that no version has written into an unsealed file."""
    stamp: dict[bytes, bytes] = fragment.metadata.metadata or {}
    known = {_VERSION_KEY, _TABLE_KEY, _SCHEMA_KEY} | (
        {_STATUS_KEY} if file.table == "trials" else set()
    )
    if stamp.keys() != known:
        raise UnreadableFile(f"{file.shown}: the stamp in its footer is damaged")


def check_pages(fragment: ds.ParquetFileFragment, file: StoredFile) -> None:
    """Read every page, keeping none. Raises UnreadableFile if one is damaged."""
    try:
        for _ in fragment.to_batches(schema=SCHEMAS[file.table]):
            pass
    except FileNotFoundError:
        return
    except DAMAGE as error:
        raise _unreadable(file, error) from error


def read_file(storage: Storage, file: StoredFile) -> pa.Table:
    """All rows of one file. Raises UnreadableFile or FileNotFoundError."""
    fragment = open_fragment(storage, file)
    try:
        return fragment.to_table(schema=SCHEMAS[file.table])
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise _unreadable(file, error) from error


def committed_status(storage: Storage, sweep: str, trial_id: str) -> str | None:
    """The status of a trial whose files are all there and open; None for any other.

    A trial with a damaged or missing file counts as absent, so that it is run again.
    """
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
