"""The Pareto front of accuracy, sparsity and stability: which trials no other beats in all three.

What cannot be on a front is counted, so that a reader knows of how many trials it is the front.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ticketsweep.results.ranking import Objectives, Ranked, rank_trials
from ticketsweep.results.rows import Row, figure_of

THREE: Objectives = {"val_accuracy": "max", "sparsity": "max", "stability": "max"}


@dataclass(frozen=True)
class Fronts:
    """The complete trials of a sweep in ranks: 1 is the front, 2 the front without those of 1, …

    Parameters
    ----------
    objectives: metric -> "max" or "min".
    ranked: trials that have every objective, by rank, then by the first objective. Trials that are
        equal in all objectives share a rank.
    left_out: complete trials without a rank, since they lack an objective.
    lacking: objective -> how many of these lack it: it is missing, or no finite number.
    repeated: rows of a trial that is there already (another sweep has a copy).
    incomplete: trials that failed or were stopped.
    """

    objectives: Objectives
    ranked: tuple[Ranked, ...]
    left_out: int
    lacking: Mapping[str, int]
    repeated: int
    incomplete: int

    @property
    def front(self) -> list[Row]:
        """The rows of rank 1."""
        return [each.row for each in self.ranked if each.rank == 1]


def fronts(
    rows: Sequence[Row], objectives: Objectives = THREE, *, ranks: int | None = None
) -> Fronts:
    """Rank trials by the objectives, and count those that cannot be ranked.

    A trial's stability is missing where no two of its replicates share their initial weights, or
    where every mask keeps all gates or none.

    Parameters
    ----------
    rows: of `trials`, of one sweep or of several.
    ranks: that are told apart; those further back share the next one. None: all.
    """
    complete = [row for row in rows if row.get("status") == "complete"]
    own = list({str(row["trial_id"]): row for row in reversed(complete)}.values())[::-1]
    missing = {name: sum(figure_of(row, name) is None for row in own) for name in objectives}
    ranked = rank_trials(own, objectives, ranks=ranks)
    return Fronts(
        objectives=objectives,
        ranked=tuple(ranked),
        left_out=len(own) - len(ranked),
        lacking={name: count for name, count in missing.items() if count},
        repeated=len(complete) - len(own),
        incomplete=len(rows) - len(complete),
    )
