"""Run by test_compaction_kills.py: a compaction, killed at every file operation in turn.

python killed_compaction.py FOLDER          FOLDER/0, 1, … as killed_writer.py makes them
python killed_compaction.py endless URI     compacts the sweep a until it is killed
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from ticketsweep.store.compaction import compact
from ticketsweep.store.paths import Storage
from ticketsweep.store.writer import write_trial


def beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def merge(storage: Storage) -> None:
    compact(storage, "a", report=lambda done, total: None)


def writing(trial_id: str, seed: int, status: str = "complete"):
    make_trial = beside("conftest").make_trial
    rows = make_trial(trial_id, status=status, seed=seed)
    return lambda storage: write_trial(storage, "a", rows)


if __name__ == "__main__":
    if sys.argv[1] == "endless":
        while True:
            merge(Storage.open(sys.argv[2], create=False))
            print("merged", flush=True)
    # A part, trials of their own, and one that nobody may merge.
    before = [writing("t0", 0), merge, writing("t1", 1), writing("s0", 2, "stopped")]
    beside("killed_writer").kill_everywhere(Path(sys.argv[1]), before, merge)
