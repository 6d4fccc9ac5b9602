from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ticketsweep.sweep import reaper

SLEEPER = "import time; time.sleep(60)"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "ray"
    made.mkdir()
    return made


@pytest.fixture
def inside(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=log)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (tmp_path / "ray-log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=log, cwd=tmp_path)
    yield process
    process.kill()
    process.wait()


Process = subprocess.Popen[bytes]


def test_what_has_a_file_of_the_folder_open_ends_and_nothing_else(
    folder: Path, inside: Process, outside: Process
) -> None:
    with (folder / "ours").open("w"):
        reaper.reap(folder, spare=os.getpid())
    assert inside.wait(5) == -9
    assert outside.poll() is None
    assert not folder.exists()


def test_it_waits_for_its_input_to_close(folder: Path, inside: Process) -> None:
    command = [sys.executable, "-I", "-S", reaper.__file__, str(folder)]
    waiting = subprocess.Popen(command, stdin=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(0.5)
    assert inside.poll() is None
    assert waiting.stdin is not None
    waiting.stdin.close()
    assert waiting.wait(10) == 0
    assert inside.wait(5) == -9
    assert not folder.exists()
