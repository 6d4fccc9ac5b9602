"""Every speed figure that the project claims, as ratios measured in one run.

    uv run python -m tests.benchmarks            all of them
    uv run python -m tests.benchmarks help loop  some

Ours and the other take turns, after one uncounted turn each where that is cheap; the ratio is that
of the medians, and the spread is the lowest and the highest ratio of neighbours.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.cases import Case

HERE = Path(__file__).parent
HEAD = """| what | against | ours | other | ratio [lowest, highest] | target | n |
| --- | --- | --- | --- | --- | --- | --- |"""


def _seconds(values: list[float]) -> str:
    median = statistics.median(values)
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if median >= size:
            return f"{median / size:.3g} {unit}"
    return f"{median * 1e6:.3g} µs"


def _bytes(values: list[float]) -> str:
    return f"{statistics.median(values) / 2**20:.3g} MiB"


@dataclass(frozen=True)
class Comparison:
    """Figures of ours and of the other, turn by turn."""

    what: str
    against: str
    target: str
    ours: list[float]
    other: list[float]
    written: Callable[[list[float]], str] = _seconds

    def row(self) -> str:
        pairs = [o / t for o, t in zip(self.ours, self.other, strict=True)]
        ratio = statistics.median(self.ours) / statistics.median(self.other)
        return (
            f"| {self.what} | {self.against} "
            f"| {self.written(self.ours)} | {self.written(self.other)} "
            f"| {ratio:.3g} [{min(pairs):.3g}, {max(pairs):.3g}] | {self.target} "
            f"| {len(self.ours)} |"
        )


def in_turn(
    what: str, against: str, target: str, *, ours: Callable[[], float], other: Callable[[], float],
    turns: int, warm_up: bool,
) -> Comparison:  # fmt: skip
    if warm_up:
        ours(), other()
    pairs = [(ours(), other()) for _ in range(turns)]
    return Comparison(what, against, target, [o for o, _ in pairs], [t for _, t in pairs])


def command(*arguments: str) -> float:
    """Wall seconds of a command, which must succeed."""
    began = time.perf_counter()
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")
    return seconds


def ticketsweep(*arguments: str) -> float:
    return command(str(Path(sys.executable).with_name("ticketsweep")), *arguments)


def bench_help(turns: int) -> list[Comparison]:
    return [
        in_turn(
            "`ticketsweep --help`", "`python -c pass`", "ours under 0.5 s",
            ours=lambda: ticketsweep("--help"),
            other=lambda: command(sys.executable, "-c", "pass"),
            turns=max(turns, 9), warm_up=True,
        )
    ]  # fmt: skip


def bench_loop(turns: int) -> list[Comparison]:
    from tests.benchmarks.bare_loop import bare_seconds, cases, trial_seconds

    return [
        in_turn(
            f"a step of a trial's training loop, {case.name}", "a bare loop", "<= 1.10",
            ours=lambda case=case: trial_seconds(case),
            other=lambda case=case: bare_seconds(case),
            turns=turns, warm_up=True,
        )
        for case in cases()
    ]  # fmt: skip


def bench_sweep(turns: int) -> list[Comparison]:
    def ours() -> float:
        with tempfile.TemporaryDirectory() as folder:
            space = str(HERE / "digits_sweep.yaml")
            return ticketsweep("run", space, "--storage", folder, "--wandb", "off")

    def plain(*options: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            script = str(HERE / "plain_tune.py")
            return command(sys.executable, script, "--folder", folder, *options)

    what = "sweep of 8 trials x 8 digits replicates, whole command"
    return [
        in_turn(what, "plain Ray Tune, 64 one-seed trials", "<= 1/12 = 0.083",
                ours=ours, other=plain, turns=turns, warm_up=False),
        in_turn(what, "the same script with reused actors", "<= 1/1.5 = 0.667",
                ours=ours, other=lambda: plain("--reuse-actors"), turns=turns, warm_up=False),
    ]  # fmt: skip


def bench_steps(turns: int) -> Iterator[Comparison]:
    from tests.benchmarks.steps import step_cases

    return (of_case(case, max(turns, 7)) for case in step_cases())


def bench_packs(turns: int) -> Iterator[Comparison]:
    from tests.benchmarks.steps import pack_cases

    return (of_case(case, max(turns, 7)) for case in pack_cases())


def bench_pairs(turns: int) -> Iterator[Comparison]:
    from tests.benchmarks.pairs import comparisons

    return (of_case(case, turns) for case in comparisons())


def of_case(case: Case, turns: int) -> Comparison:
    return in_turn(
        case.what, case.against, case.target, ours=case.ours, other=case.other, turns=turns,
        warm_up=True,
    )  # fmt: skip


def bench_memory(turns: int) -> Iterator[Comparison]:
    from tests.benchmarks.steps import memory_ratio

    for name, shape, size, replicates in (
        ("lenet-300-100", (1, 28, 28), 128, 18),
        ("resnet-20", (3, 32, 32), 64, 6),
    ):
        pairs = [memory_ratio(name, shape, size, replicates) for _ in range(turns)]
        yield Comparison(
            f"memory of a replicate in a pack of {replicates}, {name}, batch {size}",
            "what must be there, counted", "<= 1.3",
            [ours for ours, _ in pairs], [other for _, other in pairs], _bytes,
        )  # fmt: skip


BENCHMARKS: dict[str, Callable[[int], Iterable[Comparison]]] = {
    "help": bench_help,
    "steps": bench_steps,
    "packs": bench_packs,
    "memory": bench_memory,
    "pairs": bench_pairs,
    "loop": bench_loop,
    "sweep": bench_sweep,
}


def machine() -> str:
    import ray
    import torch

    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}, ray {ray.__version__}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    # Ray would set up a second environment under `uv run`.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    print(f"{machine()}\n")
    print(HEAD)
    for name in options.names or BENCHMARKS:
        for comparison in BENCHMARKS[name](options.turns):
            print(comparison.row(), flush=True)


if __name__ == "__main__":
    main()
