"""Run by test_atomicity.py: some writes, each killed at every file operation in turn.

    python killed_writer.py FOLDER

brings a storage to a scenario's first state, copies it to FOLDER/SCENARIO/0, 1, … and has a process
die (SIGKILL) at the n-th operation of the write that follows, until a write lives to its end.
No thread of Arrow's runs in the process that forks.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from ticketsweep.store.paths import Storage
from ticketsweep.store.writer import copy_trial, write_trial

spec = importlib.util.spec_from_file_location("conftest", Path(__file__).with_name("conftest.py"))
conftest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(conftest)
make_trial = conftest.make_trial

# The process dies once at each of these: all that changes what lies on the disk is between two.
POINTS = {("c_call", "write"), ("c_call", "replace"), ("c_return", "replace"), ("return", "remove")}

Step = Callable[[Storage], None]


def writing(status: str, seed: int, sweep: str = "a") -> Step:
    return lambda storage: write_trial(storage, sweep, make_trial(status=status, seed=seed))


def copying(storage: Storage) -> None:
    copy_trial(storage, "t0", "source", "a", search="{}")


# what is there before, and the write that is killed
SCENARIOS: dict[str, tuple[list[Step], Step]] = {
    "new": ([], writing("complete", 1)),
    "failed-complete": ([writing("failed", 0)], writing("complete", 1)),
    "stopped-complete": ([writing("stopped", 0)], writing("complete", 1)),
    "stopped-failed": ([writing("stopped", 0)], writing("failed", 1)),
    "copy": ([writing("complete", 1, "source")], copying),
}


def in_a_process(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(error, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def dying_at(point: int, work: Callable[[], None]) -> None:
    passed = 0

    def watch(frame: FrameType, event: str, argument: object) -> None:
        nonlocal passed
        called = frame.f_code.co_name if event == "return" else getattr(argument, "__name__", "")
        if (event, called) in POINTS:
            passed += 1
            if passed == point:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(watch)
    work()
    sys.setprofile(None)


def kill_everywhere(folder: Path, before: list[Step], write: Step) -> None:
    first = folder / "before"

    def prepare() -> None:
        storage = Storage.open(str(first), create=True)
        for step in before:
            step(storage)

    if in_a_process(prepare) != 0:
        sys.exit("the first state was not reached")
    for point in range(1, 1000):
        copy = folder / str(point - 1)
        shutil.copytree(first, copy)

        def killed(copy: Path = copy, point: int = point) -> None:
            storage = Storage.open(str(copy), create=False)
            dying_at(point, lambda: write(storage))

        code = in_a_process(killed)
        if code == 0:
            return
        if code != -signal.SIGKILL:
            sys.exit("the write failed")
    sys.exit("the write has no end")


if __name__ == "__main__":
    for name, (before, write) in SCENARIOS.items():
        kill_everywhere(Path(sys.argv[1]) / name, before, write)
