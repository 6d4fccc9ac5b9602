"""What a dry run says of a run, held against the run itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SPACES = Path(__file__).parents[2] / "search_spaces"
TICKETSWEEP = [sys.executable, "-c", "from ticketsweep.cli import main; main()"]


@pytest.mark.exhaustive
def test_a_run_begins_with_the_trials_that_its_rehearsal_drew(tmp_path: Path) -> None:
    """(How long both say that it takes: `tests/benchmarks/rehearsal.py`.)"""

    def line(*more: str) -> str:
        return subprocess.run(
            [*TICKETSWEEP, "run", str(SPACES / "quickstart.yaml"), "--format", "json",
             "--samples", "4", "--set", "train.steps=20", *more],
            cwd=tmp_path, env={**os.environ, "WANDB_MODE": "off"},
            stdout=subprocess.PIPE, text=True, check=True,
        ).stdout  # fmt: skip

    rehearsed = json.loads(line("--dry-run"))
    assert rehearsed["lacking"] == 4
    stored = {each["trial_id"] for each in json.loads(line())["trials"]}
    assert {each["trial_id"] for each in rehearsed["drawn"][:4]} == stored
