"""Whether speed is paid for with accuracy: one trial on the compiled step and on the plain one.

    uv run python -m tests.benchmarks.reference SPACE.yaml --set data_root=DIR

What follows the module's name is handed to `ticketsweep trial`, on two processes side by side.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

RUN = "import sys; from ticketsweep.cli import main; main()"
PATHS = {"compiled": RUN, "plain": f"import sys; sys.modules['numba'] = None; {RUN}"}
FIGURES = ("strong_accuracy", "val_accuracy", "sparsity", "wall_seconds")


def main() -> None:
    running = {}
    for name, code in PATHS.items():
        folder = tempfile.mkdtemp()
        command = [sys.executable, "-c", code, "trial", *sys.argv[1:], "--format", "json",
                   "--storage", folder]  # fmt: skip
        running[name] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for name, process in running.items():
        (row,) = json.loads(process.communicate()[0])["trials"]
        print(f"{name:9}", ", ".join(f"{figure} {row[figure]:.4f}" for figure in FIGURES))


if __name__ == "__main__":
    main()
