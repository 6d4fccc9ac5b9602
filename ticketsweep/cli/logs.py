"""The command `logs`: what a trial told while it ran."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from ticketsweep.cli.notes import note
from ticketsweep.cli.options import StorageOption
from ticketsweep.errors import StorageError, UserError, did_you_mean

if TYPE_CHECKING:
    from ticketsweep.store.logs import LogFile
    from ticketsweep.store.paths import Storage

INTERRUPTED = 130
_SECONDS = 2.0  # between two looks


def logs(
    trial: Annotated[
        str, typer.Argument(metavar="TRIAL", help="A trial's id; the first digits will do.")
    ],
    sweep: Annotated[str | None, typer.Option(metavar="NAME", help="Of this sweep alone.")] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Go on until the trial has ended; Ctrl-C ends it sooner."),
    ] = False,
    storage: StorageOption = None,
) -> None:
    """Show what a trial told: its stages and figures, warnings, lost workers, why it failed.

    Every attempt is there, one after the other, in UTC. Trials of a sweep are written down every
    15 seconds and when they end, so this works from any machine that reaches the storage.
    """
    from ticketsweep.store.paths import Storage, default_storage

    opened = Storage.open(storage or default_storage(), create=False)
    files = _files_of(opened, trial, sweep)
    if not follow:
        _show(opened, files)
        return
    try:
        _follow(opened, files[-1])
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


def _files_of(storage: Storage, trial: str, sweep: str | None) -> list[LogFile]:
    """The logs of the trial, of the sweep that ran it last; UserError where there is none."""
    from ticketsweep.results.finding import some
    from ticketsweep.store.logs import log_files

    every = log_files(storage, sweep)
    found = [file for file in every if file.trial_id.startswith(trial)]
    ids = sorted({file.trial_id for file in found})
    if len(ids) > 1:
        raise UserError(f"trial {trial!r} begins the ids of several ({some(ids)}): add a digit")
    if not ids or not trial:
        raise UserError(
            f"no trial with a log has an id that begins with {trial!r} in storage {storage.uri} "
            f"({_nearest(trial, sorted({file.trial_id for file in every}))})"
        )
    last = max(found, key=lambda file: file.began)
    return [file for file in found if file.sweep == last.sweep]


def _nearest(trial: str, ids: list[str]) -> str:
    if not ids:
        return "it has no log yet; trials of earlier versions have none"
    return did_you_mean(trial, [each[: max(len(trial), 1)] for each in ids])


def _show(storage: Storage, files: list[LogFile]) -> None:
    from ticketsweep.display.terminal import emit_all
    from ticketsweep.store.logs import read_log

    emit_all(read_log(storage, file) for file in files)


def _follow(storage: Storage, last: LogFile) -> None:
    """Write what is new until the trial has ended, or nobody is left who could run it."""
    from datetime import UTC, datetime

    from ticketsweep.display.terminal import emit
    from ticketsweep.store.live import live_runs
    from ticketsweep.store.logs import is_ended, log_files, news, read_log

    told: dict[str, str] = {}
    idle = 0
    while True:
        try:
            own = [f for f in log_files(storage, last.sweep) if f.trial_id == last.trial_id]
            for file in own:
                text = read_log(storage, file)
                emit(news(told.get(file.path, ""), text))
                told[file.path] = text
            now = datetime.now(UTC)
            alive = [run for run in live_runs(storage, last.sweep) if run.is_alive(now)]
        except StorageError as error:
            note(f"not up to date: {error}")
            time.sleep(_SECONDS)
            continue
        runs = [each for run in alive for each in run.trials if each.trial_id == last.trial_id]
        has_ended = bool(own) and is_ended(told[own[-1].path])
        idle = 0 if runs else idle + 1
        if idle >= 2 and (has_ended or not alive):
            if not has_ended:
                note("no process that can be heard of runs the trial any more")
            return
        time.sleep(_SECONDS)
