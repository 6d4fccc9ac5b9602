"""Moving aside what is damaged, so that the database is sound without it."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from ticketsweep.errors import StorageError
from ticketsweep.store.compaction import compacting, rewrite_part
from ticketsweep.store.part_contents import sound_rows
from ticketsweep.store.paths import Storage, StoredFile, one_line, valid_name
from ticketsweep.store.schema import TRIAL_TABLES
from ticketsweep.store.verify import DamagedPart, Loss, Verification


def quarantine(storage: Storage, found: Verification, *, label: str) -> list[str]:
    """Move all files of lost trials aside, deleting none; returns where they lie now.

    The file that commits a trial goes first, so that no reader sees half of it. A trial that has
    been written anew since it was checked stays. Of a damaged part the sound trials are written
    into a new one, before its own files are moved.

    Parameters
    ----------
    label: names the new folder below `quarantine`.

    Raises StorageError where moving is not possible.
    """
    folder = storage.quarantine_folder(label)
    moved = []
    for loss in found.losses:
        if _is_as_it_was(storage, loss):
            moved += _moved(storage, loss.files, folder)
    for part in found.parts:
        if storage.part_files(part.sweep, part.name) == part.files and _rescued(storage, part):
            files = [part.files[table] for table in reversed(TRIAL_TABLES) if table in part.files]
            moved += _moved(storage, files, folder)
    return moved


def _is_as_it_was(storage: Storage, loss: Loss) -> bool:
    if loss.trial_id is None or not (valid_name(loss.trial_id) and valid_name(loss.sweep)):
        return True
    if loss.is_of_trial:
        return set(storage.trial_files(loss.sweep, loss.trial_id).values()) == set(loss.files)
    return loss.files == (storage.file("comparisons", loss.sweep, loss.trial_id),)


def _rescued(storage: Storage, part: DamagedPart) -> bool:
    """Whether what is sound of a part lies elsewhere now; not if it has gone meanwhile."""
    if part.sound:
        try:
            rows = sound_rows(storage, part.files, part.sound)
        except FileNotFoundError:
            return False
        with compacting(storage, part.sweep):
            rewrite_part(storage, part.sweep, part.name, part.sound, rows)
    return True


def _moved(storage: Storage, files: Iterable[StoredFile], folder: str) -> list[str]:
    moved = []
    for file in files:
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
        moved.append(target.removeprefix(f"{storage.root}/"))
    return moved
