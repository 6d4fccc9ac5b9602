"""Ends what is left of a local Ray. Run as a script, beside a driver: `python reaper.py FOLDER`.

It waits for its standard input to close, which it does however the driver ends. Killed outright, a
driver cannot stop its Ray, and some of Ray's processes take minutes to notice by themselves.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from pathlib import Path

_ROUNDS = 50  # a tenth of a second each


def reap(folder: Path, *, spare: int) -> None:
    """Kill the processes, but for `spare`, that have files of this folder open, as all of Ray's
    have its logs; then remove it.
    """
    for _ in range(_ROUNDS):
        left = _users(folder.resolve()) - {spare}
        if not left:
            break
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


def _users(folder: Path) -> set[int]:
    """Processes with a file below the folder open; none where there is no /proc.

    Ray's processes cannot be told by their command line or environment: they overwrite both.
    """
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or is somebody else's
            if any(_is_below(folder, file) for file in (process / "fd").iterdir()):
                found.add(int(process.name))
    return found


def _is_below(folder: Path, file: Path) -> bool:
    try:
        return folder in file.readlink().parents
    except OSError:  # it has just been closed
        return False


if __name__ == "__main__":
    driver = os.getppid()
    sys.stdin.buffer.read()
    reap(Path(sys.argv[1]), spare=driver)
