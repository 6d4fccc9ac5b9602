"""Sweeps from Python: `ticketsweep.run`, in a script or a notebook."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from ticketsweep.display.figures import named_figure, plural, short
from ticketsweep.readable import Readable
from ticketsweep.results import compare
from ticketsweep.results.best import BestTrials, best_of
from ticketsweep.results.choosing import view_of
from ticketsweep.results.ranking import best_trial
from ticketsweep.results.rows import figure_of
from ticketsweep.space import SweepSpec, read_space, space_of
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage, default_storage

if TYPE_CHECKING:
    from ticketsweep.results.comparison import SweepComparison
    from ticketsweep.sweep.runner import SweepOutcome

Tracking = Literal["online", "offline", "off"]


@dataclass(frozen=True)
class Swept(Readable):
    """A sweep that has been run.

    Parameters
    ----------
    trials: its rows of the `trials` table, of earlier runs too.
    database: where they lie, with masks, curves and all else; see `ticketsweep.open`.
    """

    name: str
    trials: pa.Table = field(repr=False)
    database: Database = field(repr=False)

    def best(
        self,
        at_sparsity: Sequence[float] | None = None,
        *,
        by: str | None = None,
        top: int = 1,
    ) -> BestTrials:
        """The best trials at each least sparsity: what `ticketsweep best` shows.

        Parameters
        ----------
        at_sparsity: least shares of the weights that are left out; None for the usual ones.
        by: a figure of trials, not of the test split; None: the first accuracy that was searched.
        top: how many at each.
        """
        view = view_of(self.database, self.name, by=by)
        return best_of(self.database, view, at_sparsity, by=by, top=top)

    def stability(
        self, *, by: Sequence[str] = (), layer: str | None = None, trial: str | None = None
    ) -> SweepComparison:
        """How far the tickets agree, as `ticketsweep.results.compare` tells it."""
        return compare(self.database, self.name, by=by, layer=layer, trial=trial)

    def __str__(self) -> str:
        view = view_of(self.database, self.name, by=None)
        failed = f", {view.count('failed')} failed" if view.count("failed") else ""
        lines = [f"{self.name}: {plural(view.count('complete'), 'complete trial')}{failed}"]
        for name, direction in view.objectives.items():
            row = best_trial(view.trials, name, direction)
            if row is not None:
                told = ", ".join(named_figure(figure_of(row, n), n) for n in view.objectives)
                lines.append(f"best {name}: trial {short(row['trial_id'])}, {told}")
        return "\n".join(lines)


def run(
    space: str | Path | Mapping[str, Any],
    *,
    storage: str | Path | None = None,
    name: str | None = None,
    samples: int | None = None,
    settings: Sequence[str] = (),
    address: str | None = None,
    tracking: Tracking | None = "off",
) -> Swept:
    """Run a sweep, or go on with it: the same call again runs only what is missing.

    It is followed on stderr. An interrupt raises KeyboardInterrupt; finished trials are stored.

    Parameters
    ----------
    space: a file, or a mapping with what such a file holds, the `sweep` block included.
    storage: None for `$TICKETSWEEP_STORAGE`, else `./ticketsweep-storage`.
    name, samples: in place of those of the space.
    settings: `KEY=VALUE` strings laid over the space.
    address: of a running Ray cluster, `auto` or `HOST:PORT`; None starts a local Ray for that long.
    tracking: Weights & Biases; None: online where a key is configured, else offline.

    Raises
    ------
    TicketsweepError: a `UserError` where the space, the data or the storage are at fault.

    Examples
    --------
    >>> import ticketsweep
    >>> found = ticketsweep.run("search_spaces/quickstart.yaml", samples=8)
    >>> found.best(at_sparsity=[0.8, 0.9])
    sparsity >= 80 %: trial 3fa91c02, validation accuracy 94.23 ± 1.10 %, ...
    """
    if isinstance(space, Mapping):
        spec = space_of(space, settings=settings, name=name, samples=samples, source="the space")
    else:
        spec = read_space(Path(space), settings=settings, name=name, samples=samples)
    opened = Storage.open(str(storage or default_storage()), create=True)
    outcome = follow(spec, opened, address=address, tracking=tracking)
    if outcome.interrupted:
        raise KeyboardInterrupt
    database = Database(opened)
    return Swept(outcome.name, database.trials(sweep=outcome.name), database)


def follow(
    spec: SweepSpec,
    storage: Storage,
    *,
    address: str | None,
    tracking: Tracking | None,
    trackers: Collection[str] = ("wandb",),
    seconds: float | None = None,
    retry_failed: bool = False,
    optuna_storage: str | None = None,
) -> SweepOutcome:
    """Run what a sweep lacks and show on stderr how it gets on; see `sweep.runner.run_sweep`.

    Parameters
    ----------
    tracking: where W&B puts its runs; None: online where a key is configured, else offline.
    optuna_storage: None for `$TICKETSWEEP_OPTUNA_STORAGE`, else a file in the storage.

    Raises KeyboardInterrupt at an interrupt before the search has begun.
    """
    from ticketsweep.display.progress import sweep_display
    from ticketsweep.display.terminal import stderr_console

    settings = spec.settings
    display = sweep_display(
        stderr_console(),
        settings.objectives,
        possible=spec.possible(),
        seconds=seconds,
    )
    # What libraries print goes to stderr: stdout is for the result alone.
    with display as observer, contextlib.redirect_stdout(sys.stderr):
        observer.phase("loading libraries")
        from ticketsweep.sweep.runner import run_sweep
        from ticketsweep.sweep.server import optuna_database
        from ticketsweep.sweep.tracking import default_mode

        return run_sweep(
            spec,
            optuna_storage=optuna_database(optuna_storage),
            storage=storage,
            address=address,
            tracking=tracking or default_mode(),
            trackers=trackers,
            observer=observer,
            seconds=seconds,
            retry_failed=retry_failed,
        )
