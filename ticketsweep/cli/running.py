"""The commands that train: `run` and `trial`."""

from __future__ import annotations

import contextlib
import itertools
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ticketsweep.cli.notes import note, notes
from ticketsweep.cli.options import FormatOption, ResultFormat, SetOption, StorageOption, Tracking
from ticketsweep.errors import TrialFailure

if TYPE_CHECKING:
    from ticketsweep.space import SweepSpec

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
    output: FormatOption = ResultFormat.TABLE,
) -> None:
    """Run a sweep, or go on with it: the same line again runs only what is missing."""
    from ticketsweep.display.outcome import sweep_outcome, sweep_places
    from ticketsweep.display.progress import sweep_display
    from ticketsweep.display.records import document
    from ticketsweep.display.terminal import emit, show, stderr_console, stdout_console
    from ticketsweep.results.summary import summarise
    from ticketsweep.space import load_space
    from ticketsweep.store.database import Database
    from ticketsweep.store.paths import Storage, default_storage

    spec = load_space(space, settings=settings or [], name=name, samples=samples)
    opened = Storage.open(storage or default_storage(), create=True)
    database = Database(opened)
    objectives = spec.settings.objectives
    earlier = database.trials(sweep=spec.settings.name).to_pylist()
    display = sweep_display(stderr_console(), objectives, earlier, possible=_possible(spec))
    try:
        # What libraries print goes to stderr: stdout is for the result alone.
        with display as observer, contextlib.redirect_stdout(sys.stderr):
            observer.phase("loading libraries")
            from ticketsweep.sweep.runner import run_sweep
            from ticketsweep.sweep.tracking import default_mode

            outcome = run_sweep(
                spec,
                storage=opened,
                address=address,
                tracking=wandb.value if wandb else default_mode(),
                observer=observer,
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
        ends = {"interrupted": outcome.interrupted, "exhausted": outcome.exhausted}
        emit(document({"storage": opened.uri, **ends, **summary.as_plain()}))
    else:
        console = stdout_console()
        places = sweep_places(opened, outcome.name)
        parts = sweep_outcome(
            console, summary, samples=spec.settings.samples, places=places, storage=storage
        )
        show(console, *parts)
    if outcome.interrupted:
        say_how_to_go_on(finished=summary.count("complete"))
        raise typer.Exit(INTERRUPTED)
    if outcome.rows and not summary.count("complete"):
        raise TrialFailure(f"no trial of sweep {outcome.name} could be finished")


def _possible(spec: SweepSpec) -> int:
    """Distinct configurations of the space, counted no further than the number asked for."""
    from ticketsweep.distributions import Uniform

    if any(isinstance(each, Uniform) for each in spec.distributions().values()):
        return spec.settings.samples
    return sum(1 for _ in itertools.islice(spec.grid(), spec.settings.samples))


def say_how_to_go_on(*, finished: int) -> None:
    """Tell on stderr that the `finished` trials are not lost, and what to type."""
    kept = "; finished trials are stored" if finished else ""
    note(f"interrupted{kept}. To go on, run the same line again:")
    note(f"  ticketsweep {shlex.join(sys.argv[1:])}")


def trial(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG.yaml", help="Settings.  [default: all defaults]"),
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

    checked = load_trial(config, settings=settings or [])
    check_name(sweep)
    opened = Storage.open(storage or default_storage(), create=True)
    with (
        TrialDisplay(stderr_console()) as display,
        contextlib.redirect_stdout(sys.stderr),
    ):
        from ticketsweep.planning import load_data
        from ticketsweep.trial import run_trial

        steps = run_trial(checked, dataset=load_data(checked), storage=opened, sweep=sweep)
        outcome = display.follow(steps)
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
