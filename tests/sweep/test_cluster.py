from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from ticketsweep.sweep import cluster

# Of Ray's session, with the highest number that Linux gives to a process, and its longest socket.
SESSION = "session_2026-11-23_15-11-11_993412_4194304/sockets/plasma_store"


@pytest.mark.parametrize(("length", "is_used"), [(18, True), (19, False), (60, False)])
def test_rays_sockets_have_paths_that_the_system_takes(
    length: int, is_used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = Path("/tmp") / ("x" * (length - len("/tmp/")))
    parent.mkdir()
    try:
        monkeypatch.setattr(tempfile, "tempdir", str(parent))
        with cluster._temporary_folder() as folder:
            assert len(str(folder / SESSION)) <= 107
            assert (folder.parent == parent) == is_used
        assert not folder.exists()
    finally:
        parent.rmdir()
