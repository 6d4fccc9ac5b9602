"""Where the curves and endings of trials go beside the mask database: W&B, TensorBoard, files."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from ticketsweep.config import TrialConfig, parse_config
from ticketsweep.errors import UserError
from ticketsweep.progress import Progress
from ticketsweep.results.ranking import Objectives
from ticketsweep.results.rows import Row, config_of, figure_of, is_imported
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage, check_name
from ticketsweep.sweep.tracking.lanes import Lane, told_of
from ticketsweep.sweep.tracking.login import Mode, default_mode
from ticketsweep.sweep.tracking.records import Best, Standing, Tracker, Trial, curve_figures
from ticketsweep.sweep.tracking.stored import best_of, curve_of, ending_of, standing_of

TRACKERS = ("wandb", "tensorboard", "jsonl")
_STANDING_SHARE = 100  # all trials are gone through for a standing: of long sweeps, ever less often

__all__ = [
    "TRACKERS",
    "Mode",
    "SweepTracking",
    "are_behind",
    "attach_report",
    "default_mode",
    "files_of",
    "how_to_upload",
    "tracker",
]


class SweepTracking:
    """What the driver tells of its trials, handed on to every tracker. No method waits.

    Parameters
    ----------
    lanes: one for each tracker.
    stored: the sweep's trials that were stored before.
    """

    def __init__(
        self,
        sweep: str,
        lanes: Sequence[Lane],
        *,
        storage: Storage,
        objectives: Objectives,
        stored: Sequence[Row],
    ) -> None:
        self._sweep, self._lanes, self._objectives = sweep, lanes, dict(objectives)
        self._database = Database(storage)
        self._standing_after = 0.0
        self._rows = {str(row["trial_id"]): self._slim(row) for row in stored}
        for lane in lanes:
            left = _untold(lane.begun, lane.ended, stored, storage)
            for row in stored:
                if row["trial_id"] in left:
                    self._tell_stored(lane, row)

    def _tell_stored(self, lane: Lane, row: Row) -> None:
        try:
            config = parse_config(config_of(row), source="a stored trial")
        except UserError:  # of another version
            return
        trial_id = str(row["trial_id"])
        # What was told of it then has the steps of all packs, and what is stored those of each.
        partly = trial_id in lane.begun and (figure_of(row, "packs") or 1) > 1
        lane.stored(
            Trial.of(trial_id, config),
            curve=lambda: {} if partly else curve_of(self._database, self._sweep, trial_id),
            ending=lambda: ending_of(self._database, self._sweep, row),
        )

    def copied(self, row: Row) -> None:
        """A trial was copied from another sweep: it never started here."""
        self._rows[str(row["trial_id"])] = self._slim(row)
        for lane in self._lanes:
            self._tell_stored(lane, row)

    def begin(self, trial_id: str, config: TrialConfig) -> None:
        """A trial has started, perhaps for the second time."""
        for lane in self._lanes:
            lane.begin(Trial.of(trial_id, config))

    def log(self, trial_id: str, progress: Progress) -> None:
        """A logged step."""
        figures = curve_figures(progress.replicates)
        for lane in self._lanes:
            lane.log(trial_id, progress.step, figures)

    def finish(self, trial_id: str, row: Row) -> None:
        """The trial has ended; `row` is its row of the `trials` table."""
        self._rows[trial_id] = self._slim(row)
        for lane in self._lanes:
            self._end(lane, row)
        if self._lanes and time.monotonic() >= self._standing_after:
            began = time.monotonic()
            standing = standing_of(list(self._rows.values()), self._objectives)
            for lane in self._lanes:
                lane.standing(standing)
            ended = time.monotonic()
            self._standing_after = ended + _STANDING_SHARE * (ended - began)

    def close(self) -> None:
        """Close the trackers, each within a bounded time."""
        for lane in self._lanes:
            lane.close(self._final)

    def _end(self, lane: Lane, row: Row) -> None:
        trial_id = str(row["trial_id"])
        # Curves of several packs are told by the steps of all, and stored by those of each.
        several = (figure_of(row, "packs") or 1) > 1
        lane.end(
            trial_id,
            curve=lambda: {} if several else curve_of(self._database, self._sweep, trial_id),
            ending=lambda: ending_of(self._database, self._sweep, row),
        )

    def _final(self) -> tuple[Standing, Best]:
        rows = self._database.trials(self._sweep).to_pylist()
        return standing_of(rows, self._objectives), best_of(rows, self._objectives)

    def _slim(self, row: Row) -> Row:
        """As much of a row as the standing is made of."""
        figures = {name: figure_of(row, name) for name in self._objectives}
        return {"trial_id": row["trial_id"], "status": row["status"], **figures}


@contextlib.contextmanager
def tracker(
    sweep: str,
    trackers: Collection[str],
    *,
    mode: Mode,
    storage: Storage,
    objectives: Objectives,
    stored: Sequence[Row],
    warn: Callable[[str], None],
) -> Iterator[SweepTracking]:
    """The trackers of one sweep, closed at the end.

    Parameters
    ----------
    trackers: of `TRACKERS`.
    mode: where W&B puts its runs.
    stored: the sweep's rows of `trials`, but of those that will be run again. Those that a tracker
        has not ended are told, be it that it did not get to it, or, with a local storage, was not
        asked for when they ran.
    """
    folder = storage.tracking_folder()
    lanes = []
    for name, make in _makers(sweep, trackers, mode, folder, warn).items():
        try:
            lanes.append(Lane(name, make, ledger=_ledger(folder, sweep, name), warn=warn))
        except OSError as error:  # its ledger cannot be written
            warn(f"{name}: {error}; the sweep goes on without it (its files lie in {folder})")
    running = SweepTracking(sweep, lanes, storage=storage, objectives=objectives, stored=stored)
    try:
        yield running
    finally:
        running.close()


def are_behind(
    storage: Storage, sweep: str, trackers: Collection[str], *, mode: Mode, stored: Sequence[Row]
) -> bool:
    """Whether a tracker has not been told of stored trials, or of their ends: `tracker` does it."""
    folder = storage.tracking_folder()
    used = [name for name in trackers if not (name == "wandb" and mode == "off")]
    ledgers = [told_of(_ledger(folder, sweep, name)) for name in used]
    return any(_untold(begun, ended, stored, storage) for begun, ended in ledgers)


def _untold(
    begun: Collection[str], ended: Collection[str], stored: Sequence[Row], storage: Storage
) -> set[str]:
    """Stored trials that a tracker is still to be told of.

    Beside a remote storage the ledger lies where `run` was typed. Another folder has none, or one
    that knows less, so that what was not begun by it may well have been told.
    """
    known = {str(row["trial_id"]) for row in stored if not is_imported(row)}
    return known - set(ended) if storage.local is not None else known & set(begun)


def _ledger(folder: Path, sweep: str, tracker: str) -> Path:
    return folder / f"{sweep}.{tracker}.ledger"


def _makers(
    sweep: str,
    trackers: Collection[str],
    mode: Mode,
    folder: Path,
    warn: Callable[[str], None],
) -> dict[str, Callable[[], Tracker]]:
    """What makes each tracker, with its library, in a thread of its own."""

    def wandb() -> Tracker:
        from ticketsweep.sweep.tracking.wandb_runs import WandbRuns

        return WandbRuns(sweep, mode=mode, folder=folder, warn=warn)

    def tensorboard() -> Tracker:
        from ticketsweep.sweep.tracking.tensorboard import TensorBoard

        return TensorBoard(sweep, folder=folder)

    def jsonl() -> Tracker:
        from ticketsweep.sweep.tracking.json_lines import JsonLines

        return JsonLines(sweep, folder=folder)

    makers = {"wandb": wandb, "tensorboard": tensorboard, "jsonl": jsonl}
    return {
        name: make
        for name, make in makers.items()
        if name in trackers and not (name == "wandb" and mode == "off")
    }


def files_of(storage: Storage, sweep: str) -> list[Path]:
    """Files and folders that trackers have made of a sweep in a local storage; of another, none.

    Where the storage is remote, they lie wherever `run` was typed.

    Raises StorageError for a name that no sweep may have.
    """
    check_name(sweep)
    if storage.local is None:
        return []
    from ticketsweep.sweep.tracking.wandb_runs import folders_of

    folder = storage.tracking_folder()
    own = [folder / f"{sweep}.jsonl", *(_ledger(folder, sweep, name) for name in TRACKERS)]
    folders = [folder / "tensorboard" / sweep, *folders_of(folder, sweep)]
    below = [path for each in folders for path in (each, *sorted(each.rglob("*")))]
    return [path for path in (*own, *below) if path.exists()]


def how_to_upload(storage: Storage, sweep: str) -> str:
    """The command that uploads the sweep's W&B runs that are not; empty where all are."""
    from ticketsweep.sweep.tracking.wandb_runs import left_to_upload

    return left_to_upload(storage.tracking_folder(), sweep)


def attach_report(
    storage: Storage, sweep: str, page: Path, *, mode: Mode, warn: Callable[[str], None]
) -> None:
    """Make a report's page an artifact of the sweep's own run at W&B.

    Raises
    ------
    StorageError: W&B cannot even record it offline.
    """
    from ticketsweep.errors import StorageError
    from ticketsweep.sweep.tracking.login import without_key
    from ticketsweep.sweep.tracking.wandb_runs import WandbRuns

    folder = storage.tracking_folder()
    try:
        WandbRuns(sweep, mode=mode, folder=folder, warn=warn).attach_report(page)
    except Exception as error:
        raise StorageError(
            f"the report cannot be tracked in {folder}: {without_key(str(error))} "
            f"(the page itself is written to {page})"
        ) from error
