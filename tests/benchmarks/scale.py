"""A sweep of very many very short trials: what it costs beyond training, and where that goes.

    uv run python -m tests.benchmarks.scale --trials 2000
    uv run python -m tests.benchmarks.scale --trials 200 --parts sweep resume

Prints tables in Markdown. Wall times need a machine without other work; processor seconds do not.

sweep   throughput, overhead, the driver's memory, files and bytes, over all the trials
resume  how much later than an empty sweep's the first new trial of a sweep with stored ones begins
busy    share of the time in which both of two workers train, over 64 trials of some seconds
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage

PARTS = ("sweep", "resume", "busy")
CONCURRENCY = 2
WARM = 200  # trials, from which on the driver's memory is held to grow evenly
HEAD = "| what | measured | target |\n| --- | --- | --- |"


def tiny(trials: int) -> dict[str, Any]:
    """Trials of two steps, as many to be looked for in a space of three real numbers."""
    return {
        "model": "fc-8",
        "dataset": "digits",
        "weight_scale": {"uniform": [1.0, 2.0]},
        "gate": {"l0_strength": {"loguniform": [0.3, 6]}, "temperature": {"uniform": [0.2, 1.0]}},
        "train": {"steps": 2, "batch_size": 64},
        "replicates": {"init": 2, "data": 1, "gate": 1},
        "sweep": {"name": "scale", "samples": trials, "concurrency": CONCURRENCY},
    }


def longer(trials: int, steps: int) -> dict[str, Any]:
    """Trials of some seconds."""
    return tiny(trials) | {
        "model": "fc-100-50",
        "train": {"steps": steps, "batch_size": 64},
        "replicates": {"init": 2, "data": 2, "gate": 1},
    }


@dataclass(frozen=True)
class Seen:
    """What a driver saw of its own sweep; times in seconds since 1970.

    Attributes
    ----------
    trials: of each in the order of their ends: begun (by the driver's clock), training, trained
        (the worker's), told.
    memory: number of trials so far and KiB of the driver's own memory.
    costs: number of trials so far and processor seconds of driver, workers, and the rest of Ray.
    spent: wall seconds within functions of the driver.
    state_bytes: of Tune's own files.
    """

    trials: list[dict[str, float]]
    memory: list[tuple[int, float]]
    costs: list[tuple[int, dict[str, float]]]
    spent: dict[str, float]
    state_bytes: int

    @property
    def wall(self) -> float:
        return self.trials[-1]["told"] - min(trial["begun"] for trial in self.trials)

    @property
    def trained(self) -> float:
        """Seconds of training, of all workers together."""
        return sum(trial["trained"] - trial["training"] for trial in self.trials)

    def mean(self, first: str, then: str) -> float:
        """Mean seconds between two moments of a trial."""
        return statistics.mean(trial[then] - trial[first] for trial in self.trials)


def watched(space: dict[str, Any], storage: Path) -> Seen:
    """Run a sweep in a process of its own."""
    with short_folder() as temporary:
        driver = [sys.executable, "-m", "tests.benchmarks.scale_driver"]
        done = subprocess.run(
            [*driver, str(storage), json.dumps(space)],
            stdout=subprocess.PIPE, text=True, check=True,
            env=os.environ | {"TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    return Seen(**json.loads(done.stdout.splitlines()[-1]))


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """One with a short name, since Ray's sockets lie below."""
    folder = Path(tempfile.mkdtemp(prefix="sc-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_rows(seen: Seen, storage: Path) -> Iterator[str]:
    """The table of a sweep that has just ended."""
    n, wall = len(seen.trials), seen.wall
    overhead = (CONCURRENCY * wall - seen.trained) / n
    ends = [seen.trials[at]["told"] for at in (0, n // 4, n // 2, 3 * n // 4, n - 1)]
    rates = [n / 4 / (later - earlier) for earlier, later in itertools.pairwise(ends)]
    yield f"| trials, {CONCURRENCY} at once | {n:,} in {wall:.0f} s | none |"
    shown = ", ".join(f"{rate:.1f}" for rate in rates)
    yield f"| trials a second, by quarters | {n / wall:.2f} ({shown}) | none |"
    yield f"| a trial's training | {1e3 * seen.trained / n:.0f} ms | none |"
    yield f"| overhead of a trial beyond it | {overhead:.3f} s | <= 0.3 s |"
    before, after = seen.mean("begun", "training"), seen.mean("trained", "told")
    between = overhead - before - after
    suggested = seen.spent["ask"] + seen.spent["reuse_trial"] + seen.spent["tell"]
    yield f"| of it, in the worker: looking whether it is stored | {1e3 * before:.0f} ms | none |"
    yield f"| storing it, and telling the driver | {1e3 * after:.0f} ms | none |"
    yield f"| between two trials of a worker | {1e3 * between:.0f} ms | none |"
    yield f"| of it, in the driver: the next suggestion | {1e3 * suggested / n:.0f} ms | none |"
    (first, some), (last, all_) = seen.costs[0], seen.costs[-1]
    for name in ("driver", "workers", "ray"):
        seconds = (all_[name] - some[name]) / max(1, last - first)
        yield f"| processor time of a trial, {name} | {1e3 * seconds:.0f} ms | none |"
    yield f"| driver's memory | {growth(seen.memory)} | <= 50 KiB a trial |"
    files = [path for path in storage.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    yield f"| files of the storage | {len(files):,}, {size / n / 1024:.1f} KiB a trial | none |"
    journal = storage / "optuna" / "scale.journal"
    yield f"| Optuna's journal | {journal.stat().st_size / n:.0f} bytes a trial | none |"
    yield f"| Tune's own files, at the end | {seen.state_bytes / 2**20:.2f} MiB | none |"


def growth(memory: list[tuple[int, float]]) -> str:
    """KiB a trial, by a straight line through what was seen from trial `WARM` on."""
    count, kib = np.array([pair for pair in memory if pair[0] >= WARM] or memory).T
    if len(count) < 3:
        return "too few trials"
    slope = np.polyfit(count, kib, 1)[0]
    return f"{slope:.1f} KiB a trial, {kib[-1] / 1024:.0f} MiB in the end"


def resume_rows(swept: Path, stored: int, turns: int) -> Iterator[str]:
    """How long a sweep with so many stored trials, and with fewer, takes to its first new one."""
    counts = sorted({0, stored // 10, stored})
    seconds = {n: [first_trial(swept, n, compacted=False) for _ in range(turns)] for n in counts}
    compacted = [first_trial(swept, stored, compacted=True) for _ in range(turns)]
    empty = statistics.median(seconds[0])
    for n in counts:
        target = "none" if n != stored else "<= 5 s later"
        yield f"| start to first new trial, {n:,} stored | {told(seconds[n], empty)} | {target} |"
    yield f"| the same, {stored:,} compacted | {told(compacted, empty)} | <= 5 s later |"


def told(seconds: list[float], empty: float) -> str:
    median = statistics.median(seconds)
    spread = f"[{min(seconds):.1f}, {max(seconds):.1f}]"
    return f"{median:.1f} s {spread}, {median - empty:+.1f} s (n = {len(seconds)})"


def first_trial(swept: Path, stored: int, *, compacted: bool) -> float:
    """Seconds from the start of `ticketsweep run` to the start of the first trial that it lacks."""
    with short_folder() as folder:
        storage, space = folder / "storage", folder / "space.yaml"
        copy_some(swept, storage, stored)
        space.write_text(json.dumps(tiny(stored + CONCURRENCY)))
        if compacted:
            ticketsweep("masks", "compact", "--storage", str(storage))
        before = known(storage) if stored else {}
        began = time.time()
        ticketsweep(
            "run", str(space), "--storage", str(storage), "--wandb", "off", temporary=folder
        )
        return min(at for trial, at in known(storage).items() if trial not in before) - began


def known(storage: Path) -> dict[str, float]:
    """When each stored trial began."""
    rows = Database(Storage.open(str(storage), create=False)).trials("scale")
    starts = [at.timestamp() for at in rows["started_at"].to_pylist()]
    return dict(zip(rows["trial_id"].to_pylist(), starts, strict=True))


def copy_some(swept: Path, storage: Path, trials: int) -> None:
    """A storage with the first so many trials of another."""
    chosen = {path.name for path in sorted(swept.glob("trials/*/*.parquet"))[:trials]}
    for path in swept.glob("*/sweep=*/*.parquet"):
        if path.name in chosen or (trials and path.name == "sweep.parquet"):
            target = storage / path.relative_to(swept)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)


def ticketsweep(*arguments: str, temporary: Path | None = None) -> None:
    program = str(Path(sys.executable).with_name("ticketsweep"))
    more = {} if temporary is None else {"TMPDIR": str(temporary)}
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, env=os.environ | more
    )
    if done.returncode:
        raise SystemExit(f"ticketsweep {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")


def busy_rows(trials: int, steps: int) -> Iterator[str]:
    with short_folder() as folder:
        seen = watched(longer(trials, steps), folder / "storage")
    share = seen.trained / (CONCURRENCY * seen.wall)
    what = f"{trials} trials of {seen.trained / trials:.1f} s, {CONCURRENCY} at once"
    yield f"| busy share of the workers, {what} | {100 * share:.1f} % | >= 90 % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--turns", type=int, default=3, help="of each resumption")
    parser.add_argument("--busy-trials", type=int, default=64)
    parser.add_argument("--busy-steps", type=int, default=3000, help="of each: some 5 s")
    given = parser.parse_args()
    from tests.benchmarks.__main__ import machine

    print(f"{machine()}\n\n{HEAD}", flush=True)
    with short_folder() as folder:
        storage = folder / "storage"
        if {"sweep", "resume"} & set(given.parts):
            seen = watched(tiny(given.trials), storage)
        if "sweep" in given.parts:
            say(sweep_rows(seen, storage))
        if "resume" in given.parts:
            say(resume_rows(storage, given.trials, given.turns))
    if "busy" in given.parts:
        say(busy_rows(given.busy_trials, given.busy_steps))


def say(rows: Iterator[str]) -> None:
    for row in rows:
        print(row, flush=True)


if __name__ == "__main__":
    main()
