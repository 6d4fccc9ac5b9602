"""The trials that a sweep has begun and not finished, for the run that goes on with it.

A driver notes each trial that it gives out, with the search's record of it, so that a later run
takes it up where its checkpoint is, instead of drawing another in its place. A note that cannot be
written or read costs no more than that.
"""

from __future__ import annotations

import json
from contextlib import suppress

import pyarrow as pa

from ticketsweep.errors import StorageError
from ticketsweep.store.files import put, remove
from ticketsweep.store.paths import Storage, valid_name

_SUFFIX = ".json"


def note_begun(storage: Storage, sweep: str, trial_id: str, record: str) -> None:
    """Note that a trial is under way.

    Parameters
    ----------
    record: the search's own (JSON), as it will be stored with the trial.
    """
    content = json.dumps({"search": record}).encode()
    with suppress(StorageError):
        put(storage, _path(storage, sweep, trial_id), pa.py_buffer(content), lasting=False)


def note_ended(storage: Storage, sweep: str, trial_id: str) -> None:
    """Note that a trial is under way no longer."""
    with suppress(StorageError):
        remove(storage, _path(storage, sweep, trial_id))


def trials_under_way(storage: Storage, sweep: str | None = None) -> dict[str, set[str]]:
    """The ids of trials that were begun and not ended, by their sweeps (by this one alone).

    Raises StorageError where the storage cannot be listed.
    """
    found: dict[str, set[str]] = {}
    for of, name, _ in storage.told(storage.under_way_folder(sweep)):
        trial_id = name.removesuffix(_SUFFIX)
        if trial_id != name and valid_name(trial_id):
            found.setdefault(of, set()).add(trial_id)
    return found


def record_of(storage: Storage, sweep: str, trial_id: str) -> str | None:
    """What `note_begun` was given; None if it is not there, or damaged."""
    try:
        with storage.filesystem.open_input_file(_path(storage, sweep, trial_id)) as stream:
            record = json.loads(stream.read())["search"]
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError):
        return None
    return record if isinstance(record, str) else None


def _path(storage: Storage, sweep: str, trial_id: str) -> str:
    return f"{storage.under_way_folder(sweep)}/{trial_id}{_SUFFIX}"
