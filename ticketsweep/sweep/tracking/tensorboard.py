"""TensorBoard: a folder of event files for each trial."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event

from ticketsweep.sweep.tracking.records import Best, Ending, Figures, Standing, Trial

_LENGTH = struct.Struct("<Q4x")  # and its checksum; that of the content follows it
_OF_SWEEP = "sweep"


class TensorBoard:
    """Writes `FOLDER/tensorboard/SWEEP/TRIAL`; the sweep's own figures are in `sweep`."""

    def __init__(self, sweep: str, *, folder: Path) -> None:
        self._folder = folder / "tensorboard" / sweep
        self._writers: dict[str, SummaryWriter] = {}

    def begin(self, trial: Trial) -> int:
        """See `Tracker`."""
        last = last_step(self._folder / trial.trial_id)
        writer = self._writer(trial.trial_id)
        if last < 0:
            settings = "\n".join(f"    {key}: {value}" for key, value in trial.settings.items())
            writer.add_text("settings", settings)
        return last

    def log(self, trial_id: str, step: int, figures: Figures) -> None:
        """See `Tracker`."""
        writer = self._writer(trial_id)
        for name, value in figures.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    def end(self, trial_id: str, ending: Ending) -> None:
        """See `Tracker`."""
        writer = self._writers.pop(trial_id)
        for name, value in ending.figures.items():
            writer.add_scalar(f"final/{name}", value)
        for layer in ending.layers:
            shares = np.array(list(layer.kept.values()))
            writer.add_histogram(f"keep_share/{layer.name}", shares, bins="fd")
        end = {"status": ending.status, "error": ending.error, "masks": ending.masks}
        writer.add_text("end", json.dumps(end))
        writer.close()

    def standing(self, standing: Standing) -> None:
        """See `Tracker`."""
        self.log(_OF_SWEEP, standing.ended, standing.figures)

    def close(self, standing: Standing, best: Best) -> None:
        """See `Tracker`."""
        if best.rows:
            rows = [" | ".join(map(str, row)) for row in (best.columns, *best.rows)]
            rows.insert(1, " | ".join("---" for _ in best.columns))
            self._writer(_OF_SWEEP).add_text("best", "\n".join(rows), standing.ended)
        for writer in self._writers.values():
            writer.close()

    def hurry(self) -> None:
        """Nothing: there is no network."""

    def _writer(self, name: str) -> SummaryWriter:
        if name not in self._writers:
            self._writers[name] = SummaryWriter(str(self._folder / name))
        return self._writers[name]


def last_step(folder: Path) -> int:
    """The last step of a curve in the folder's event files; -1 if there is none."""
    steps = [-1]
    for file in folder.glob("events.out.tfevents.*"):
        for event in _events(file.read_bytes()):
            if any(value.tag.endswith("/mean") for value in event.summary.value):
                steps.append(event.step)
    return max(steps)


def _events(data: bytes) -> Iterator[Event]:
    """The events of a file, up to one that is torn: length, checksum, content, checksum."""
    at = 0
    while at + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        if at + length + 4 > len(data):
            return
        yield Event.FromString(data[at : at + length])
        at += length + 4
