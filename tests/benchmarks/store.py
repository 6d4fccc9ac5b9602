"""The mask database's figures: sizes, speeds and what queries cost, on generated trials.

    uv run python -m tests.benchmarks.store                     all of them
    uv run python -m tests.benchmarks.store sizes write         some
    uv run python -m tests.benchmarks.store many --trials 1000 --folder /tmp/many

Masks are drawn at random with a given density, which nothing can pack below their entropy. Files
are those of the product, byte for byte; of `many`, they are written without waiting for the disk.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from ticketsweep.store.compaction import compact
from ticketsweep.store.database import Database
from ticketsweep.store.encoding import encode
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import TRIAL_TABLES, MaskRow, TrialRows, arrow_table
from ticketsweep.store.verify import verify
from ticketsweep.store.writer import write_trial

LENET = (("fc1.weight", (300, 784)), ("fc2.weight", (100, 300)), ("fc3.weight", (10, 100)))
LARGE = tuple(
    (f"layer{i}.weight", shape)
    for i, shape in enumerate([(512, 512, 3, 3)] * 9 + [(1024, 1024)] * 3 + [(1000, 512)])
)  # 24.9 million gates
DENSITIES = {0.5: 1.03, 0.2: 1.05, 0.1: 1.08, 0.05: 1.12, 0.02: 1.3}  # and the target
ASK = """
import sys, time
import ticketsweep.store.sql, ticketsweep.store.catalogue, pyarrow.dataset
from ticketsweep.store.database import open_database
start, cpu = time.perf_counter(), time.process_time()
database = open_database(sys.argv[1])
rows = database.sql("select trial_id, replicate, kept from masks "
                    "where layer = 'fc1.weight' and sparsity > 0.95")
print(time.perf_counter() - start, time.process_time() - cpu, len(rows), len(database.crowded))
"""


def entropy(density: float) -> float:
    return -(density * math.log2(density) + (1 - density) * math.log2(1 - density))


def a_trial(
    trial_id: str, density: float, layers: tuple[tuple[str, tuple[int, ...]], ...], *,
    replicates: int, seed: int,
) -> TrialRows:  # fmt: skip
    rng = np.random.default_rng(seed)
    masks = []
    for replicate in range(replicates):
        for index, (layer, shape) in enumerate(layers):
            draws = rng.integers(0, 1 << 16, size=shape, dtype=np.uint16)
            mask = draws < round(density * (1 << 16))
            row = MaskRow.from_array(
                mask, replicate=replicate, step=100, layer=layer, layer_index=index
            )
            masks.append(row)
    steps = range(0, 100, 10)
    trial = {
        "trial_id": trial_id, "status": "complete", "steps_done": 100, "model": "lenet-300-100",
        "dataset": "mnist", "gate_family": "gaussian", "l0_strength": float(rng.random()),
        "val_accuracy": float(rng.random()), "density": density, "sparsity": 1 - density,
        "stability": float(rng.random()), "metrics": {f"figure_{i}": 0.5 for i in range(10)},
        "started_at": datetime.now(UTC), "host": "host", "device": "cpu",
        "error": None, "wall_seconds": 10.0,
    }  # fmt: skip
    own = [
        {
            "replicate": r, "init_seed": int(rng.integers(1 << 50)), "density": density,
            "val_accuracy": 0.9, "strong_accuracy": 0.9, "sparsity": 1 - density,
        }
        for r in range(replicates)
    ]  # fmt: skip
    curves = [
        {"replicate": r, "step": step, "loss": float(rng.random()), "val_accuracy": 0.5}
        for r in range(replicates)
        for step in steps
    ]
    return TrialRows(trial, own, masks, curves)


def generate(storage: Storage, sweep: str, trials: int) -> None:
    """Trials of four LeNets with files of their own, of densities from 0.5 down to 0.02."""
    for table in TRIAL_TABLES:
        Path(storage.trial_file(table, sweep, "x")).parent.mkdir(parents=True, exist_ok=True)
    for number in range(trials):
        density = 0.5 * 0.04 ** (((number * 7919) % trials) / trials)
        trial_id = f"{number:032x}"
        rows = a_trial(trial_id, density, LENET, replicates=4, seed=number)
        of = {"sweep": sweep, "trial_id": trial_id}
        tables = {
            "masks": arrow_table("masks", (mask.row() for mask in rows.masks), **of),
            "replicates": arrow_table("replicates", rows.replicates, **of),
            "curves": arrow_table("curves", rows.curves, **of),
            "trials": arrow_table("trials", [rows.trial], **of),
        }
        for table, content in tables.items():
            status = "complete" if table == "trials" else None
            path = Path(storage.trial_file(table, sweep, trial_id))
            path.write_bytes(memoryview(encode(table, content, status=status)))


def forget(folder: Path) -> None:
    """Have the operating system drop what it holds of these files in memory."""
    os.sync()
    for path in folder.rglob("*.parquet"):
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def row(what: str, target: str, values: list[float], unit: str) -> str:
    spread = f" [{min(values):.3g}, {max(values):.3g}]" if len(values) > 1 else ""
    return f"| {what} | {target} | {statistics.median(values):.3g}{spread} {unit} | {len(values)} |"


def bench_sizes(options: argparse.Namespace) -> Iterator[str]:
    for name, layers, trials in (("LeNet-300-100", LENET, 40), ("25 million gates", LARGE, 1)):
        for density, target in DENSITIES.items():
            with tempfile.TemporaryDirectory() as folder:
                storage = Storage.open(folder, create=True)
                for n in range(trials):
                    rows = a_trial(f"t{n}", density, layers, replicates=4, seed=n)
                    write_trial(storage, "a", rows)
                gates = sum(mask.size for mask in rows.masks) * trials
                least = entropy(density) * gates / 8
                first = sum(file.size for file in storage.files("masks"))
                start = time.perf_counter()
                compact(storage, "a", report=lambda done, total: None)
                speed = gates / 8e6 / (time.perf_counter() - start)
                packed = sum(file.size for file in storage.files("masks"))
            of = f"masks of {name}, density {density}"
            yield row(f"{of}: first write / entropy", "<= 1.7", [first / least], "")
            yield row(f"{of}: compacted / entropy", f"<= {target}", [packed / least], "")
            yield row(f"{of}: compaction, packed bits", "none", [speed], "MB/s")


def bench_write(options: argparse.Namespace) -> Iterator[str]:
    for density in DENSITIES:
        rows = a_trial("t", density, LARGE, replicates=8, seed=0)
        megabytes = sum(len(mask.bits) for mask in rows.masks) / 1e6
        speeds = []
        with tempfile.TemporaryDirectory() as folder:
            storage = Storage.open(folder, create=True)
            for turn in range(options.turns + 1):
                trial = {**rows.trial, "trial_id": f"t{turn}"}
                start = time.perf_counter()
                write_trial(
                    storage, "a", TrialRows(trial, rows.replicates, rows.masks, rows.curves)
                )
                speeds.append(megabytes / (time.perf_counter() - start))
        what = f"write_trial, 8 x 25 million gates ({megabytes:.0f} MB packed), density {density}"
        yield row(what, ">= 100 MB/s", speeds[1:], "MB/s")


def bench_many(options: argparse.Namespace) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        made = not (folder / "trials").is_dir()
        storage = Storage.open(str(folder), create=True)
        if made:
            start = time.perf_counter()
            generate(storage, "many", options.trials)
            print(f"generated in {time.perf_counter() - start:.0f} s", file=sys.stderr)
        trials = f"{options.trials:,} trials x 4 replicates x 3 layers"
        query = "`select … where layer = … and sparsity > 0.95`, cold"
        if len(storage.files("trials")) >= options.trials:
            seconds = [cold_query(folder) for _ in range(options.turns)]
            yield row(f"{trials}, single files: {query}", "<= 10 s", seconds, "s")
            start = time.perf_counter()
            done = compact(storage, "many", report=lambda done, total: None)
            yield row(f"{trials}: compaction", "none", [time.perf_counter() - start], "s")
            files = f"{done.files_before} -> {done.files_after} files"
            size = f"{done.bytes_before / 1e6:.0f} -> {done.bytes_after / 1e6:.0f} MB"
            print(files, size, sep=", ", file=sys.stderr)
        seconds = [cold_query(folder) for _ in range(options.turns)]
        yield row(f"{trials}, compacted: {query}", "<= 1 s", seconds, "s")
        yield from verification(storage, folder, f"{trials}, compacted", options.turns)


def cold_query(folder: Path) -> float:
    """Seconds beyond imports, in a process of its own, with nothing in the file cache."""
    forget(folder)
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(folder)], capture_output=True, text=True, check=True
    )
    seconds, cpu, rows, crowded = done.stdout.split()
    told = f"{rows} rows in {seconds} s, {cpu} s of CPU, crowded: {crowded}"
    print(told, file=sys.stderr)
    return float(seconds)


def verification(storage: Storage, folder: Path, what: str, turns: int) -> Iterator[str]:
    speeds, stored = [], 0.0
    for _ in range(turns):
        forget(folder)
        start = time.perf_counter()
        found = verify(storage, report=lambda done, total: None)
        speeds.append(found.bytes / 1e6 / (time.perf_counter() - start))
        stored = found.bytes / 1e6
        assert found.sound
    rows = Database(storage).masks(columns=["size"])
    bits = sum(rows["size"].to_pylist()) / 8e6
    size = f"{stored:,.0f} MB stored, {bits:,.0f} MB of bits"
    yield row(f"`masks verify`, {what} ({size})", "disk or hash", speeds, "MB/s stored")
    scaled = [speed * bits / stored for speed in speeds]
    yield row(f"`masks verify`, {what}, of bits", "disk or hash", scaled, "MB/s of bits")


BENCHMARKS: dict[str, Callable[[argparse.Namespace], Iterator[str]]] = {
    "sizes": bench_sizes,
    "write": bench_write,
    "many": bench_many,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--trials", type=int, default=10_000, help="of `many`")
    parser.add_argument("--folder", help="where `many` lies; kept, and used again")
    options = parser.parse_args()
    print("| what | target | median [lowest, highest] | n |")
    print("| --- | --- | --- | --- |")
    for name in options.names or BENCHMARKS:
        for line in BENCHMARKS[name](options):
            print(line, flush=True)


if __name__ == "__main__":
    main()
