"""One file of the database: put in place atomically, checked when it is read."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from ticketsweep.errors import StorageError
from ticketsweep.store.encoding import (
    REPLACES_KEY,
    SCHEMA_KEY,
    STATUS_KEY,
    TABLE_KEY,
    VERSION_KEY,
)
from ticketsweep.store.paths import Storage, StoredFile, one_line, reason, temporary_path
from ticketsweep.store.remote import is_service_fault, remedy
from ticketsweep.store.schema import SCHEMA_VERSION, SCHEMAS

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


def put(storage: Storage, path: str, data: pa.Buffer, *, lasting: bool = True) -> None:
    """Make `data` the content of `path`, all of it or nothing.

    On a local disk the bytes go to a temporary name in the same folder and reach the disk before
    the rename; on an object store they are one upload.

    Parameters
    ----------
    lasting: whether a power cut must not undo it, which takes a disk some time.

    Raises StorageError (disk full, no permission, no network), with nothing half-written in sight.
    """
    try:
        if not storage.is_there():  # and where it is mounted nothing may be written meanwhile
            raise FileNotFoundError("the storage's folders are not there")
        if storage.local is None:
            with storage.filesystem.open_output_stream(path) as stream:
                stream.write(data)
        else:
            _put_locally(Path(path), data, lasting=lasting)
    except (pa.ArrowException, OSError) as error:
        hint = remedy(error) or "free some space or mend the permissions"
        raise StorageError(
            f"storage {storage.uri}: cannot write {path}: {one_line(error)} "
            f"({hint}, then run the same command again: finished trials are kept)"
        ) from error


def _put_locally(path: Path, data: pa.Buffer, *, lasting: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(temporary_path(path.as_posix()))
    try:
        with temporary.open("xb", buffering=0) as stream:
            rest = memoryview(data)
            while rest:
                rest = rest[stream.write(rest) :]
            if lasting:
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if lasting:
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


def read_bytes(storage: Storage, file: StoredFile) -> pa.Buffer:
    """The whole of a file. Raises UnreadableFile or FileNotFoundError."""
    try:
        with storage.filesystem.open_input_file(file.path) as stream:
            content: pa.Buffer = stream.read_buffer()
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from error
    return content


def open_fragment(
    storage: Storage, file: StoredFile, content: pa.Buffer | None = None
) -> ds.ParquetFileFragment:
    """A file with its footer read and checked; its rows are not read yet.

    The sweep (and trial) that its name tells are known to the scan: filters on them skip it.

    Parameters
    ----------
    content: the whole of the file, where it has been read already.

    Raises UnreadableFile, or FileNotFoundError if it has gone since it was listed.
    """
    known = ds.field("sweep") == file.sweep
    if file.table != "sweeps" and not file.compacted:
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
    version = stamp.get(VERSION_KEY, b"")
    if not version.isdigit() or stamp.get(TABLE_KEY) != file.table.encode():
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
    return stamp.get(STATUS_KEY, b"").decode(errors="replace")


def replaced_by(fragment: ds.ParquetFileFragment, file: StoredFile) -> frozenset[str]:
    """Names of the parts whose trials are all in this part of `trials`. Raises UnreadableFile."""
    stamp: dict[bytes, bytes] = fragment.metadata.metadata or {}
    try:
        return frozenset(str(name) for name in json.loads(stamp[REPLACES_KEY]))
    except (KeyError, ValueError, TypeError) as error:
        raise UnreadableFile(f"{file.shown}: the stamp in its footer is damaged") from error


def trials_of(fragment: ds.ParquetFileFragment, file: StoredFile) -> frozenset[str]:
    """The ids of the trials in a part of `trials`. Raises UnreadableFile or FileNotFoundError."""
    try:
        column = fragment.to_table(schema=SCHEMAS["trials"], columns=["trial_id"])["trial_id"]
        return frozenset(column.to_pylist())
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise _unreadable(file, error) from error


def check_stamp(fragment: ds.ParquetFileFragment, file: StoredFile) -> None:
    """Raises UnreadableFile for a stamp that no version has written into an unsealed file."""
    stamp: dict[bytes, bytes] = fragment.metadata.metadata or {}
    known = {VERSION_KEY, TABLE_KEY, SCHEMA_KEY}
    if file.compacted:
        known |= {REPLACES_KEY}
    elif file.table == "trials":
        known |= {STATUS_KEY}
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
