"""Deleting a sweep, or some of its trials, so that the database is sound at every moment.

The file that commits a trial goes first: no reader sees the rest of it then, and what a deletion
that was killed has left is found by the next one. Trials that another sweep has copied are that
sweep's own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from ticketsweep.errors import StorageError, did_you_mean
from ticketsweep.store.claims import claimed
from ticketsweep.store.compaction import compacting, rewrite_part
from ticketsweep.store.database import Database
from ticketsweep.store.files import remove
from ticketsweep.store.live import live_runs
from ticketsweep.store.logs import log_files
from ticketsweep.store.part_contents import check_part, sound_rows
from ticketsweep.store.parts import Part, part_states
from ticketsweep.store.paths import Storage, one_line
from ticketsweep.store.schema import TRIAL_TABLES
from ticketsweep.store.under_way import trials_under_way

_AT_ONCE = 16  # files; on an object store each is a round trip
_ORDER = (*reversed(TRIAL_TABLES), "comparisons", "underway", "logs", "live", "sweeps")

Report = Callable[[int, int], None]
"""Is told how many of how many files are deleted."""


@dataclass(frozen=True)
class Doomed:
    """What a deletion takes away.

    Attributes
    ----------
    trials: those that readers see.
    masks: rows of the table of this name.
    files, bytes: of everything that goes, checkpoints included; what is left of parts that others
        share is not counted.
    """

    sweep: str
    trials: int
    masks: int
    files: int
    bytes: int


@dataclass(frozen=True)
class _Plan:
    """Files in groups, each of which goes before the next."""

    doomed: Doomed
    groups: Sequence[Sequence[str]]


def doomed_sweep(storage: Storage, sweep: str, *, beside: Collection[Path] = ()) -> Doomed:
    """What `delete_sweep` would take away. Raises StorageError if there is no such sweep."""
    return _plan(storage, sweep, beside).doomed


def delete_sweep(
    storage: Storage, sweep: str, *, beside: Collection[Path] = (), report: Report
) -> Doomed:
    """Delete all that belongs to a sweep alone; run again, it finishes what was cut off.

    Parameters
    ----------
    beside: files and folders below a local storage that belong to the sweep and are no part of the
        database.

    Raises StorageError if there is no such sweep, if a process runs or compacts it, or where files
    cannot be deleted.
    """
    _plan(storage, sweep, beside)  # without which a claim would be made for no sweep
    with claimed(storage, sweep, "run", waiting=lambda _: None), compacting(storage, sweep):
        _refuse_single_trials(storage, sweep)
        plan = _plan(storage, sweep, beside)
        _delete(storage, plan.groups, report)
        for folder in storage.folders(sweep).values():
            _remove_folder(storage, folder)
        _remove_emptied(storage, beside)
    if storage.local is not None:
        with suppress(OSError):  # another driver's claim is there, of a sweep that begins anew
            (storage.local / "claims" / storage.claims_folder(sweep).rsplit("/", 1)[1]).rmdir()
    return plan.doomed


def _refuse_single_trials(storage: Storage, sweep: str) -> None:
    """Raises StorageError where `ticketsweep trial`, which claims no sweep, runs one of it."""
    now = datetime.now(UTC)
    for run in live_runs(storage, sweep):
        if run.is_alive(now):
            raise StorageError(
                f"a trial of sweep {sweep} is being run by process {run.pid} of {run.host} "
                f"(wait until it has ended, or end it there)"
            )


def _plan(storage: Storage, sweep: str, beside: Collection[Path]) -> _Plan:
    files = {kind: storage.list_files(path) for kind, path in storage.folders(sweep).items()}
    journal = storage.optuna_journal(sweep)
    journals = [] if journal is None else [journal, journal.with_name(f"{journal.name}.lock")]
    there = [path for path in (*beside, *journals) if path.is_file()]
    if not any(files.values()) and not there:
        raise StorageError(
            f"storage {storage.uri} has no sweep {sweep!r} ({_known(storage, sweep)})"
        )
    ids = {info.base_name.partition(".")[0] for kind in _ORDER[:-1] for info in files[kind]}
    checkpoints = _own_checkpoints(storage, sweep, ids)
    markers = files.pop("trials")
    own = [info for info in markers if "/compacted/" not in info.path]
    groups = [checkpoints, own, [info for info in markers if info not in own]]
    groups += [files[kind] for kind in _ORDER[1:]]
    everything = [info for group in groups for info in group]
    database = Database(storage)
    doomed = Doomed(
        sweep,
        trials=len(database.trials(sweep)),
        masks=len(database.masks(sweep, columns=["replicate"])),
        files=len(everything) + len(there),
        bytes=sum(info.size for info in everything) + sum(path.stat().st_size for path in there),
    )
    paths = [[info.path for info in group] for group in groups]
    return _Plan(doomed, [*paths[:-1], [path.as_posix() for path in there], paths[-1]])


def _own_checkpoints(storage: Storage, sweep: str, trials: Collection[str]) -> list[pafs.FileInfo]:
    """The checkpoints of these trials that no other sweep may go on from."""
    found = {name: info for name, info in storage.checkpoints().items() if name in trials}
    if not found:
        return []
    others = {file.name for file in storage.files("trials") if file.sweep != sweep}
    for other, begun in trials_under_way(storage).items():
        others |= begun if other != sweep else set()
    now = datetime.now(UTC)
    for run in live_runs(storage):  # single trials, of which there is no other note
        if run.sweep != sweep and run.is_alive(now):
            others |= {trial.trial_id for trial in run.trials}
    return [info for name, info in found.items() if name not in others]


def _known(storage: Storage, sweep: str) -> str:
    known = sorted({*storage.sweeps_with_trials(), *(f.sweep for f in storage.files("sweeps"))})
    return did_you_mean(sweep, known) if known else "it has none"


def _delete(storage: Storage, groups: Sequence[Sequence[str]], report: Report) -> None:
    done, total = 0, sum(map(len, groups))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for group in groups:
            for _ in pool.map(lambda path: remove(storage, path), group):
                done += 1
                report(done, total)


def _remove_folder(storage: Storage, folder: str) -> None:
    try:
        storage.filesystem.delete_dir(folder)
    except FileNotFoundError:
        return
    except (pa.ArrowException, OSError) as error:
        raise StorageError(
            f"storage {storage.uri}: cannot delete {folder}: {one_line(error)}"
        ) from error


def _remove_emptied(storage: Storage, paths: Collection[Path]) -> None:
    """The folders among these and around them, in so far as nothing else is in them.

    Links to what was deleted go too: W&B makes some to its latest run.
    """
    gone = set(paths)
    folders = {folder for path in gone for folder in (path, *path.parents)}
    for folder in sorted(folders, key=lambda each: len(each.parts), reverse=True):
        if storage.local not in folder.parents or folder.is_symlink() or not folder.is_dir():
            continue
        with suppress(OSError):
            for entry in folder.iterdir():
                if entry.is_symlink() and (folder / entry.readlink()) in gone:
                    entry.unlink()
            folder.rmdir()


def delete_trials(storage: Storage, sweep: str, trials: Collection[str], *, report: Report) -> None:
    """Delete some trials of a sweep, which may run them again.

    Of parts that were compacted, what is left is written anew.

    Parameters
    ----------
    trials: ids of trials that the sweep has.

    Raises StorageError as `delete_sweep` does, and if a part that has one of them is damaged.
    """
    # A compaction under way would bring back what it has read before.
    with claimed(storage, sweep, "run", waiting=lambda _: None), compacting(storage, sweep):
        _refuse_single_trials(storage, sweep)
        own = [storage.trial_files(sweep, trial) for trial in trials]
        rest = [f.path for of in own for table, f in of.items() if table != "trials"]
        compared = [storage.file("comparisons", sweep, trial) for trial in trials]
        rest += [file.path for file in compared if file is not None]
        rest += [file.path for file in log_files(storage, sweep) if file.trial_id in trials]
        notes = storage.list_files(storage.under_way_folder(sweep))
        rest += [info.path for info in notes if info.base_name.partition(".")[0] in trials]
        checkpoints = [info.path for info in _own_checkpoints(storage, sweep, trials)]
        markers = [of["trials"].path for of in own if "trials" in of]
        parts = [p for p in part_states(storage, sweep).committed if p.trials & set(trials)]
        _delete(storage, [checkpoints, markers], report=lambda *_: None)
        for part in parts:
            _delete_from(storage, part, trials)
        _delete(storage, [rest], report)


def _delete_from(storage: Storage, part: Part, trials: Collection[str]) -> None:
    left = part.trials - set(trials)
    try:
        if left:
            if check_part(storage, part.files).faults:
                raise StorageError(
                    f"part {part.name} of sweep {part.sweep} is damaged (`ticketsweep masks verify "
                    f"{part.sweep} --quarantine` moves what is lost aside, then delete again)"
                )
            rows = sound_rows(storage, part.files, left)
            rewrite_part(storage, part.sweep, part.name, left, rows)
    except FileNotFoundError as error:
        raise StorageError(
            f"sweep {part.sweep} is being compacted (wait until that has ended, then delete again)"
        ) from error
    files = [part.files[table].path for table in reversed(TRIAL_TABLES) if table in part.files]
    for path in files:  # `trials` first
        remove(storage, path)


def doomed_trials(storage: Storage, sweep: str, trials: Collection[str]) -> Doomed:
    """What `delete_trials` would take away, whose files are not counted where they are shared."""
    database = Database(storage)
    rows = [database.masks(sweep, trial, columns=["replicate"]) for trial in trials]
    files = [file for trial in trials for file in storage.trial_files(sweep, trial).values()]
    return Doomed(
        sweep, len(trials), sum(map(len, rows)), len(files), sum(file.size for file in files)
    )
