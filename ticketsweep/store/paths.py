"""Where everything lies in a storage.

ROOT/TABLE/sweep=NAME/TRIAL_ID.parquet      the mask database
ROOT/TABLE/sweep=NAME/compacted/PART.parquet   many trials of it, merged
ROOT/comparisons/sweep=NAME/TRIAL_ID.parquet   of a trial's replicates, made later
ROOT/sweeps/sweep=NAME/sweep.parquet        one row about the sweep itself
ROOT/checkpoints/TRIAL_ID.safetensors       a trial under way
ROOT/underway/sweep=NAME/TRIAL_ID.json      that the sweep has begun the trial
ROOT/claims/sweep=NAME/WORK.….json          who runs or compacts it at this moment
ROOT/live/sweep=NAME/WHO.json               how far a run of it has come, or a single trial
ROOT/live/sweep=NAME/outlines.parquet       what the footers of its trials' own files say
ROOT/logs/sweep=NAME/TRIAL_ID.….log         what a trial told while it ran, a file an attempt
ROOT/quarantine/TIME/TABLE/sweep=NAME/…     damaged files that were moved aside
ROOT/optuna/NAME.journal                    Optuna's journal, on a local storage
ROOT/tracking                               offline tracking runs, on a local storage
ROOT/identity.json                          which storage it is, on a local one
"""

from __future__ import annotations

import itertools
import os
import re
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from ticketsweep.errors import MissingStorage, StorageError
from ticketsweep.store.remote import is_remote, open_remote, remedy, shown_uri, without_noise
from ticketsweep.store.schema import SCHEMAS, TRIAL_TABLES, Table

STORAGE_VARIABLE = "TICKETSWEEP_STORAGE"

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_SUFFIX = ".parquet"
_PARTITION = "sweep="
_SWEEP_FILE = "sweep"
_CHECKPOINTS = "checkpoints"
_CHECKPOINT = ".safetensors"
_QUARANTINE = "quarantine"
_COMPACTED = "compacted"
_CLAIMS = "claims"
_UNDER_WAY = "underway"
_LIVE = "live"
_LOGS = "logs"
_TWICE = re.compile(r"^\[Errno (\d+)\] (?P<what>.+?)\.? Detail: \[errno \1\] (?P<reason>.+)$")
_TEMPORARY = re.compile(
    r"\..+\.(parquet|json|log|safetensors)\.(?P<host>[A-Za-z0-9-]+)\.(?P<pid>\d+)\.[0-9a-f]+\.tmp"
)
_PROBE = re.compile(r"\.probe-[0-9a-f]{16}")


def default_storage() -> str:
    """`$TICKETSWEEP_STORAGE`, else `./ticketsweep-storage`."""
    return os.environ.get(STORAGE_VARIABLE) or "./ticketsweep-storage"


def valid_name(name: str) -> bool:
    """Whether a sweep (or trial) may be called so: it becomes a file's name on every system."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> str:
    """The name itself. Raises StorageError if it is not valid."""
    if not valid_name(name):
        raise StorageError(
            f"a sweep's name must be 1 to 100 letters, digits, '.', '_' or '-', without a leading "
            f"dot, got {name!r} (it names a folder of the storage)"
        )
    return name


@dataclass(frozen=True)
class StoredFile:
    """One data file as a listing saw it; another size or time of writing is another file.

    Attributes
    ----------
    name: the trial's id; of a compacted file, the name that its part has in every table.
    compacted: whether it holds the rows of many trials.
    """

    table: Table
    sweep: str
    name: str
    path: str
    size: int
    mtime_ns: int
    compacted: bool = False

    @property
    def shown(self) -> str:
        """The path below the storage's root."""
        return "/".join(self.path.split("/")[-4 if self.compacted else -3 :])


@dataclass(frozen=True)
class Leftover:
    """A temporary file that some writer has not renamed (yet)."""

    path: str
    host: str
    pid: int
    mtime_ns: int
    size: int


@dataclass(frozen=True)
class Storage:
    """A root on a local disk or an object store.

    Parameters
    ----------
    uri: as the user gave it.
    filesystem, root: what it stands for.
    local: the root as a local folder; None on an object store.
    """

    uri: str
    filesystem: pafs.FileSystem
    root: str
    local: Path | None

    @classmethod
    def open(cls, uri: str, *, create: bool) -> Storage:
        """Open a local path, or a `file://`, `s3://` or `gs://` URI.

        Parameters
        ----------
        create: make the database if it is not there, and check that it can be written to.

        Raises
        ------
        StorageError: no such database, not a database, not writable, or an unknown kind of URI.
        """
        storage = cls._locate(uri)
        if create:
            storage._create()
        else:
            storage._check_exists()
        return storage

    @classmethod
    def _locate(cls, uri: str) -> Storage:
        if "://" not in uri:
            folder = Path(uri).expanduser().absolute()
            return cls(uri, pafs.LocalFileSystem(), folder.as_posix(), folder)
        if is_remote(uri):
            filesystem, root = open_remote(uri)
            return cls(uri, filesystem, root, None)
        if not uri.startswith("file://"):
            raise StorageError(
                f"storage {shown_uri(uri)} cannot be opened "
                f"(it must be a folder or a file://, s3:// or gs:// URI)"
            )
        try:
            filesystem, root = pafs.FileSystem.from_uri(uri)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise StorageError(
                f"storage {shown_uri(uri)} cannot be opened: {one_line(error)} "
                f"(it must be file:///FOLDER)"
            ) from error
        return cls(uri, filesystem, root.rstrip("/"), Path(root))

    def _create(self) -> None:
        self._infos([self.root])  # where a service is down, one request fails sooner than six
        probe = f"{self.root}/.probe-{secrets.token_hex(8)}"
        try:
            for table in SCHEMAS:
                self.filesystem.create_dir(self._folder(table), recursive=True)
            with self.filesystem.open_output_stream(probe) as stream:
                stream.write(b"ticketsweep")
            self.filesystem.delete_file(probe)
        except (pa.ArrowException, OSError) as error:
            raise StorageError(
                f"storage {self.uri} cannot be written to: {one_line(error)} "
                f"({remedy(error) or f'name another with --storage or ${STORAGE_VARIABLE}'})"
            ) from error

    def _check_exists(self) -> None:
        remedy = (
            f"`ticketsweep run` and `ticketsweep trial` make one; "
            f"name another with --storage or ${STORAGE_VARIABLE}"
        )
        folders = [self.root, *(self._folder(table) for table in SCHEMAS)]
        root, *tables = self._infos(folders)
        if root.type == pafs.FileType.File:
            named = f"name another with --storage or ${STORAGE_VARIABLE}"
            raise StorageError(f"storage {self.uri} is a file, not a folder ({named})")
        if root.type == pafs.FileType.NotFound:
            raise MissingStorage(f"storage {self.uri} does not exist ({remedy})")
        if all(info.type != pafs.FileType.Directory for info in tables):
            raise MissingStorage(
                f"storage {self.uri} is not a mask database: it has no folder "
                f"{', '.join(SCHEMAS)} ({remedy})"
            )

    @property
    def place(self) -> str:
        """Where it lies, for a process with another working directory."""
        return self.uri if self.local is None else str(self.local)

    def is_there(self) -> bool:
        """Whether the storage's folders are there; those of a disk may be away for a while.

        An object store has none, and says itself that it cannot be reached.
        """
        return self.local is None or (self.local / "trials").is_dir()

    def check_there(self) -> None:
        """Raises StorageError where a local database that was opened has gone: it is no empty one.

        Any folder of a table makes a database, as where it is opened.
        """
        if self.local is not None and not any((self.local / name).is_dir() for name in SCHEMAS):
            raise StorageError(
                f"storage {self.uri} is away: its folders are not there "
                f"(mount it again, or put it back)"
            )

    def _folder(self, table: Table, sweep: str | None = None) -> str:
        return self._partition(table, sweep)

    def trial_file(self, table: Table, sweep: str, trial_id: str) -> str:
        """Where a trial's rows of a table lie. Raises StorageError for an invalid name."""
        return f"{self._folder(table, sweep)}/{check_name(trial_id)}{_SUFFIX}"

    def sweep_file(self, sweep: str) -> str:
        """Where the sweep's own row lies. Raises StorageError for an invalid name."""
        return f"{self._folder('sweeps', sweep)}/{_SWEEP_FILE}{_SUFFIX}"

    def part_file(self, table: Table, sweep: str, part: str) -> str:
        """Where a part's rows of a table lie. Raises StorageError for an invalid name."""
        return f"{self._folder(table, sweep)}/{_COMPACTED}/{check_name(part)}{_SUFFIX}"

    def claims_folder(self, sweep: str) -> str:
        """Where processes that work on a sweep say so. Raises StorageError for an invalid name."""
        return self._partition(_CLAIMS, sweep)

    def under_way_folder(self, sweep: str | None = None) -> str:
        """Where drivers note the trials (of a sweep) that they have begun."""
        return self._partition(_UNDER_WAY, sweep)

    def live_folder(self, sweep: str | None = None) -> str:
        """Where drivers (of a sweep) tell how far they are; `store.live` knows the names in it."""
        return self._partition(_LIVE, sweep)

    def outlines_file(self, sweep: str) -> str:
        """Where the sweep's driver gathers outlines of its trials."""
        return f"{self._partition(_LIVE, sweep)}/outlines{_SUFFIX}"

    def logs_folder(self, sweep: str | None = None) -> str:
        """Where trials (of a sweep) tell what they do; `store.logs` knows the names in it."""
        return self._partition(_LOGS, sweep)

    def _partition(self, kind: str, sweep: str | None) -> str:
        folder = f"{self.root}/{kind}"
        return folder if sweep is None else f"{folder}/{_PARTITION}{check_name(sweep)}"

    def checkpoint_file(self, trial_id: str) -> str:
        """Where a trial's checkpoint lies. Raises StorageError for an invalid name."""
        return f"{self.root}/{_CHECKPOINTS}/{check_name(trial_id)}{_CHECKPOINT}"

    def checkpoints(self) -> dict[str, pafs.FileInfo]:
        """The checkpoints that are there, by their trials' ids."""
        infos = self.list_files(f"{self.root}/{_CHECKPOINTS}")
        stems = {info.base_name.removesuffix(_CHECKPOINT): info for info in infos}
        return {s: i for s, i in stems.items() if s != i.base_name and valid_name(s)}

    def optuna_journal(self, sweep: str) -> Path | None:
        """Optuna's journal; None on an object store, which has neither appends nor locks."""
        return (
            None if self.local is None else self.local / "optuna" / f"{check_name(sweep)}.journal"
        )

    def identity_file(self) -> Path | None:
        """What tells a local storage from others; None on an object store, whose URI does."""
        return None if self.local is None else self.local / "identity.json"

    def tracking_folder(self) -> Path:
        """Where tracking writes: in the storage, or beside the user where that is remote."""
        return (
            Path("ticketsweep-tracking").absolute()
            if self.local is None
            else (self.local / "tracking")
        )

    def files(self, table: Table, sweep: str | None = None) -> list[StoredFile]:
        """The data files of a table (of one sweep), parts included, in the order of their paths.

        Raises StorageError where the storage cannot be listed.
        """
        return self._data_files(table, self._folder(table, sweep))

    def parts(self, table: Table, sweep: str) -> list[StoredFile]:
        """The compacted files of a sweep's table, in the order of their names."""
        return self._data_files(table, f"{self._folder(table, sweep)}/{_COMPACTED}")

    def _data_files(self, table: Table, folder: str) -> list[StoredFile]:
        found = []
        for info in self.list_files(folder):
            parts = info.path.removeprefix(f"{self.root}/").split("/")
            compacted = len(parts) == 4 and parts[2] == _COMPACTED
            if not (compacted or len(parts) == 3) or not parts[1].startswith(_PARTITION):
                continue
            name = parts[-1].removesuffix(_SUFFIX)
            if name == parts[-1] or name.startswith("."):
                continue
            if compacted and not valid_name(name):
                continue  # nobody has written it
            of = parts[1].removeprefix(_PARTITION)
            at = info.mtime_ns or 0
            found.append(StoredFile(table, of, name, info.path, info.size, at, compacted))
        return sorted(found, key=lambda file: file.path)

    def file(self, table: Table, sweep: str, trial_id: str) -> StoredFile | None:
        """One trial's file of a table, or None if it is not there."""
        path = self.trial_file(table, sweep, trial_id)
        (info,) = self._look([path])
        if info.type != pafs.FileType.File:
            return None
        return StoredFile(table, sweep, trial_id, path, info.size, info.mtime_ns or 0)

    def trial_files(self, sweep: str, trial_id: str) -> dict[Table, StoredFile]:
        """The files that a trial has at this moment; empty for a name that no trial may have."""
        if not (valid_name(sweep) and valid_name(trial_id)):
            return {}
        paths = [self.trial_file(table, sweep, trial_id) for table in TRIAL_TABLES]
        return {
            table: StoredFile(table, sweep, trial_id, info.path, info.size, info.mtime_ns or 0)
            for table, info in zip(TRIAL_TABLES, self._look(paths), strict=True)
            if info.type == pafs.FileType.File
        }

    def part_files(self, sweep: str, part: str) -> dict[Table, StoredFile]:
        """The files that a part has at this moment."""
        paths = [self.part_file(table, sweep, part) for table in TRIAL_TABLES]
        return {
            table: StoredFile(table, sweep, part, info.path, info.size, info.mtime_ns or 0, True)
            for table, info in zip(TRIAL_TABLES, self._look(paths), strict=True)
            if info.type == pafs.FileType.File
        }

    def quarantine_folder(self, label: str) -> str:
        """A folder for damaged files that is not there yet, named after `label`."""
        folders = pafs.FileSelector(f"{self.root}/{_QUARANTINE}", allow_not_found=True)
        taken = {info.base_name for info in self._look(folders)}
        names = (f"{label}-{n}" if n else label for n in itertools.count())
        return f"{self.root}/{_QUARANTINE}/{next(name for name in names if name not in taken)}"

    def sweeps_with_trials(self) -> list[str]:
        """The names of all sweeps that have a trial's file."""
        return self._names_in("trials")

    def names(self) -> list[str]:
        """The names of all sweeps of which there is, or was, anything at all."""
        kinds = (*SCHEMAS, _CLAIMS, _UNDER_WAY, _LIVE, _LOGS)
        return sorted({name for kind in kinds for name in self._names_in(kind)})

    def _names_in(self, kind: str) -> list[str]:
        folders = pafs.FileSelector(f"{self.root}/{kind}", allow_not_found=True)
        names = [info.base_name for info in self._look(folders)]
        return sorted(
            name.removeprefix(_PARTITION) for name in names if name.startswith(_PARTITION)
        )

    def leftovers(self, sweep: str | None) -> list[Leftover]:
        """Temporary files below a sweep's folders; None: beside checkpoints, and of the whole."""
        if sweep is None:
            root = pafs.FileSelector(self.root, allow_not_found=True)
            infos = [*self.list_files(f"{self.root}/{_CHECKPOINTS}"), *self._look(root)]
        else:
            folders = (*self.folders(sweep).values(), self.claims_folder(sweep))
            infos = [info for folder in folders for info in self.list_files(folder)]
        found = []
        for info in infos:
            if match := _TEMPORARY.fullmatch(info.base_name) or _PROBE.fullmatch(info.base_name):
                host, pid = match.groupdict().get("host", ""), match.groupdict().get("pid", 0)
                at = info.mtime_ns or 0
                found.append(Leftover(info.path, host, int(pid), at, info.size or 0))
        return found

    def claims(self, sweep: str) -> list[str]:
        """The paths of a sweep's claims that are there at this moment."""
        infos = self.list_files(self.claims_folder(sweep))
        return sorted(info.path for info in infos if info.path.endswith(".json"))

    def folders(self, sweep: str) -> dict[str, str]:
        """The folders of a sweep alone, by what they hold, but for claims."""
        tables = {str(table): self._folder(table, sweep) for table in SCHEMAS}
        notes = (_UNDER_WAY, _LIVE, _LOGS)
        return tables | {kind: self._partition(kind, sweep) for kind in notes}

    def told(self, folder: str) -> Iterator[tuple[str, str, pafs.FileInfo]]:
        """Sweep, name and file of all below such a folder, but unfinished ones."""
        for info in self.list_files(folder):
            *_, partition, name = info.path.split("/")
            if partition.startswith(_PARTITION) and not name.startswith("."):
                yield partition.removeprefix(_PARTITION), name, info

    def list_files(self, folder: str) -> list[pafs.FileInfo]:
        """Every file below a folder, none where there is no folder. Raises StorageError."""
        selector = pafs.FileSelector(folder, recursive=True, allow_not_found=True)
        return [info for info in self._look(selector) if info.type == pafs.FileType.File]

    def _look(self, at: list[str] | pafs.FileSelector) -> list[pafs.FileInfo]:
        infos = self._infos(at)
        self.check_there()
        return infos

    def _infos(self, at: list[str] | pafs.FileSelector) -> list[pafs.FileInfo]:
        try:
            infos: list[pafs.FileInfo] = self.filesystem.get_file_info(at)
        except (pa.ArrowException, OSError) as error:
            raise StorageError(f"storage {self.uri} cannot be read: {reason(error)}") from error
        return infos


def temporary_path(path: str) -> str:
    """A name beside `path` that no reader takes for data and that tells whose it is."""
    folder, name = path.rsplit("/", 1)
    return f"{folder}/.{name}.{this_host()}.{os.getpid()}.{secrets.token_hex(4)}.tmp"


def this_host() -> str:
    """This machine's name, reduced to letters, digits and dashes."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:63] or "host"


def reason(error: BaseException) -> str:
    """What an error says, on one line, and what to do about it where that is known."""
    hint = remedy(error)
    return one_line(error) if hint is None else f"{one_line(error)} ({hint})"


def one_line(error: BaseException) -> str:
    """What an error says, on one line; Arrow says the number of an operating system's error twice.

    Of "[Errno 13] Cannot create directory '/x'. Detail: [errno 13] Permission denied", the reason
    stays, and what could not be done.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return without_noise(_TWICE.sub(r"\g<what>: \g<reason>", text))
