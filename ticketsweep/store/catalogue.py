"""Which files stand for the rows of a table: those that are committed, whole and seen once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow.dataset as ds

from ticketsweep.store.files import (
    UnreadableFile,
    check_pages,
    open_fragment,
    replaced_by,
    status_of,
    trials_of,
)
from ticketsweep.store.paths import Storage, StoredFile
from ticketsweep.store.schema import Table

_ATTEMPTS = 20  # at a storage that changes under every one of them
_OPENERS = 8  # footers read at once; on an object store each is a round trip or two
_CROWD = 1000  # files of single trials, from which on opening them takes longer than a second


class Catalogue:
    """The data files of a storage, opened when they are first asked for."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._opened: dict[StoredFile, ds.ParquetFileFragment] = {}
        # Of parts, whose names are never given again, by sweep and name.
        self._trials: dict[tuple[str, str], frozenset[str]] = {}
        self._replaces: dict[tuple[str, str], frozenset[str]] = {}
        self._skipped: dict[str, tuple[StoredFile, str]] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each file that has been left out so far: which, and why."""
        return tuple(f"skipped {self._skipped[path][1]}" for path in sorted(self._skipped))

    @property
    def crowded(self) -> tuple[str, ...]:
        """Sweeps of which so many files of single trials were opened that compaction would help."""
        single = Counter(f.sweep for f in self._opened if f.table == "trials" and not f.compacted)
        return tuple(sorted(sweep for sweep, count in single.items() if count >= _CROWD))

    def fragment(self, file: StoredFile) -> ds.ParquetFileFragment:
        """A file that `committed` has returned."""
        return self._opened[file]

    def trials_in(self, part: StoredFile) -> frozenset[str]:
        """The ids of the trials of a part whose file, of any table, `committed` has returned."""
        return self._trials[part.sweep, part.name]

    def committed(
        self, table: Table, *, sweep: str | None = None, trial_id: str | None = None
    ) -> list[StoredFile]:
        """The readable files of a table that a commit stands for.

        A part may hold other trials beside the one asked for. While trials are written and
        compacted, each that was there before is in the answer, once.
        """
        if table == "sweeps":
            return self._open(self._list(table, sweep, None))[0]
        before: list[StoredFile] | None = None
        for _ in range(_ATTEMPTS):
            # Markers are listed first: what is committed after that has its files listed in vain.
            files, whole = self._markers(sweep, trial_id)
            if table == "comparisons":
                stand = self._trials_of(files)
                listed = [
                    f
                    for f in self._list(table, sweep, trial_id)
                    if not f.compacted and (f.sweep, f.name) in stand
                ]
                files, opened = self._open(listed)
                whole = whole and opened
            elif table != "trials":
                stands = {
                    (f.sweep, f.name, f.compacted)
                    for f in files
                    if f.compacted or status_of(self._opened[f]) != "failed"
                }
                listed = [
                    f
                    for f in self._list(table, sweep, trial_id)
                    if (f.sweep, f.name, f.compacted) in stands
                ]
                files, opened = self._open(listed)
                whole = whole and opened and len(listed) == len(stands)
            if whole or files == before:
                break  # what is missing twice is missing
            before = files
        return files

    def _trials_of(self, markers: Sequence[StoredFile]) -> set[tuple[str, str]]:
        """Sweep and id of the trials, but for failed ones, that these files of `trials` commit."""
        own = {
            (f.sweep, f.name)
            for f in markers
            if not f.compacted and status_of(self._opened[f]) != "failed"
        }
        parts = [f for f in markers if f.compacted]
        return own | {(f.sweep, trial) for f in parts for trial in self.trials_in(f)}

    def _markers(self, sweep: str | None, trial_id: str | None) -> tuple[list[StoredFile], bool]:
        """The files of `trials` that count, and whether all were still there to be opened."""
        own, parts, whole = self._unopened(sweep, trial_id)
        own, opened = self._open(own)
        if trial_id is not None:
            parts = [file for file in parts if trial_id in self.trials_in(file)]
        return [*own, *parts], whole and opened

    def markers(self, sweep: str | None) -> tuple[list[StoredFile], list[StoredFile]]:
        """The files of `trials` that count: those of single trials, unopened, and the parts."""
        own, parts, _ = self._unopened(sweep, None)
        return own, parts

    def sound(self, files: Sequence[StoredFile]) -> list[StoredFile]:
        """Those of the files that can be opened; the others are noted as damaged."""
        return self._open(files)[0]

    def _unopened(
        self, sweep: str | None, trial_id: str | None
    ) -> tuple[list[StoredFile], list[StoredFile], bool]:
        """Files of single trials that count, parts that do, and whether all of these were there."""
        # A part may come, and what it replaces go, while a listing is made: files of single trials
        # are taken from one that ended before another began which has the same parts.
        listed = self._list("trials", sweep, trial_id)
        for _ in range(_ATTEMPTS):
            again = self._list("trials", sweep, trial_id)
            if [f for f in again if f.compacted] == [f for f in listed if f.compacted]:
                break
            listed = again
        parts, whole = self._open([file for file in listed if file.compacted])
        replaced = {(f.sweep, name) for f in parts for name in self._replaces[f.sweep, f.name]}
        parts = [file for file in parts if (file.sweep, file.name) not in replaced]
        inside: dict[str, set[str]] = {}
        for file in parts:
            inside.setdefault(file.sweep, set()).update(self.trials_in(file))
        own = [f for f in listed if not f.compacted and f.name not in inside.get(f.sweep, ())]
        return own, parts, whole

    def _list(self, table: Table, sweep: str | None, trial_id: str | None) -> list[StoredFile]:
        if sweep is None or trial_id is None:
            listed = self._storage.files(table, sweep)
            return [f for f in listed if trial_id in (None, f.name) or f.compacted]
        own = self._storage.file(table, sweep, trial_id)
        parts = self._storage.parts(table, sweep)
        return parts if own is None else [own, *parts]

    def _open(self, listed: Sequence[StoredFile]) -> tuple[list[StoredFile], bool]:
        """The files whose footers are sound, and whether none has gone; damage is noted."""
        for file in listed:
            known = self._skipped.get(file.path)
            if known is not None and known[0] != file:
                del self._skipped[file.path]  # written anew since
        unseen = [f for f in listed if f not in self._opened and f.path not in self._skipped]
        if unseen:
            # Some at a time, since handing one to a thread costs as much as opening it.
            some = min(64, 1 + len(unseen) // (4 * _OPENERS))
            with ThreadPoolExecutor(_OPENERS) as pool:
                list(pool.map(self._open_some, _runs(unseen, some)))
        sound = [f for f in listed if f in self._opened and f.path not in self._skipped]
        skipped = sum(file.path in self._skipped for file in listed)
        return sound, len(sound) + skipped == len(listed)

    def _open_some(self, files: Sequence[StoredFile]) -> None:
        for file in files:
            self._open_one(file)

    def _open_one(self, file: StoredFile) -> None:
        try:
            fragment = open_fragment(self._storage, file)
            if file.compacted and file.table == "trials":
                part = (file.sweep, file.name)
                self._replaces[part] = replaced_by(fragment, file)
                self._trials[part] = trials_of(fragment, file)
            self._opened[file] = fragment
        except FileNotFoundError:
            return  # replaced or removed since it was listed
        except UnreadableFile as error:
            self._skipped[file.path] = (file, str(error))

    def changed(self, files: Mapping[Table, Sequence[StoredFile]]) -> bool:
        """Whether one of these files is no longer there as it was listed."""
        return any(set(files[table]) - set(self._storage.files(table)) for table in files)

    def skip_damaged(self, files: Sequence[StoredFile]) -> bool:
        """Read the files through and note the damaged ones as skipped; whether there were any."""
        before = len(self._skipped)
        for file in files:
            try:
                check_pages(self._opened[file], file)
            except UnreadableFile as error:
                self._skipped[file.path] = (file, str(error))
        return len(self._skipped) > before


def _runs(files: Sequence[StoredFile], length: int) -> Iterator[Sequence[StoredFile]]:
    for start in range(0, len(files), length):
        yield files[start : start + length]
