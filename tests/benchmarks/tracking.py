"""What tracking costs the driver for each trial, with the network as it is and with none.

    uv run python -m tests.benchmarks.tracking --trials 20

Trials are told as workers tell them, one a second, without being trained. `told` is the time for
which the driver's main thread waits, `CPU` what all threads of the driver compute, as a share of a
trial of 60 s too, both without what it takes to make up and store the trials. W&B's own process is
not in it. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.sweep.tracked import STEPS, config_of, progress, store, trial_id
from ticketsweep.store.paths import Storage
from ticketsweep.sweep.tracking import tracker

TRIAL_SECONDS = 60.0
PAUSE = 1.0  # seconds between trials, in which trackers write what they were told
CASES = (
    ("nothing", ""),
    ("W&B, offline", "wandb"),
    ("W&B, online, no answer", "wandb"),
    ("TensorBoard", "tensorboard"),
    ("JSON lines", "jsonl"),
)


def measure(name: str, trackers: str, trials: int) -> None:
    """In a process of its own: prints the seconds of each trial, then CPU and closing."""
    with tempfile.TemporaryDirectory() as root:
        storage = Storage.open(root, create=True)
        mode = "online" if "online" in name else "offline"
        told = []
        with tracker(
            *("s", trackers.split(",")),
            mode=mode,
            storage=storage,
            objectives={"val_accuracy": "max"},
            stored=[],
            warn=lambda text: print(text, file=sys.stderr),
        ) as tracking:
            for index in range(trials + 1):
                row = store(storage, "s", index)
                if index == 1:  # the first one starts what there is to start
                    computed = time.process_time()
                began = time.perf_counter()
                tracking.begin(trial_id(index), config_of(index))
                for step in STEPS:
                    tracking.log(trial_id(index), progress(index, step))
                tracking.finish(trial_id(index), row)
                told.append(time.perf_counter() - began)
                time.sleep(8 if index == 0 else PAUSE)
            computed = time.process_time() - computed
            began = time.perf_counter()
        closing = time.perf_counter() - began
        print(*told[1:], computed, closing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--case", type=int)
    given = parser.parse_args()
    if given.case is not None:
        return measure(*CASES[given.case], given.trials)
    print("| tracker | told, s a trial [spread] | CPU, s a trial | of 60 s | closing, s | n |")
    print("| --- | --- | --- | --- | --- | --- |")
    with socket.create_server(("127.0.0.1", 0)) as hole:  # takes connections and never answers
        url = f"http://127.0.0.1:{hole.getsockname()[1]}"
        known = {name: at for name, at in os.environ.items() if not name.startswith("WANDB_")}
        known |= {"WANDB_BASE_URL": url, "WANDB_API_KEY": "0" * 40, "NETRC": "/nowhere"}
        bare = 0.0
        for case, (name, _) in enumerate(CASES):
            line = [sys.executable, "-m", "tests.benchmarks.tracking", "--case", str(case)]
            line += ["--trials", str(given.trials)]
            root = Path(__file__).parents[2]
            done = subprocess.run(line, env=known, cwd=root, stdout=subprocess.PIPE, check=True)
            *told, computed, closing = map(float, done.stdout.split())
            each = computed / given.trials
            if case == 0:
                bare = each  # what it takes to store the trials and to make up their figures
            cost = each - bare
            print(
                f"| {name} | {statistics.median(told):.4f} [{min(told):.4f}, {max(told):.4f}] "
                f"| {cost:.3f} | {cost / TRIAL_SECONDS:.2%} | {closing:.1f} | {given.trials} |",
                flush=True,
            )
    return None


if __name__ == "__main__":
    main()
