"""The Slurm script on one node: `srun` runs what it is given, `scontrol` notes what is asked."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ticketsweep.sweep.reaper import reap

SCRIPT = Path(__file__).parents[2] / "cluster" / "slurm.sh"
# Slurm's own options come before the command, which is a path.
SRUN = """#!/usr/bin/env bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/usr/bin/env bash
if [[ $1 == show ]]; then echo 127.0.0.1; else echo "$@" >> asked; fi
"""
SPACE = """
model: fc-16
weight_scale: {uniform: [1.0, 2.0]}
train: {steps: 40, batch_size: 64}
sweep: {name: s, samples: 1000}
"""


@pytest.fixture
def root() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ts-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def environment(root: Path, **more: str) -> dict[str, str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "SLURM_"))}
    path = f"{root / 'fakes'}:{os.environ['PATH']}"
    return plain | {"PATH": path, "SLURM_SUBMIT_DIR": str(root), **more}


def test_the_script_says_how_it_is_used(root: Path) -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    ended = subprocess.run([str(SCRIPT)], env=environment(root), capture_output=True, text=True)
    assert ended.returncode == 2
    assert "usage: sbatch cluster/slurm.sh" in ended.stderr


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_whose_time_is_up_stops_its_sweep_queues_itself_again_and_leaves_nothing(
    root: Path,
) -> None:
    (root / "fakes").mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (root / "fakes" / name).write_text(text)
        (root / "fakes" / name).chmod(0o755)
    (root / ".venv").symlink_to(Path(sys.prefix))
    (root / "space.yaml").write_text(SPACE)
    number = str(os.getpid())
    job = subprocess.Popen(
        [str(SCRIPT), "run", "space.yaml", "--storage", str(root / "storage"), "--wandb", "off",
         "--set", "sweep.concurrency=3"],
        env=environment(
            root, SLURM_JOB_ID=number, SLURM_JOB_NODELIST="here", SLURM_CPUS_PER_TASK="1",
            SLURM_GPUS_ON_NODE="0", OMP_NUM_THREADS="1",
        ),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        token = root / f".ray-token-{number}"
        until = time.monotonic() + 200
        while not list((root / "storage").glob("trials/*/*.parquet")):
            assert time.monotonic() < until
            assert job.poll() is None
            time.sleep(0.2)
        assert token.stat().st_mode & 0o077 == 0
        secret = token.read_text().strip().encode()
        lines = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                lines.append((process / "cmdline").read_bytes())
        assert not any(secret in line for line in lines)
        job.send_signal(signal.SIGUSR1)
        said, _ = job.communicate(timeout=200)
    finally:
        job.kill()
        reap(Path(f"/tmp/ts-{number}"), spare=os.getpid())
    assert job.returncode == 130, said
    assert "To go on, run the same line again" in said
    # More than its one processor can: an autoscaler would start machines for those that wait.
    assert "trials, 3 at a time" in said, said
    assert (root / "asked").read_text() == f"requeue {number}\n"
    assert not token.exists()
    assert not Path(f"/tmp/ts-{number}").exists()
