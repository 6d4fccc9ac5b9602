from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("first", ["nodes", "silence", "worker", "comparing"])
def test_ray_finds_its_environment_whichever_module_comes_first(first: str) -> None:
    """Under `uv run`, Ray would build a second environment, in which no worker of ours starts."""
    code = (
        f"import os, ticketsweep.sweep.{first}; print(os.environ['RAY_ENABLE_UV_RUN_RUNTIME_ENV'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0"]
