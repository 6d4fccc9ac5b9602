"""The checkpoint of a trial under way: bytes under the trial's id."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from ticketsweep.errors import StorageError
from ticketsweep.store.files import put, remove
from ticketsweep.store.paths import Storage, reason


@dataclass(frozen=True)
class CheckpointFile:
    """Where one trial's checkpoint lies; whoever runs that trial next finds it there.

    Two processes that run the same trial replace each other's, which costs neither anything.
    """

    storage: Storage
    trial_id: str

    def read(self) -> bytes | None:
        """The whole content; None if there is no such file.

        Raises StorageError where the storage cannot be read: the file may well be there.
        """
        try:
            with self.storage.filesystem.open_input_file(self._path) as stream:
                content: bytes = stream.read()
        except FileNotFoundError:
            self.storage.check_there()
            return None
        except (pa.ArrowException, OSError) as error:
            raise StorageError(
                f"storage {self.storage.uri}: cannot read {self._path}: {reason(error)}"
            ) from error
        return content

    def write(self, content: bytes) -> None:
        """Replace it, wholly or not at all. Raises StorageError where that is not possible."""
        put(self.storage, self._path, pa.py_buffer(content))

    def delete(self) -> None:
        """Delete it if it is there. What cannot be deleted stays, and is of no effect."""
        try:
            remove(self.storage, self._path)
        except StorageError:
            return

    @property
    def _path(self) -> str:
        return self.storage.checkpoint_file(self.trial_id)
