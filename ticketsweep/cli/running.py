"""The commands that train: `run` and `trial`."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ticketsweep.cli.notes import note, notes
from ticketsweep.cli.options import (
    FormatOption,
    ResultFormat,
    RetryOption,
    SetOption,
    StorageOption,
    TimeOption,
    TrackerOption,
    Tracking,
    chosen_trackers,
)
from ticketsweep.cli.rehearsing import dry_run
from ticketsweep.errors import TrialFailure, UserError

if TYPE_CHECKING:
    from ticketsweep.config import TrialConfig

INTERRUPTED = 130


def run(
    space: Annotated[Path, typer.Argument(metavar="SPACE.yaml", help="The search space.")],
    storage: StorageOption = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the sweep, in place of the file's.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Number of distinct trials, in place of the file's.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="auto|HOST:PORT", help="A running Ray cluster.  [default: a local Ray]"
        ),
    ] = None,
    settings: SetOption = None,
    wandb: Annotated[
        Tracking | None,
        typer.Option(help="Weights & Biases.  [default: online with a key, else offline]"),
    ] = None,
    trackers: TrackerOption = None,
    seconds: TimeOption = None,
    retry_failed: RetryOption = False,
    dry: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Check all of it, and tell time, memory and the first trials alone."
        ),
    ] = False,
    optuna_storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Show the search to Optuna's dashboards in a database: postgresql://USER@HOST/NAME"
            "  [default: $TICKETSWEEP_OPTUNA_STORAGE, else a file in the storage]",
        ),
    ] = None,
    output: FormatOption = ResultFormat.TABLE,
) -> None:
    """Run a sweep, or go on with it: the same line again runs only what is missing."""
    from ticketsweep.space import load_space
    from ticketsweep.store.paths import Storage, default_storage

    spec = load_space(space, settings=settings or [], name=name, samples=samples)
    chosen = chosen_trackers(trackers, wandb)
    if dry:
        dry_run(
            spec,
            storage=storage or default_storage(),
            address=address,
            retry_failed=retry_failed,
            output=output,
        )
        return
    from ticketsweep.api import follow
    from ticketsweep.display.figures import plural
    from ticketsweep.display.outcome import sweep_outcome, sweep_places
    from ticketsweep.display.records import document
    from ticketsweep.display.terminal import emit, show, stdout_console
    from ticketsweep.results.rows import without_end
    from ticketsweep.results.summary import summarise
    from ticketsweep.store.database import Database
    from ticketsweep.store.under_way import trials_under_way

    opened = Storage.open(storage or default_storage(), create=True)
    database = Database(opened)
    objectives = spec.settings.objectives
    try:
        outcome = follow(
            spec,
            opened,
            address=address,
            tracking=wandb.value if wandb else None,
            trackers=chosen,
            seconds=seconds,
            retry_failed=retry_failed,
            optuna_storage=optuna_storage,
        )
    except KeyboardInterrupt:
        stored = database.trials(sweep=spec.settings.name)["status"].to_pylist()
        say_how_to_go_on(finished=stored.count("complete"))
        raise typer.Exit(INTERRUPTED) from None
    summary = summarise(
        database,
        outcome.name,
        rows=outcome.rows,
        objectives=objectives,
        searched=list(spec.distributions()),
        warn=note,
    )
    notes(database.warnings)
    if outcome.exhausted:
        note(f"the space has no more than {len(outcome.rows)} distinct configurations")
    if output is ResultFormat.JSON:
        ends = {
            "interrupted": outcome.interrupted,
            "exhausted": outcome.exhausted,
            "out_of_time": outcome.out_of_time,
        }
        emit(document({"storage": opened.uri, **ends, **summary.as_plain()}))
    else:
        console = stdout_console()
        places = sweep_places(opened, outcome.name)
        parts = sweep_outcome(
            console, summary, samples=spec.settings.samples, places=places, storage=storage
        )
        show(console, *parts)
    if outcome.to_upload:
        note(f"to upload what W&B has recorded offline: {outcome.to_upload}")
    from ticketsweep.sweep.stored import has_failed_for_good

    if given_up := sum(has_failed_for_good(row, spec.settings) for row in outcome.rows):
        failed = f"{plural(given_up, 'trial')} failed and will not be run again"
        note(f"{failed}, unless asked for with --retry-failed:")
        note(f"  {_line('--retry-failed')}")
    begun = trials_under_way(opened, outcome.name).get(outcome.name, set())
    left = len(without_end(begun, outcome.rows))
    if outcome.interrupted:
        say_how_to_go_on(finished=summary.count("complete"), cut_off=left)
        raise typer.Exit(INTERRUPTED)
    if outcome.out_of_time:
        say_how_to_go_on(finished=summary.count("complete"), cut_off=left, why="the time is up")
        return
    if outcome.rows and not summary.count("complete"):
        raise TrialFailure(f"no trial of sweep {outcome.name} could be finished")


def say_how_to_go_on(*, finished: int, cut_off: int = 0, why: str = "interrupted") -> None:
    """Tell on stderr that finished trials, and those cut off, are not lost, and what to type."""
    from ticketsweep.display.figures import plural

    kept = "; finished trials are stored" if finished else ""
    if cut_off:
        kept += f"{',' if finished else ';'} {plural(cut_off, 'trial')} under way kept as far as "
        kept += "their last checkpoint" if cut_off > 1 else "its last checkpoint"
    note(f"{why}{kept}. To go on, run the same line again:")
    note(f"  {_line()}")


def _line(*more: str) -> str:
    """The command line, with this option too."""
    given = sys.argv[1:]
    return f"ticketsweep {shlex.join([*given, *(each for each in more if each not in given)])}"


def _settings_of(beginning: str, settings: Sequence[str], storage: str) -> TrialConfig:
    """Those of a stored trial, with `settings` laid over them."""
    from ticketsweep.config import parse_config
    from ticketsweep.results.finding import trial_with_id
    from ticketsweep.results.rows import config_of, is_imported
    from ticketsweep.settings import apply_settings
    from ticketsweep.store.database import open_database

    row = trial_with_id(open_database(storage), beginning)
    if is_imported(row):
        raise UserError(f"trial {row['trial_id']} was imported: its settings are not known")
    return parse_config(apply_settings(config_of(row), settings), source=f"trial {beginning}")


def trial(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG.yaml", help="Settings.  [default: all defaults]"),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="In place of CONFIG.yaml: the settings of a stored trial, seed included; the "
            "first digits of its id will do.",
        ),
    ] = None,
    settings: SetOption = None,
    storage: StorageOption = None,
    sweep: Annotated[str, typer.Option(help="Name under which the trial is stored.")] = "single",
    output: FormatOption = ResultFormat.TABLE,
) -> None:
    """Run one trial in this process, without Ray."""
    from ticketsweep.display.outcome import storage_place, trial_outcome
    from ticketsweep.display.progress import TrialDisplay
    from ticketsweep.display.records import document
    from ticketsweep.display.terminal import emit, show, stderr_console, stdout_console
    from ticketsweep.results.masks import steps_of_masks
    from ticketsweep.results.ranking import USUAL_OBJECTIVES
    from ticketsweep.results.summary import summarise
    from ticketsweep.space import load_trial
    from ticketsweep.store.database import Database
    from ticketsweep.store.paths import Storage, check_name, default_storage

    if like is not None and config is not None:
        raise UserError(f"--like {like} takes the place of {config}: give one of the two")
    if like is None:
        checked = load_trial(config, settings=settings or [])
    else:
        checked = _settings_of(like, settings or [], storage or default_storage())
    check_name(sweep)
    opened = Storage.open(storage or default_storage(), create=True)
    with (
        TrialDisplay(stderr_console()) as display,
        contextlib.redirect_stdout(sys.stderr),
    ):
        from ticketsweep.narration import told_alone
        from ticketsweep.planning import identify, load_data
        from ticketsweep.trial import run_trial

        dataset = load_data(checked)
        steps = run_trial(checked, dataset=dataset, storage=opened, sweep=sweep)
        identity = identify(checked, dataset)
        outcome = display.follow(told_alone(steps, checked, opened, sweep, identity))
    if outcome.row["status"] == "failed":
        raise TrialFailure(f"trial {outcome.row['trial_id']} failed: {outcome.row['error']}")
    database = Database(opened)
    if outcome.reused and checked.snapshots:
        logged = steps_of_masks(database, sweep).get(str(outcome.row["trial_id"]), set())
        if len(logged) < 2:
            note(
                "the trial is stored without snapshots, and a complete one is not trained again "
                "(in another storage or with another seed it has them)"
            )
    summary = summarise(
        database, sweep, rows=[outcome.row], objectives=USUAL_OBJECTIVES, searched=[], warn=note
    )
    if output is ResultFormat.JSON:
        emit(document({"storage": opened.uri, "reused": outcome.reused, **summary.as_plain()}))
    else:
        console = stdout_console()
        parts = trial_outcome(
            console,
            summary,
            reused=outcome.reused,
            place=storage_place(opened),
            storage=storage,
        )
        show(console, *parts)
