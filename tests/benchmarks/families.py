"""Every gate family on LeNet-300-100 and MNIST, tuned alike, then compared on fresh seeds.

    uv run python -m tests.benchmarks.families --data-root DIR --storage DIR

For each family and density the same number of random settings is tried for the same number of
steps on one init seed; the best on the validation split is run again, longer, with four fresh init
seeds and controls, and at one density retrained. All is stored, so the same line goes on where it
stopped. Prints the table in Markdown; the test split is looked at for it alone.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import multiprocessing
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DENSITIES = (0.2, 0.1, 0.05, 0.02)
RETRAINED = 0.1  # the density whose tickets are retrained, beside the dense network
FRESH = 1  # root of the seeds of the table; tuning has 0
FAMILIES = ("gaussian", "hard_concrete", "sigmoid", "edge_popup", "magnitude", "random")
ROUNDS = 5  # of magnitude pruning


@dataclass(frozen=True)
class Task:
    """A trial's settings, and what of the table it belongs to."""

    family: str
    density: float
    settings: Mapping[str, Any]


def log_uniform(rng: random.Random, low: float, high: float) -> float:
    return float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.3g}")


def gate_of(family: str, density: float, rng: random.Random) -> dict[str, Any]:
    """A family's gate, steered to the density, with what it has of its own drawn at random."""
    gate: dict[str, Any] = {"family": family}
    if family in ("edge_popup", "random"):
        return gate | {"density": density}
    if family == "magnitude":
        return gate | {"rounds": ROUNDS, "share": round(1 - density ** (1 / ROUNDS), 4)}
    gate |= {"target_density": density}
    if family == "gaussian":
        return gate | {
            "temperature": round(rng.uniform(0.4, 1.0), 2),
            "temperature_end": log_uniform(rng, 0.04, 0.15),
        }
    if family == "sigmoid":
        return gate | {"temperature_end": log_uniform(rng, 0.003, 0.05)}
    return gate | {"temperature": round(rng.uniform(0.4, 0.9), 2)}


LEARNING_RATES = {  # of magnitude and random, none is used
    "gaussian": (0.01, 0.1),
    "hard_concrete": (0.03, 0.3),
    "sigmoid": (0.01, 0.1),
    "edge_popup": (0.003, 0.03),
    "magnitude": (0.01, 0.1),
    "random": (0.01, 0.1),
}


def draws(family: str, density: float, count: int, steps: int) -> Iterator[dict[str, Any]]:
    """Random settings for a family at a density: the same count, steps and ranges of scale."""
    rng = random.Random(f"{family} {density}")
    for _ in range(count):
        yield {
            "gate": gate_of(family, density, rng),
            "weight_scale": round(rng.uniform(1.0, 1.3 / math.sqrt(density)), 2),
            "pretrain": {"lr": log_uniform(rng, 3e-4, 1e-2)},
            "train": {
                "steps": steps,
                "batch_size": 256,
                "lr": log_uniform(rng, *LEARNING_RATES[family]),
            },
        }


@functools.cache
def mnist(data_root: str) -> Any:
    """MNIST, once in each process."""
    from ticketsweep.train.data import load_dataset

    return load_dataset("mnist", data_root=Path(data_root))


def run(task: Task, *, data_root: str, storage: str, sweep: str) -> dict[str, Any]:
    import torch

    from ticketsweep.config import parse_config
    from ticketsweep.store.paths import Storage
    from ticketsweep.trial import run_trial

    torch.set_num_threads(1)
    raw = {
        "model": "lenet-300-100",
        "dataset": "mnist",
        "data_root": data_root,
        "weight_init": "signed_constant",
        **task.settings,
    }
    config = parse_config(raw, source="families")
    place = Storage.open(storage, create=True)
    trial = run_trial(config, dataset=mnist(data_root), storage=place, sweep=sweep)
    while True:
        try:
            next(trial)
        except StopIteration as stop:
            return dict(stop.value.row)


def _run(job: tuple[Task, dict[str, str]]) -> tuple[Task, dict[str, Any]]:
    task, where = job
    return task, run(task, **where)


def tuned(results: Sequence[tuple[Task, Mapping[str, Any]]]) -> dict[tuple[str, float], Task]:
    """The best task on the validation split for each family and density."""
    best: dict[tuple[str, float], tuple[float, Task]] = {}
    for task, row in results:
        if row["status"] != "complete" or abs(row["density"] / task.density - 1) > 0.05:
            continue
        key = (task.family, task.density)
        if key not in best or row["val_accuracy"] > best[key][0]:
            best[key] = (row["val_accuracy"], task)
    return {key: task for key, (_, task) in best.items()}


def in_parallel(
    tasks: Sequence[Task], where: dict[str, str], processes: int
) -> list[tuple[Task, dict[str, Any]]]:
    context = multiprocessing.get_context("spawn")
    results = []
    with context.Pool(processes) as pool:
        jobs = [(task, where) for task in tasks]
        for number, result in enumerate(pool.imap_unordered(_run, jobs), start=1):
            results.append(result)
            task, row = result
            print(
                f"{where['sweep']} {number}/{len(tasks)}: {task.family} at {task.density:g}: "
                f"{row['status']} {100 * (row['val_accuracy'] or 0):.2f} % at "
                f"{100 * (row['sparsity'] or 0):.2f} % ({row['wall_seconds']:.0f} s)",
                flush=True,
            )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", required=True)
    parser.add_argument("--storage", required=True)
    parser.add_argument("--draws", type=int, default=4, help="settings a family and density")
    parser.add_argument("--steps", type=int, default=1000, help="of tuning")
    parser.add_argument("--final-steps", type=int, default=2000)
    parser.add_argument("--retrain-steps", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    where = {"data_root": given.data_root, "storage": given.storage}
    one = {"replicates": {"init": 1, "data": 1, "gate": 1}}
    tasks = [
        Task(family, density, settings | one)
        for family, density in itertools.product(FAMILIES, DENSITIES)
        for settings in draws(family, density, given.draws, given.steps)
    ]
    results = in_parallel(tasks, where | {"sweep": "families-tuning"}, given.processes)
    fresh = {
        "seed": FRESH,
        "replicates": {"init": 4, "data": 1, "gate": 1},
        "controls": ["shuffled_mask", "reinitialized"],
    }
    final = []
    for task in tuned(results).values():
        longer = {"train": {**task.settings["train"], "steps": given.final_steps}}
        if task.density == RETRAINED:
            longer["retrain"] = {"steps": given.retrain_steps}
        final.append(Task(task.family, task.density, {**task.settings, **fresh, **longer}))
    rows = in_parallel(final, where | {"sweep": "families"}, given.processes)
    print(table(rows, given.storage))


def table(rows: Sequence[tuple[Task, Mapping[str, Any]]], storage: str) -> str:
    """One row a family and density; means over the init seeds with a 95 % interval."""
    import statistics

    from scipy import stats

    from ticketsweep.store.database import open_database

    database = open_database(storage)
    replicates = database.replicates(sweep="families").to_pylist()
    lines = [
        "| sparsity % | family | ticket % | retrained % | dense % | shuffled mask % "
        "| weights drawn afresh % | settings | s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    order = sorted(rows, key=lambda item: (-item[0].density, FAMILIES.index(item[0].family)))
    for task, row in order:
        own = [r for r in replicates if r["trial_id"] == row["trial_id"]]

        def figure(name: str, own: Sequence[Mapping[str, Any]] = own) -> str:
            values = [100 * r[name] for r in own if r[name] is not None]
            if len(values) < 2:
                return "–"
            half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values)
            return f"{statistics.mean(values):.2f} ± {half / math.sqrt(len(values)):.2f}"

        settings = {
            "scale": task.settings["weight_scale"],
            "lr": (task.settings["pretrain"] if task.family == "magnitude"
                   else task.settings["train"])["lr"],
            **{k: v for k, v in task.settings["gate"].items() if k.startswith("temperature")},
        }  # fmt: skip
        lines.append(
            f"| {100 * row['sparsity']:.2f} | `{task.family}` | {figure('strong_accuracy')} "
            f"| {figure('retrained_accuracy')} | {figure('dense_accuracy')} "
            f"| {figure('shuffled_mask_accuracy')} | {figure('reinitialized_accuracy')} "
            f"| {', '.join(f'{k} {v:g}' for k, v in settings.items())} "
            f"| {row['wall_seconds']:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
