"""What stands at the end of a run: the best trials, how stable they are, where everything lies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console, RenderableType
from rich.text import Text

from ticketsweep.analysis.stability import OTHER_INIT, SAME_INIT
from ticketsweep.display.agreement import stability_table
from ticketsweep.display.figures import duration, out_of, plural, short
from ticketsweep.display.hints import next_lines, storage_option
from ticketsweep.display.networks import diverged_note, diverged_notes, networks_table
from ticketsweep.display.sweeps import objectives_text
from ticketsweep.display.terminal import paragraph
from ticketsweep.display.trials import best_trials, one_trial
from ticketsweep.progress import UNDER_WAY
from ticketsweep.results.comparison import gates_of
from ticketsweep.results.rows import finite_number
from ticketsweep.results.summary import Summary
from ticketsweep.store.paths import Storage

_MASKS = "masks, results"


def sweep_outcome(
    console: Console,
    summary: Summary,
    *,
    samples: int,
    places: Mapping[str, str],
    storage: str | None,
) -> list[RenderableType]:
    """The parts of a sweep's final message.

    Parameters
    ----------
    samples: how many trials were asked for.
    places: what -> where it lies.
    storage: as the user named it; None where the default was taken.
    """
    counts = [out_of(summary.count("complete"), samples, "complete")]
    counts += [
        f"{n} {state.replace('_', ' ')}"
        for state in (UNDER_WAY, "stopped", "failed")
        if (n := summary.count(state))
    ]
    parts: list[RenderableType] = [_heading(f"{summary.name}: {', '.join(counts)}"), ""]
    if summary.best:
        parts += [best_trials(console, summary), ""]
        if len(summary.best) < len(summary.ranked):
            of = plural(len(summary.ranked), "complete trial")
            command = f"ticketsweep status {summary.name}{storage_option(storage)}"
            parts += [f"{len(summary.best)} of {of}; all: {command}", ""]
        parts += [paragraph(_ranks(summary)), ""]
        parts += [paragraph(lost), ""] if (lost := diverged_notes(summary)) else []
        parts += _stability_of_the_best(console, summary)
    parts += [_place(what, where) for what, where in places.items()]
    return [*parts, *next_lines(_sweep_commands(summary), storage=storage)]


def trial_outcome(
    console: Console, summary: Summary, *, reused: bool, place: str, storage: str | None
) -> list[RenderableType]:
    """The parts of the final message of the only trial of `summary`.

    Parameters
    ----------
    reused: nothing was trained, since the trial was in the storage.
    place: where the storage lies.
    storage: as the user named it; None where the default was taken.
    """
    row = summary.rows[0]
    trial_id = row["trial_id"]
    seconds = duration(finite_number(row.get("wall_seconds")))
    how = "was stored already; nothing was trained" if reused else f"complete in {seconds}"
    spread = summary.spread(row, "val_accuracy")
    notes = [diverged_note(summary, row)]
    if spread is not None and spread.sd is not None:
        notes.insert(0, f"± is the standard deviation over {plural(spread.n, 'replicate')}")
    packs = dict(row.get("metrics") or {}).get("packs", 1)
    if packs > 1:
        notes.append(f"trained in {plural(int(packs), 'pack')}, one after the other")
    n = "; ".join(filter(None, notes))
    parts: list[RenderableType] = [_heading(f"Trial {trial_id} {how}"), "", one_trial(summary)]
    parts += ["", paragraph(n), ""] if n else [""]
    compared = networks_table(summary, row)
    if compared:
        parts += [_heading("What is the ticket worth?"), "", *compared, ""]
    stability = summary.stability.get(trial_id)
    if stability is not None and stability.rows:
        parts += [_heading("Do other seeds find the same ticket?"), ""]
        parts += [stability_table(console, {(): stability}, keys=[], gates=gates_of([row])), ""]
    parts.append(_place(_MASKS, place))
    only = f"--trial {short(trial_id)}"  # other trials of that name may be of quite another kind
    commands = [
        f"status {summary.name}",
        f"stability {summary.name} {only}",
        _query(summary.name),
    ]
    return [*parts, *next_lines(commands, storage=storage)]


def sweep_places(storage: Storage, sweep: str) -> dict[str, str]:
    """What a sweep has left where."""
    journal, tracking = storage.optuna_journal(sweep), storage.tracking_folder()
    places = {_MASKS: storage_place(storage)}
    if tracking.exists():
        places["tracking"] = _near(tracking)
    if journal is not None and journal.exists():
        places["Optuna journal"] = _near(journal)
    return places


def storage_place(storage: Storage) -> str:
    """Where a storage lies: the path from here where it is below, like every place told."""
    return storage.uri if storage.local is None else _near(storage.local)


def _near(path: Path) -> str:
    """The path from here, where it is below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _place(what: str, where: str) -> RenderableType:
    return Text(f"{what:<17}{where}", overflow="fold")


def _sweep_commands(summary: Summary) -> list[str]:
    """What is worth typing: nothing that asks for masks where none is stored."""
    status = f"status {summary.name}"
    if not summary.count("complete"):
        return [status]
    return [
        status,
        f"stability {summary.name}",
        f"report {summary.name}",
        _query(summary.name),
    ]


def _stability_of_the_best(console: Console, summary: Summary) -> list[RenderableType]:
    row = summary.best[0].row
    stability = summary.stability.get(row["trial_id"])
    if stability is None or not stability.rows:
        return []
    title = (
        f"Do other seeds find the same ticket? Trial {short(row['trial_id'])}, the first of rank 1:"
    )
    kinds = (SAME_INIT, OTHER_INIT)
    gates = gates_of([row])
    drawn = stability_table(console, {(): stability}, keys=[], gates=gates, only=kinds)
    return [_heading(title), "", drawn, ""]


def _ranks(summary: Summary) -> str:
    aims = objectives_text(summary.objectives)
    several = len(summary.objectives) > 1
    text = f"rank 1: the Pareto front of {aims}" if several else f"ranked by {aims}"
    front = sum(trial.rank == 1 for trial in summary.ranked)
    first_rank = sum(trial.rank == 1 for trial in summary.best)
    if first_rank < front:
        text += f" ({first_rank} of {front} shown)"
    n = summary.replicates
    over = "the n replicates" if n is None else plural(n, "replicate")
    return (
        f"{text}; ± is the standard deviation over {over}; "
        "[ ] a 95 % interval over seeds; the search did not look at the test accuracy; "
        "undecided gates were neither open nor closed before they were hardened."
    )


def _heading(text: str) -> RenderableType:
    return Text(text, style="bold")


def _query(sweep: str) -> str:
    """A question to the mask database to begin with."""
    density = "select layer, avg(kept * 1.0 / size) from tickets"
    return f"query \"{density} where sweep = '{sweep}' group by 1\""
