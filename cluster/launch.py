"""Runs a `ticketsweep` command on the head of a cluster: what `ray submit` sends there.

ray submit cluster/aws.yaml cluster/launch.py -- run search_spaces/lenet_mnist.yaml --storage s3://…
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

VERSION = "0.1.0"  # of the clone that this file comes from; the head must have the same
PROJECT = Path.home() / "ticketsweep"  # where the cluster's YAML puts it


def main() -> None:
    """Run the command there; `run` joins the cluster unless told another --address."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if PROJECT.is_dir():
        os.chdir(PROJECT)  # so that search spaces are found under the names they have in the clone
    import ticketsweep

    if ticketsweep.__version__ != VERSION:
        sys.exit(
            f"ticketsweep must be the same everywhere, got {ticketsweep.__version__} on the head "
            f"and {VERSION} here (`ray up` again)"
        )
    command, *options = sys.argv[1:] or ["--help"]
    named = any(option.partition("=")[0] == "--address" for option in options)
    if command == "run" and not named:
        sys.argv += ["--address", "auto"]

    from ticketsweep.cli import main as ticketsweep_command

    ticketsweep_command()


if __name__ == "__main__":
    main()
