"""Checking the whole database: every byte of every file, and that the tables agree."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa

from ticketsweep.errors import StorageError
from ticketsweep.store.contents import Rows, check_statistics, disagreements, read_rows
from ticketsweep.store.encoding import is_sealed
from ticketsweep.store.files import DAMAGE, UnreadableFile, check_stamp, open_fragment
from ticketsweep.store.paths import Storage, StoredFile, one_line, reason, valid_name
from ticketsweep.store.remote import is_service_fault
from ticketsweep.store.schema import TRIAL_TABLES, Table

_THREADS = min(4, os.cpu_count() or 1)  # each holds one file in memory
_AHEAD = 4 * _THREADS  # trials handed to the threads at once
_ATTEMPTS = 5  # at a trial that is being written anew under the check's eyes
_TRIAL_ROW: Table = "trials"


@dataclass(frozen=True)
class Damage:
    """One file (its path below the root), and what is wrong with it."""

    file: str
    reason: str


@dataclass(frozen=True)
class Loss:
    """A trial, or a sweep's own row, that cannot be trusted.

    Attributes
    ----------
    trial_id: None for the row of the sweep.
    damage: at least one.
    files: all that the trial has, the damaged ones included; the one that commits it comes first.
    """

    sweep: str
    trial_id: str | None
    damage: tuple[Damage, ...]
    files: tuple[StoredFile, ...]


@dataclass(frozen=True)
class Verification:
    """What a check has found.

    Attributes
    ----------
    trials, files, bytes: how much was checked.
    losses: trials and sweeps with damaged, missing or contradictory files.
    leftovers: files that belong to no committed trial (a writer is at work on them, or has been
        killed); no reader sees them.
    unsealed: files of a version that wrote no digest of the whole file. Their pages, rows and
        statistics were checked; a flip in what no reader looks at would not be seen.
    """

    trials: int
    files: int
    bytes: int
    losses: tuple[Loss, ...]
    leftovers: tuple[str, ...]
    unsealed: int

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not self.losses


Report = Callable[[int, int], None]
"""Is told how many of how many trials (and rows of sweeps) are checked."""


def verify(storage: Storage, sweep: str | None = None, *, report: Report) -> Verification:
    """Check every file (of one sweep): its bytes, its rows, and what the tables say of each other.

    Trials are checked in a few threads, each of which holds one file at a time. Writers may go on
    meanwhile: a trial that is replaced while it is checked is checked again.

    Raises StorageError if the storage cannot be listed, or has no such sweep.
    """
    # Markers are listed first: what is committed after that has its files listed in vain.
    tables: list[Table] = ["sweeps", *reversed(TRIAL_TABLES)]
    listed = [file for table in tables for file in storage.files(table, sweep)]
    if sweep is not None and not listed:
        known = sorted({file.sweep for table in tables[:2] for file in storage.files(table)})
        has = f"it has {', '.join(known)}" if known else "it has no sweep yet"
        raise StorageError(f"storage {storage.uri} has no sweep {sweep!r} ({has})")
    units: dict[tuple[str, str | None], dict[Table, StoredFile]] = {}
    for file in listed:
        trial_id = None if file.table == "sweeps" else file.name
        units.setdefault((file.sweep, trial_id), {})[file.table] = file
    committed = {key for key, of in units.items() if key[1] is None or _TRIAL_ROW in of}
    leftovers = [f.shown for key, of in units.items() if key not in committed for f in of.values()]
    work = [(key, of) for key, of in units.items() if key in committed]
    found = _Found(leftovers=leftovers)
    for done, one in enumerate(_in_threads(storage, work), 1):
        found.add(one)
        report(done, len(work))
    names = {name for name, _ in units} if sweep is None else {sweep}
    for name in filter(valid_name, names):
        found.leftovers += [_shown(storage, file.path) for file in storage.leftovers(name)]
    return Verification(
        trials=sum(key[1] is not None for key in committed),
        files=found.files,
        bytes=found.bytes,
        losses=tuple(sorted(found.losses, key=lambda loss: (loss.sweep, loss.trial_id or ""))),
        leftovers=tuple(sorted(found.leftovers)),
        unsealed=found.unsealed,
    )


@dataclass
class _Found:
    """What has been found so far, of one trial or of all."""

    files: int = 0
    bytes: int = 0
    unsealed: int = 0
    leftovers: list[str] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)

    def add(self, other: _Found) -> None:
        self.files += other.files
        self.bytes += other.bytes
        self.unsealed += other.unsealed
        self.leftovers += other.leftovers
        self.losses += other.losses


_Key = tuple[str, str | None]
_Work = tuple[_Key, Mapping[Table, StoredFile]]


def _in_threads(storage: Storage, work: Iterable[_Work]) -> Iterator[_Found]:
    """What each trial comes to, in order; few are begun before they are asked for."""
    waiting = iter(work)
    with ThreadPoolExecutor(_THREADS) as pool:
        running: list[Future[_Found]] = []
        try:
            while True:
                more = itertools.islice(waiting, _AHEAD - len(running))
                running += [pool.submit(_check_unit, storage, *each) for each in more]
                if not running:
                    return
                yield running.pop(0).result()
        finally:
            for each in running:
                each.cancel()


def _check_unit(storage: Storage, key: _Key, files: Mapping[Table, StoredFile]) -> _Found:
    sweep, trial_id = key
    if trial_id is None or not (valid_name(sweep) and valid_name(trial_id)):
        return _check_files(storage, key, files)
    for _ in range(_ATTEMPTS):
        found = _check_files(storage, key, files)
        if not found.losses:
            return found
        now = storage.trial_files(sweep, trial_id)
        if now == files or not now:
            return found if now else _Found()
        if _TRIAL_ROW not in now:
            return _Found(leftovers=[file.shown for file in now.values()])
        files = now
    return found


def _check_files(storage: Storage, key: _Key, files: Mapping[Table, StoredFile]) -> _Found:
    found = _Found()
    damage: list[Damage] = []
    rows: dict[Table, Rows] = {}
    for table, file in files.items():
        if not (valid_name(file.sweep) and valid_name(file.name)):
            damage.append(Damage(file.shown, "no sweep or trial may have this name"))
            continue
        try:
            rows[table] = _read(storage, file, found)
        except (UnreadableFile, FileNotFoundError) as error:
            damage.append(Damage(file.shown, _reason(file, error)))
    if key[1] is not None and _TRIAL_ROW in rows:
        if rows[_TRIAL_ROW][0]["status"] == "failed":
            # Killed before it had removed what an earlier attempt had written: nobody sees it.
            hidden = [file.shown for table, file in files.items() if table != _TRIAL_ROW]
            found.leftovers += hidden
            damage = [each for each in damage if each.file not in hidden]
        else:
            missing = [table for table in TRIAL_TABLES if table not in files]
            damage += [Damage(_beside(files, table), "is missing") for table in missing]
            if not damage:
                faults = disagreements(rows)
                damage += [Damage(files[table].shown, fault) for table, fault in faults]
    if damage:
        order = [*reversed(TRIAL_TABLES), "sweeps"]
        own = sorted(files.values(), key=lambda file: order.index(file.table))
        found.losses.append(Loss(*key, tuple(damage), tuple(own)))
    return found


def _read(storage: Storage, file: StoredFile, found: _Found) -> Rows:
    """The rows of a file, every byte of which has been checked.

    Raises UnreadableFile or FileNotFoundError.
    """
    try:
        with storage.filesystem.open_input_file(file.path) as stream:
            content: pa.Buffer = stream.read_buffer()
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        if is_service_fault(error):
            raise StorageError(f"storage {storage.uri}: {reason(error)}") from error
        raise UnreadableFile(f"cannot be read: {one_line(error)}") from error
    found.files += 1
    found.bytes += content.size
    sealed = is_sealed(content)
    if sealed is False:  # nothing of it is decoded
        raise UnreadableFile("its bytes are not those that were written (its digest differs)")
    fragment = open_fragment(storage, file, content)
    found.unsealed += sealed is None
    try:
        if sealed is None:
            check_stamp(fragment, file)
            check_statistics(content)
        return read_rows(file, fragment, content)
    except UnreadableFile:
        raise
    except DAMAGE as error:
        raise UnreadableFile(one_line(error)) from error


def _reason(file: StoredFile, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "is missing"
    return str(error).removeprefix(f"{file.shown}: ")


def _beside(files: Mapping[Table, StoredFile], table: Table) -> str:
    """The path that a trial's missing file would have."""
    return f"{table}/{files[_TRIAL_ROW].shown.split('/', 1)[1]}"


def _shown(storage: Storage, path: str) -> str:
    return path.removeprefix(f"{storage.root}/")


def quarantine(storage: Storage, losses: Sequence[Loss], *, label: str) -> list[str]:
    """Move all files of the lost trials aside, deleting none; returns where they lie now.

    The file that commits a trial goes first, so that no reader sees half of it. A trial that has
    been written anew since it was checked stays.

    Parameters
    ----------
    label: names the new folder below `quarantine`.

    Raises StorageError where moving is not possible.
    """
    folder = storage.quarantine_folder(label)
    moved = []
    for loss in losses:
        if loss.trial_id is not None and valid_name(loss.trial_id) and valid_name(loss.sweep):
            now = storage.trial_files(loss.sweep, loss.trial_id)
            if set(now.values()) != set(loss.files):
                continue
        for file in loss.files:
            target = f"{folder}/{file.shown}"
            try:
                storage.filesystem.create_dir(target.rsplit("/", 1)[0], recursive=True)
                storage.filesystem.move(file.path, target)
            except FileNotFoundError:
                continue
            except (pa.ArrowException, OSError) as error:
                raise StorageError(
                    f"storage {storage.uri}: cannot move {file.shown} to {target}: "
                    f"{one_line(error)} (mend the permissions, then run the same command again)"
                ) from error
            moved.append(_shown(storage, target))
    return moved
