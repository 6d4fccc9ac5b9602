"""Plain JSON lines: one file for a sweep, appended to, one event a line."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ticketsweep.sweep.tracking.records import Best, Ending, Figures, Standing, Trial


class JsonLines:
    """Writes `FOLDER/SWEEP.jsonl`. A line is there whole or not at all, whoever is killed."""

    def __init__(self, sweep: str, *, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{sweep}.jsonl"
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        self._last: dict[str, int] = {}
        whole = 0
        for line in self._lines():
            whole += len(line)
            with contextlib.suppress(ValueError, KeyError, TypeError):  # damaged: as if not there
                event = json.loads(line)
                if event["event"] == "step":
                    self._last[event["trial"]] = event["step"]
        os.ftruncate(self._file, whole)  # the rest is what a full disk left of a line

    def _lines(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))

    def begin(self, trial: Trial) -> int:
        """See `Tracker`."""
        self._write("begun", trial=trial.trial_id, settings=dict(trial.settings), tags=trial.tags)
        return self._last.get(trial.trial_id, -1)

    def log(self, trial_id: str, step: int, figures: Figures) -> None:
        """See `Tracker`."""
        self._write("step", trial=trial_id, step=step, figures=dict(figures))

    def end(self, trial_id: str, ending: Ending) -> None:
        """See `Tracker`."""
        self._write("ended", trial=trial_id, **asdict(ending))

    def standing(self, standing: Standing) -> None:
        """See `Tracker`."""
        self._write("standing", **asdict(standing))

    def close(self, standing: Standing, best: Best) -> None:
        """See `Tracker`."""
        self.standing(standing)
        self._write("best", **asdict(best))
        os.close(self._file)

    def hurry(self) -> None:
        """Nothing: there is no network."""

    def _write(self, event: str, **fields: Any) -> None:
        line = json.dumps({"event": event, **fields}).encode() + b"\n"
        size = os.fstat(self._file).st_size
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(f"{self._path} takes no more (is the disk full?)")
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, size)
            raise
