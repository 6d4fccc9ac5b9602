"""A driver that tracks trials without training any, to be killed and cut off; tells on stdout.

python tracked.py STORAGE MODE TRACKERS TRIALS [DIE_AFTER]

Each trial has steps 10, 20, … 90; the third has failed, and the second is stopped. DIE_AFTER steps
of the last trial the process kills itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ticketsweep.config import TrialConfig, parse_config
from ticketsweep.progress import Progress
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import MaskRow, TrialRows
from ticketsweep.store.writer import write_trial
from ticketsweep.sweep.tracking import SweepTracking, how_to_upload, tracker, wandb_runs

STEPS = tuple(range(10, 100, 10))
LAYERS = (("fc1", (20, 31)), ("fc2", (10, 20)))
STATUSES = ("complete", "stopped", "failed")


def trial_id(index: int) -> str:
    return f"{index:016x}"


def config_of(index: int) -> TrialConfig:
    return parse_config({"model": "fc-16", "seed": index}, source="test")


def figures(index: int, step: int, replicate: int) -> dict[str, float]:
    rng = np.random.default_rng([index, step, replicate])
    return {
        "loss": float(rng.random()),
        "val_accuracy": float(rng.random()),
        "expected_density": float(rng.random()),
    }


def progress(index: int, step: int) -> Progress:
    each = {replicate: figures(index, step, replicate) for replicate in range(2)}
    means = {name: float(np.mean([of[name] for of in each.values()])) for name in each[0]}
    return Progress(step, STEPS[-1], **means, replicates=each)


def store(storage: Storage, sweep: str, index: int) -> dict[str, Any]:
    """Write the trial; returns its row, as a worker reports it."""
    status, rng = STATUSES[index % 3], np.random.default_rng(index)
    row = {
        "trial_id": trial_id(index),
        "status": status,
        "error": "it diverged" if status == "failed" else None,
        "steps_done": STEPS[-1],
        "config": json.dumps(config_of(index).model_dump(mode="json")),
        "metrics": {"undecided": 0.25, "packs": 1.0},
    }
    masks, curves = [], []
    if status != "failed":
        row |= {"val_accuracy": float(rng.random()), "sparsity": float(rng.random())}
        masks = [
            MaskRow.from_array(
                rng.random(shape) < 0.3, replicate=r, step=90, layer=layer, layer_index=at
            )
            for r in range(2)
            for at, (layer, shape) in enumerate(LAYERS)
        ]
        curves = [
            {"replicate": r, "step": step, **figures(index, step, r)}
            for step in STEPS
            for r in range(2)
        ]
    own = [{"replicate": r} for r in range(2)]
    write_trial(storage, sweep, TrialRows(row, own, masks, curves))
    return row


def track(tracking: SweepTracking, storage: Storage, sweep: str, index: int) -> None:
    """All of a trial."""
    tracking.begin(trial_id(index), config_of(index))
    for step in STEPS:
        tracking.log(trial_id(index), progress(index, step))
    tracking.finish(trial_id(index), store(storage, sweep, index))


def main(root: str, mode: Any, trackers: str, trials: int, die_after: int | None) -> None:
    storage = Storage.open(root, create=True)
    stored = Database(storage).trials("s").to_pylist()
    done = {row["trial_id"] for row in stored}
    with tracker(
        *("s", trackers.split(",")),
        mode=mode,
        storage=storage,
        objectives={"val_accuracy": "max", "sparsity": "max"},
        stored=stored,
        warn=lambda text: print("warning", text, flush=True),
    ) as tracking:
        began = time.monotonic()
        for index in range(trials):
            if trial_id(index) in done:
                continue
            if die_after is None or index < trials - 1:
                track(tracking, storage, "s", index)
                continue
            tracking.begin(trial_id(index), config_of(index))
            for step in STEPS[:die_after]:
                tracking.log(trial_id(index), progress(index, step))
            files = f"tracking/wandb/*run-*-s-{trial_id(index)}/*.wandb"
            while not any(path.stat().st_size > 5000 for path in Path(root).glob(files)):
                time.sleep(0.1)  # W&B has begun to write the run
            time.sleep(2)
            os.kill(os.getpid(), signal.SIGKILL)
        print("told", time.monotonic() - began, flush=True)
    print("closed", time.monotonic() - began)
    print("upload", how_to_upload(storage, "s"))


if __name__ == "__main__":
    # For a server on the same machine; a tenth of the usual patience makes the tests short.
    wandb_runs._SECONDS_TO_START, wandb_runs._SECONDS_TO_UPLOAD = 6.0, 4.0
    given = sys.argv[1:]
    main(given[0], given[1], given[2], int(given[3]), int(given[4]) if given[4:] else None)
