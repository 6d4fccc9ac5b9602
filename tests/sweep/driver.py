"""A sweep in a process of its own, to be killed from outside; tells what it does on stdout.

python driver.py STORAGE SPEC_JSON [ADDRESS]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from ticketsweep.space import parse_space
from ticketsweep.store.paths import Storage
from ticketsweep.sweep.runner import run_sweep


def say(*words: object) -> None:
    print(*words, flush=True)


class Speaker:
    def phase(self, text: str) -> None:
        say("phase", text)

    def sweep_started(
        self, *, name: str, samples: int, stored: int, concurrency: int, earlier: object
    ) -> None:
        say("started", stored)

    def trial_started(self, trial_id: str, config: object, *, host: str) -> None:
        say("trial", trial_id)

    def trial_progressed(self, trial_id: str, progress: object) -> None:
        say("progress", trial_id)

    def trial_died(self, trial_id: str, reason: str) -> None:
        say("died", trial_id)

    def trial_finished(self, trial_id: str, row: Mapping[str, Any]) -> None:
        say("finished", trial_id)

    def warn(self, text: str) -> None:
        say("warning", text)


if __name__ == "__main__":
    outcome = run_sweep(
        parse_space(json.loads(sys.argv[2]), source="driver"),
        storage=Storage.open(sys.argv[1], create=True),
        address=sys.argv[3] if len(sys.argv) > 3 else None,
        tracking="off",
        observer=Speaker(),
    )
    say("interrupted" if outcome.interrupted else "done", len(outcome.rows))
