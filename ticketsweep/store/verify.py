"""Checking the whole database: every byte of every file, and that the tables agree."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ticketsweep.errors import StorageError
from ticketsweep.store.contents import Rows, check_statistics, disagreements, read_rows
from ticketsweep.store.encoding import is_sealed
from ticketsweep.store.files import (
    DAMAGE,
    UnreadableFile,
    check_stamp,
    open_fragment,
    read_bytes,
)
from ticketsweep.store.part_contents import PartContents, check_part
from ticketsweep.store.parts import part_states
from ticketsweep.store.paths import Storage, StoredFile, one_line, valid_name
from ticketsweep.store.schema import TRIAL_TABLES, Table
from ticketsweep.store.threads import in_order

_THREADS = min(4, os.cpu_count() or 1)  # each holds one file in memory
_ATTEMPTS = 5  # at a trial that is being written anew under the check's eyes
_TRIAL_ROW: Table = "trials"
_BESIDE: Table = "comparisons"


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

    @property
    def is_of_trial(self) -> bool:
        """Whether the trial itself is lost, and not its comparisons alone."""
        return self.trial_id is not None and any(file.table != _BESIDE for file in self.files)


@dataclass(frozen=True)
class DamagedPart:
    """A part, of many trials that were compacted, that is not as it was written.

    Attributes
    ----------
    damage: at least one.
    lost: ids of trials with rows that cannot be read or trusted.
    sound: ids of the others, whose rows are whole.
    files: those that are there.
    """

    sweep: str
    name: str
    damage: tuple[Damage, ...]
    lost: frozenset[str]
    sound: frozenset[str]
    files: Mapping[Table, StoredFile]


@dataclass(frozen=True)
class Verification:
    """What a check has found.

    Attributes
    ----------
    trials, files, bytes: how much was checked.
    losses: trials and sweeps with damaged, missing or contradictory files.
    parts: damaged ones of compacted trials.
    leftovers: files that belong to no committed trial (a writer is at work on them, or has been
        killed); no reader sees them.
    unsealed: files of a version that wrote no digest of the whole file. Their pages, rows and
        statistics were checked; a flip in what no reader looks at would not be seen.
    """

    trials: int
    files: int
    bytes: int
    losses: tuple[Loss, ...]
    parts: tuple[DamagedPart, ...]
    leftovers: tuple[str, ...]
    unsealed: int

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged."""
        return not self.losses and not self.parts


Report = Callable[[int, int], None]
"""Is told how many of how many trials (and rows of sweeps) are checked."""


def verify(storage: Storage, sweep: str | None = None, *, report: Report) -> Verification:
    """Check every file (of one sweep): its bytes, its rows, and what the tables say of each other.

    Trials are checked in a few threads, each of which holds one file at a time. Writers may go on
    meanwhile: a trial that is replaced while it is checked is checked again.

    Raises StorageError if the storage cannot be listed, or has no such sweep.
    """
    # Markers are listed first: what is committed after that has its files listed in vain.
    tables: list[Table] = ["sweeps", *reversed(TRIAL_TABLES), _BESIDE]
    listed = [file for table in tables for file in storage.files(table, sweep)]
    if sweep is not None and not listed:
        known = sorted({file.sweep for table in tables[:2] for file in storage.files(table)})
        has = f"it has {', '.join(known)}" if known else "it has no sweep yet"
        raise StorageError(f"storage {storage.uri} has no sweep {sweep!r} ({has})")
    names = {file.sweep for file in listed} if sweep is None else {sweep}
    merged = _Parts(storage, sorted(filter(valid_name, names)))
    inside = {name: merged.trials(name) for name in names}
    units: dict[tuple[str, str | None], dict[Table, StoredFile]] = {}
    hidden, beside = [], []
    for file in listed:
        trial_id = None if file.table == "sweeps" else file.name
        if file.compacted:
            continue
        if file.table == _BESIDE:
            beside.append(file)
            continue
        if trial_id in inside[file.sweep]:
            hidden.append(file.shown)  # a compaction was killed before it had deleted it
            continue
        units.setdefault((file.sweep, trial_id), {})[file.table] = file
    committed = {key for key, of in units.items() if key[1] is None or _TRIAL_ROW in of}
    leftovers = [f.shown for key, of in units.items() if key not in committed for f in of.values()]
    work = [(key, of) for key, of in units.items() if key in committed]
    found = _Found(leftovers=leftovers + hidden)
    total = len(work) + sum(map(len, inside.values()))
    done = 0
    units_found = in_order(
        work, lambda each: _check_unit(storage, *each), threads=_THREADS, ahead=4 * _THREADS
    )
    for _, one in units_found:
        found.add(one)
        done += 1
        report(done, total)
    for file in beside:
        seen = (file.sweep, file.name) in committed or file.name in inside[file.sweep]
        found.add(_check_beside(storage, file) if seen else _Found(leftovers=[file.shown]))
    damaged, in_parts = [], 0
    for contents, bad in merged.checked():
        found.add(_Found(contents.files, contents.bytes, contents.unsealed))
        in_parts += len(contents.trials)
        report(min(done + in_parts, total), total)
        if bad is not None:
            damaged.append(bad)
    for name in filter(valid_name, names):
        found.leftovers += [_shown(storage, file.path) for file in storage.leftovers(name)]
    return Verification(
        trials=sum(key[1] is not None for key in committed) + in_parts,
        files=found.files,
        bytes=found.bytes,
        losses=tuple(sorted(found.losses, key=lambda loss: (loss.sweep, loss.trial_id or ""))),
        parts=tuple(damaged),
        leftovers=tuple(sorted({*found.leftovers, *merged.orphans()})),
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


class _Parts:
    """The parts of some sweeps, and those that come while they are checked."""

    def __init__(self, storage: Storage, sweeps: Sequence[str]) -> None:
        self._storage = storage
        self._first = {sweep: part_states(storage, sweep) for sweep in sweeps}

    def trials(self, sweep: str) -> frozenset[str]:
        """The trials that are in a part of the sweep."""
        parts = self._first[sweep].committed if sweep in self._first else ()
        return frozenset[str]().union(*(part.trials for part in parts))

    def checked(self) -> Iterator[tuple[PartContents, DamagedPart | None]]:
        """Each part with what was found in it. One that is merged into another is left out."""
        for sweep in self._first:
            seen: set[str] = set()
            for _ in range(_ATTEMPTS):
                states = part_states(self._storage, sweep)
                names = {part.name for part in states.committed} | states.unreadable
                new = [(sweep, name) for name in sorted(names - seen)]
                if not new:
                    break
                for _, found in in_order(new, self._check, threads=_THREADS, ahead=_THREADS):
                    yield found
                seen |= names

    def _check(self, part: tuple[str, str]) -> tuple[PartContents, DamagedPart | None]:
        sweep, name = part
        files = self._storage.part_files(sweep, name)
        try:
            found = check_part(self._storage, files) if files else PartContents()
        except FileNotFoundError:
            return PartContents(), None
        path = self._storage.part_file
        damage = tuple(
            Damage(_shown(self._storage, path(table, sweep, name)), why)
            for table, reasons in found.faults.items()
            for why in reasons
        )
        lost, sound = frozenset(found.lost), frozenset(found.trials - found.lost)
        bad = DamagedPart(sweep, name, damage, lost, sound, files) if damage else None
        return found, bad

    def orphans(self) -> Iterator[str]:
        """Files of parts that no commit stands for."""
        for sweep in self._first:
            states = part_states(self._storage, sweep)
            names = {part.name for part in states.committed} | states.unreadable
            for table in TRIAL_TABLES:
                for file in self._storage.parts(table, sweep):
                    if file.name not in names:
                        yield file.shown


def _check_beside(storage: Storage, file: StoredFile) -> _Found:
    """Of a file that no commit stands for, so that it alone is lost where it is damaged."""
    found = _Found()
    try:
        _read(storage, file, found)
    except FileNotFoundError:
        return _Found()  # removed since it was listed
    except UnreadableFile as error:
        damage = Damage(file.shown, _reason(file, error))
        found.losses.append(Loss(file.sweep, file.name, (damage,), (file,)))
    return found


def _check_unit(
    storage: Storage, key: tuple[str, str | None], files: Mapping[Table, StoredFile]
) -> _Found:
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


def _check_files(
    storage: Storage, key: tuple[str, str | None], files: Mapping[Table, StoredFile]
) -> _Found:
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
    content = read_bytes(storage, file)
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
