"""What a dry run says of a run, held against the run itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

SPACES = Path(__file__).parents[2] / "search_spaces"
TICKETSWEEP = [sys.executable, "-c", "from ticketsweep.cli import main; main()"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["quickstart", "lenet_mnist_small"])
def test_a_run_takes_within_a_factor_of_two_what_its_rehearsal_said(
    name: str, tmp_path: Path
) -> None:
    """Of the whole command; once in two goes, since others use the machine too."""

    def line(*more: str) -> tuple[float, str]:
        began = time.perf_counter()
        done = subprocess.run(
            [*TICKETSWEEP, "run", str(SPACES / f"{name}.yaml"), "--format", "json", *more],
            cwd=tmp_path, env={**os.environ, "WANDB_MODE": "off"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return time.perf_counter() - began, done.stdout

    ratios = []
    for samples in ("6", "12"):
        _, told = line("--dry-run", "--samples", samples)
        rehearsed = json.loads(told)
        assert rehearsed["lacking"] == 6
        took, told = line("--samples", samples)
        stored = {each["trial_id"] for each in json.loads(told)["trials"]}
        if samples == "6":  # the first four are drawn by chance alone
            assert {each["trial_id"] for each in rehearsed["drawn"][:4]} <= stored
        ratios.append(rehearsed["seconds"] / took)
        if 0.5 <= ratios[-1] <= 2:
            return
    pytest.fail(f"said / took: {ratios}")
