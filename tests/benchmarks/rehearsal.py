"""What a dry run says of a run's time, held against the run itself.

python -m tests.benchmarks.rehearsal [--turns 3]

Prints a table in Markdown; the target is within a factor of two, on a machine without other work.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SPACES = Path(__file__).parents[2] / "search_spaces"
TICKETSWEEP = [sys.executable, "-c", "from ticketsweep.cli import main; main()"]


def line(folder: str, space: str, *more: str) -> tuple[float, str]:
    """Wall seconds of `ticketsweep run SPACE …`, and what it says."""
    began = time.perf_counter()
    done = subprocess.run(
        [*TICKETSWEEP, "run", str(SPACES / f"{space}.yaml"), "--format", "json", *more],
        cwd=folder,
        env={**os.environ, "WANDB_MODE": "off"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return time.perf_counter() - began, done.stdout


def main() -> None:
    """Each space in turn, in a storage of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--spaces", nargs="*", default=["quickstart", "lenet_mnist_small"])
    given = parser.parse_args()
    print("| space | said, s | took, s | said / took [lowest, highest] | dry run took, s | n |")
    print("| --- " * 6 + "|", flush=True)
    for space in given.spaces:
        said, took, rehearsed = [], [], []
        for _ in range(given.turns):
            with tempfile.TemporaryDirectory() as folder:
                seconds, told = line(folder, space, "--dry-run")
                rehearsed.append(seconds)
                said.append(float(json.loads(told)["seconds"]))
                took.append(line(folder, space)[0])
        ratios = [s / t for s, t in zip(said, took, strict=True)]
        medians = [statistics.median(values) for values in (said, took, ratios, rehearsed)]
        print(
            f"| {space} | {medians[0]:.3g} | {medians[1]:.3g} "
            f"| {medians[2]:.2f} [{min(ratios):.2f}, {max(ratios):.2f}] | {medians[3]:.3g} "
            f"| {given.turns} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
