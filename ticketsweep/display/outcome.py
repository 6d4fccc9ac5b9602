"""What stands at the end of a run: the best trials, how stable they are, where everything lies."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console, RenderableType
from rich.text import Text

from ticketsweep.analysis.stability import OTHER_INIT, SAME_INIT
from ticketsweep.display.agreement import stability_table
from ticketsweep.display.figures import duration, plural, short
from ticketsweep.display.sweeps import objectives_text
from ticketsweep.display.terminal import paragraph
from ticketsweep.display.trials import best_trials, one_trial
from ticketsweep.results.rows import finite_number
from ticketsweep.results.summary import Summary
from ticketsweep.store.paths import Storage

_EXAMPLE_QUERY = "select layer, avg(kept * 1.0 / size) from masks group by 1"


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
    counts = [f"{summary.count('complete')} of {plural(samples, 'trial')} complete"]
    counts += [f"{n} {state}" for state in ("stopped", "failed") if (n := summary.count(state))]
    parts: list[RenderableType] = [_heading(f"{summary.name}: {', '.join(counts)}"), ""]
    if summary.best:
        parts += [best_trials(console, summary), "", paragraph(_ranks(summary)), ""]
        parts += _stability_of_the_best(summary)
    parts += [Text(f"{what:<17}{where}", overflow="fold") for what, where in places.items()]
    return [*parts, *next_commands(summary.name, storage=storage)]


def trial_outcome(
    summary: Summary, *, reused: bool, uri: str, storage: str | None
) -> list[RenderableType]:
    """The parts of the final message of the only trial of `summary`.

    Parameters
    ----------
    reused: nothing was trained, since the trial was in the storage.
    uri, storage: the storage, and as the user named it (None where the default was taken).
    """
    row = summary.rows[0]
    trial_id = row["trial_id"]
    seconds = duration(finite_number(row.get("wall_seconds")))
    how = "was stored already; nothing was trained" if reused else f"complete in {seconds}"
    spread = summary.spread(row, "val_accuracy")
    n = f"± is the standard deviation over {plural(spread.n, 'replicate')}" if spread else ""
    parts: list[RenderableType] = [_heading(f"Trial {trial_id} {how}"), "", one_trial(summary)]
    parts += ["", paragraph(n), ""] if n else [""]
    stability = summary.stability.get(trial_id)
    if stability is not None and stability.rows:
        parts += [_heading("Do other seeds find the same ticket?"), ""]
        parts += [stability_table({(): stability}, keys=[]), ""]
    parts.append(f"{'masks, results':<17}{uri}")
    return [*parts, *next_commands(summary.name, storage=storage)]


def sweep_places(storage: Storage, sweep: str) -> dict[str, str]:
    """What a sweep has left where."""
    journal, tracking = storage.optuna_journal(sweep), storage.tracking_folder()
    places = {"masks, results": storage.uri}
    if tracking.exists():
        places["W&B runs"] = _near(tracking)
    if journal is not None and journal.exists():
        places["Optuna journal"] = _near(journal)
    return places


def _near(path: Path) -> str:
    """The path from here, where it is below."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def next_commands(sweep: str, *, storage: str | None) -> list[RenderableType]:
    """What one may want to type next."""
    where = f" --storage {shlex.quote(storage)}" if storage else ""
    commands = [
        f"ticketsweep status {sweep}{where}",
        f"ticketsweep stability {sweep}{where}",
        f'ticketsweep query "{_EXAMPLE_QUERY}"{where}',
    ]
    return ["", "next:", *(f"  {command}" for command in commands)]


def _stability_of_the_best(summary: Summary) -> list[RenderableType]:
    best = summary.best[0].row["trial_id"]
    stability = summary.stability.get(best)
    if stability is None or not stability.rows:
        return []
    title = f"Do other seeds find the same ticket? Trial {short(best)}, the first of rank 1:"
    drawn = stability_table({(): stability}, keys=[], only=(SAME_INIT, OTHER_INIT))
    return [_heading(title), "", drawn, ""]


def _ranks(summary: Summary) -> str:
    aims = objectives_text(summary.objectives)
    several = len(summary.objectives) > 1
    text = f"rank 1: the Pareto front of {aims}" if several else f"ranked by {aims}"
    front = sum(trial.rank == 1 for trial in summary.ranked)
    first_rank = sum(trial.rank == 1 for trial in summary.best)
    if first_rank < front:
        text += f" ({first_rank} of {front} shown)"
    return (
        f"{text}; ± is the standard deviation over the n replicates; "
        "[ ] a 95 % interval over seeds; the search did not look at the test accuracy."
    )


def _heading(text: str) -> RenderableType:
    return Text(text, style="bold")
