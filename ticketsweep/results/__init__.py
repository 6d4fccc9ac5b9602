"""What stored trials say: read as plain values, ranked by their objectives, compared by masks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ticketsweep.results.comparison import SweepComparison
    from ticketsweep.store.database import Database


def compare(
    database: Database,
    sweep: str,
    *,
    by: Sequence[str] = (),
    layer: str | None = None,
    trial: str | None = None,
) -> SweepComparison:
    """Compare the complete trials of a sweep: what `ticketsweep stability` shows, for a notebook.

    What had to be left out, or should not be averaged, is told as a `UserWarning`.

    Parameters
    ----------
    by: columns of `trials`, or dotted settings, whose values tell groups of trials apart.
    layer: looks at one layer alone.
    trial: looks at one trial; the first digits of its id will do.

    Raises
    ------
    UserError: a sweep, key, layer or trial that there is not.

    Examples
    --------
    >>> from ticketsweep import results, store
    >>> database = store.open()
    >>> found = results.compare(database, "quickstart", by=["rewind_step"])
    >>> print(found)
    rewind_step 0: 9 trials, test accuracy 93.80 ± 2.16 %, sparsity 78.21 ± 8.90 %, stability 0.47
    rewind_step 100: 7 trials, test accuracy 95.25 ± 1.06 %, sparsity 73.52 ± 9.71 %, stability 0.48
    >>> print(found.stability[0,].attribution[-1])
    all layers: 0.03 [-0.01, 0.07] common to all
      init: 0.44 [0.38, 0.51] alone, ...
    """
    from ticketsweep.results.comparison import compare_by, trial_named
    from ticketsweep.results.sweeps import sweep_named, sweep_views

    views = sweep_views(database.sweeps().to_pylist(), database.trials().to_pylist())
    view = sweep_named(views, sweep, storage=database.storage.uri)
    rows = view.complete if trial is None else [trial_named(view.complete, trial)]

    def warn(message: str) -> None:
        warnings.warn(message, stacklevel=3)

    found = compare_by(database, rows, keys=by, layer=layer, warn=warn)
    for message in database.warnings:
        warn(message)
    return found
