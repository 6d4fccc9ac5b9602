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

MARK = "TICKETSWEEP_LOCAL_RAY"  # in the environment of all processes of a local Ray: its folder
_ROUNDS = 50  # a tenth of a second each


def reap(folder: Path) -> None:
    """Kill the processes that are marked with this folder, and remove it."""
    for _ in range(_ROUNDS):
        left = _marked(f"{MARK}={folder}".encode())
        if not left:
            break
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


def _marked(setting: bytes) -> list[int]:
    """Processes with this setting in the environment they began with; none where there is no /proc.

    An ended process that nobody has waited for has no environment any more.
    """
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended, or is somebody else's
            if setting in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


if __name__ == "__main__":
    sys.stdin.buffer.read()
    reap(Path(sys.argv[1]))
