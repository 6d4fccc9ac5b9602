"""What was left behind and nobody needs: checkpoints, notes, claims, unfinished files.

Whatever a live process may use stays, and so does all of a trial that may go on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow.fs as pafs

from ticketsweep.errors import StorageError, did_you_mean
from ticketsweep.store.claims import claim_states
from ticketsweep.store.files import UnreadableFile, open_fragment, remove, status_of
from ticketsweep.store.live import live_runs
from ticketsweep.store.parts import part_states
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import TRIAL_TABLES
from ticketsweep.store.under_way import trials_under_way
from ticketsweep.store.writer import dead_leftovers


@dataclass(frozen=True)
class Litter:
    """A file that nobody needs.

    Attributes
    ----------
    path: as the storage's file system has it.
    kind: what it is, in the singular.
    """

    path: str
    bytes: int
    kind: str


def find_litter(storage: Storage, sweep: str | None, *, older_than: float) -> list[Litter]:
    """All files that nobody needs, of one sweep or of the whole storage; none is deleted.

    Parameters
    ----------
    sweep: None: of every sweep, and what belongs to none.
    older_than: seconds without a change, from which on rows that were never committed count as left
        behind, and a checkpoint that no sweep knows: a single trial that was interrupted goes on.

    Raises StorageError where the storage cannot be listed, or has no such sweep.
    """
    names = storage.names()
    if sweep is not None and sweep not in names:
        hint = did_you_mean(sweep, names) if names else "it has none"
        raise StorageError(f"storage {storage.uri} has no sweep {sweep!r} ({hint})")
    begun = trials_under_way(storage)
    states = [_look(storage, name, begun.get(name, set())) for name in names]
    before = (time.time() - older_than) * 1e9
    found = list(_of_checkpoints(storage, states, sweep, before))
    for state in states:
        if sweep in (None, state.sweep):
            found += _of_sweep(storage, state, before)
    dead = [] if sweep is not None else dead_leftovers(storage, None)
    found += [Litter(each.path, each.size, "unfinished file") for each in dead]
    return sorted(found, key=lambda each: each.path)


def clean(storage: Storage, found: Sequence[Litter], *, report: Callable[[int, int], None]) -> None:
    """Delete what `find_litter` has found. Raises StorageError where that is not allowed.

    Parameters
    ----------
    report: told how many of how many are deleted.
    """
    for done, each in enumerate(found, start=1):
        remove(storage, each.path)
        report(done, len(found))


@dataclass(frozen=True)
class _Sweep:
    """What is there of a sweep.

    Attributes
    ----------
    claims: path -> whether the claim may still stand.
    is_stored: it has a row of its own or a trial.
    own: the statuses of trials that have a row in a file of its own, by id.
    merged: ids of the trials in parts.
    parts: names of the parts that have a file of `trials`.
    begun: ids of the trials that it has begun and, as far as is noted, not ended.
    running: ids of the trials that a process tells it is running.
    """

    sweep: str
    claims: Mapping[str, bool]
    is_stored: bool
    own: Mapping[str, str]
    merged: frozenset[str]
    parts: frozenset[str]
    begun: set[str]
    running: set[str]

    @property
    def is_live(self) -> bool:
        """Whether a process may be at work on it."""
        return bool(self.running) or any(self.claims.values())

    @property
    def complete(self) -> set[str]:
        """The ids of its complete trials."""
        return {trial for trial, status in self.own.items() if status == "complete"} | self.merged


def _look(storage: Storage, sweep: str, begun: set[str]) -> _Sweep:
    claims = claim_states(storage, sweep)
    own: dict[str, str] = {}
    parts: set[str] = set()
    for file in storage.files("trials", sweep):
        if file.compacted:
            parts.add(file.name)
            continue
        try:
            own[file.name] = status_of(open_fragment(storage, file))
        except UnreadableFile:
            own[file.name] = "unreadable"
        except FileNotFoundError:
            continue
    merged = frozenset[str]().union(*(p.trials for p in part_states(storage, sweep).committed))
    is_stored = bool(own or parts or storage.files("sweeps", sweep))
    now = datetime.now(UTC)
    told = [run for run in live_runs(storage, sweep) if run.is_alive(now)]
    running = {trial.trial_id for run in told for trial in run.trials}
    return _Sweep(sweep, claims, is_stored, own, merged, frozenset(parts), begun, running)


def _of_checkpoints(
    storage: Storage, states: Sequence[_Sweep], sweep: str | None, before: float
) -> Iterator[Litter]:
    """Checkpoints that no trial goes on from."""
    in_use = {trial for s in states if s.is_live for trial in (*s.begun, *s.running)}
    complete = {trial for state in states for trial in state.complete}
    going_on = {trial for state in states if state.is_stored for trial in state.begun}
    # A failed trial whose worker died is tried again from its checkpoint; others have none.
    again = ("stopped", "failed")
    going_on |= {t for state in states for t, status in state.own.items() if status in again}
    asked = {t for s in states if s.sweep == sweep for t in (*s.own, *s.merged, *s.begun)}
    for trial, info in storage.checkpoints().items():
        if trial in in_use or (sweep is not None and trial not in asked):
            continue
        if trial in complete:
            yield _found(info, "checkpoint of a complete trial")
        elif trial not in going_on and (info.mtime_ns or 0) < before:
            yield _found(info, "checkpoint that no sweep goes on from")


def _of_sweep(storage: Storage, state: _Sweep, before: float) -> Iterator[Litter]:
    """What is left of a sweep's dead processes."""
    for path, stands in state.claims.items():
        if not stands:
            yield Litter(path, 0, "claim of a process that has ended")
    for file in dead_leftovers(storage, state.sweep):
        yield Litter(file.path, file.size, "unfinished file")
    if state.is_live:
        return
    folders = storage.folders(state.sweep)
    for info in storage.list_files(folders["underway"]):
        trial = info.base_name.removesuffix(".json")
        if trial in state.complete or (trial in state.begun and not state.is_stored):
            yield _found(info, "note of a trial that has ended")
    known = state.own.keys() | state.merged
    for table in (*TRIAL_TABLES[:-1], "comparisons"):
        for info in storage.list_files(folders[table]):
            name = info.base_name.removesuffix(".parquet")
            if name == info.base_name or name.startswith(".") or (info.mtime_ns or 0) >= before:
                continue
            committed = state.parts if "/compacted/" in info.path else state.own.keys()
            if name not in (known if table == "comparisons" else committed):
                yield _found(info, "file of rows that were never committed")


def _found(info: pafs.FileInfo, kind: str) -> Litter:
    return Litter(info.path, info.size or 0, kind)
