"""Whether speed is paid for with accuracy: one trial on the compiled step and on the plain one.

    uv run python -m tests.benchmarks.reference search_spaces/lenet_mnist_86.yaml --set data_root=DIR

What follows the module's name is handed to `ticketsweep trial`, on two processes side by side.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

RUN = "import sys; from ticketsweep.cli import main; main()"
PATHS = {"compiled": RUN, "plain": f"import sys; sys.modules['numba'] = None; {RUN}"}
FIGURES = ("test_accuracy", "strong_accuracy", "val_accuracy", "sparsity", "undecided")


def main() -> None:
    running = {}
    for name, code in PATHS.items():
        folder = tempfile.mkdtemp()
        command = [sys.executable, "-c", code, "trial", *sys.argv[1:], "--format", "json",
                   "--storage", folder]  # fmt: skip
        running[name] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for name, process in running.items():
        answer = json.loads(process.communicate()[0])
        print(name, json.dumps(answer)[:2000])


if __name__ == "__main__":
    main()
