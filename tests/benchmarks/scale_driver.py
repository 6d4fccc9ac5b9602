"""A sweep in a process of its own that watches itself; prints what it saw as one line of JSON.

python -m tests.benchmarks.scale_driver STORAGE SPEC_JSON
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ticketsweep.space import parse_space
from ticketsweep.store.paths import Storage
from ticketsweep.sweep import jobs, runner
from ticketsweep.sweep.search import Search

WARM_UP = 20  # trials, after which all processes have started
TICKS = os.sysconf("SC_CLK_TCK")


def processor_seconds() -> dict[str, float]:
    """Of this process, of the workers below it, and of the rest of Ray."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    names: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            pid = int(folder.name)
            parents[pid], seconds[pid] = int(fields[1]), (int(fields[11]) + int(fields[12])) / TICKS
            names[pid] = (folder / "cmdline").read_bytes().decode(errors="replace")
    below, fresh = set[int](), {os.getpid()}
    while fresh:
        fresh = {pid for pid, parent in parents.items() if parent in fresh} - below
        below |= fresh
    workers = {pid for pid in below if "TrialWorker" in names.get(pid, "")}
    return {
        "driver": time.process_time(),
        "workers": sum(seconds[pid] for pid in workers),
        "ray": sum(seconds[pid] for pid in below - workers),
    }


def resident_kib() -> float:
    """Memory of this process alone, in KiB: what it shares with Ray's object store is not its."""
    fields = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return next(float(words[1]) for words in fields if words[:1] == ["RssAnon:"])


class Watch:
    """An observer that writes down when what happened, and what it had cost by then."""

    def __init__(self) -> None:
        self.begun: dict[str, float] = {}
        self.trials: list[dict[str, float]] = []
        self.memory: list[tuple[int, float]] = []
        self.costs: list[tuple[int, dict[str, float]]] = []
        self.state_bytes = 0

    def phase(self, text: str) -> None:
        if text == "stopping Ray":
            self.costs.append((len(self.trials), processor_seconds()))
            folder = Path(tempfile.gettempdir())
            files = folder.glob("ticketsweep-ray-*/tune/**/*")
            self.state_bytes = sum(file.stat().st_size for file in files if file.is_file())

    def sweep_started(
        self, *, name: str, samples: int, stored: int, concurrency: int, earlier: object
    ) -> None:
        """Nothing is to be written down."""

    def trial_started(self, trial_id: str, config: object, *, host: str) -> None:
        self.begun[trial_id] = time.time()

    def trial_progressed(self, trial_id: str, progress: object) -> None: ...

    def trial_died(self, trial_id: str, reason: str) -> None: ...

    def trial_finished(self, trial_id: str, row: Mapping[str, Any]) -> None:
        self.trials.append(
            {
                "begun": self.begun.pop(trial_id),
                "training": row["started_at"].timestamp(),
                "trained": row["started_at"].timestamp() + row["wall_seconds"],
                "told": time.time(),
            }
        )
        count = len(self.trials)
        if count == WARM_UP:
            self.costs.append((count, processor_seconds()))
        if count % 10 == 0:
            self.memory.append((count, resident_kib()))

    def warn(self, text: str) -> None:
        print(text, file=sys.stderr)


def timed(spent: dict[str, float], owner: Any, name: str) -> None:
    """From now on, add the wall seconds within a function to `spent`."""
    function: Callable[..., Any] = getattr(owner, name)

    def measured(*arguments: Any, **named: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - began

    setattr(owner, name, measured)


if __name__ == "__main__":
    watch, spent = Watch(), dict[str, float]()
    timed(spent, Search, "restore")
    timed(spent, Search, "ask")
    timed(spent, Search, "tell")
    timed(spent, jobs, "reuse_trial")
    runner.run_sweep(
        parse_space(json.loads(sys.argv[2]), source="scale"),
        storage=Storage.open(sys.argv[1], create=True),
        address=None,
        tracking="off",
        observer=watch,
    )
    names = ("trials", "memory", "costs", "state_bytes")
    print(json.dumps({name: getattr(watch, name) for name in names} | {"spent": spent}))
