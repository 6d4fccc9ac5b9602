"""Which trials are best where several objectives pull apart: ranks by domination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ticketsweep.results.rows import Row, figure_of

Objectives = Mapping[str, str]
USUAL_OBJECTIVES: Objectives = {"val_accuracy": "max", "sparsity": "max"}
TOLD_METRICS = ("val_accuracy", "strong_accuracy", "sparsity", "stability", "undecided")


def metrics_told(objectives: Objectives) -> list[str]:
    """What is always told of a trial, and what was searched for besides."""
    return [*TOLD_METRICS, *(name for name in objectives if name not in TOLD_METRICS)]


@dataclass(frozen=True)
class Ranked:
    """A trial and its rank: 1 where no other trial beats it, 2 once those of rank 1 are gone, …"""

    rank: int
    row: Row


def domination_ranks(points: Sequence[Sequence[float]], *, ranks: int | None = None) -> list[int]:
    """Ranks from 1 of points of which more is better in every coordinate.

    A point dominates another if it is nowhere less and somewhere more. Equal points share a rank.
    Sequential efficient non-dominated sort (Zhang et al. 2015): in falling lexicographic order a
    point can be dominated only by those before it.

    Parameters
    ----------
    ranks: that are told apart; all points further back get the next one. None: all.
    """
    if points and len(points[0]) == 1:  # every value is a front of its own
        ordered = sorted({tuple(point) for point in points}, reverse=True)
        place = {point: rank for rank, point in enumerate(ordered, start=1)}
        return [place[tuple(point)] for point in points]
    found = [0] * len(points)
    fronts: list[list[Sequence[float]]] = []
    for index in sorted(range(len(points)), key=lambda i: tuple(points[i]), reverse=True):
        point = points[index]
        for rank, front in enumerate(fronts):
            if not any(_dominates(other, point) for other in reversed(front)):
                front.append(point)
                found[index] = rank + 1
                break
        else:
            found[index] = len(fronts) + 1
            if ranks is None or len(fronts) < ranks:
                fronts.append([point])
    return found


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return tuple(one) != tuple(other) and all(a >= b for a, b in zip(one, other, strict=True))


def rank_trials(
    rows: Sequence[Row], objectives: Objectives, *, ranks: int | None = None
) -> list[Ranked]:
    """The complete trials that have every objective, by rank, then by the first objective.

    Parameters
    ----------
    ranks: see `domination_ranks`.
    """
    candidates = []
    for row in rows:
        values = [_upwards(row, name, way) for name, way in objectives.items()]
        point = [value for value in values if value is not None]
        if row.get("status") == "complete" and len(point) == len(objectives):
            candidates.append((point, row))
    found = domination_ranks([point for point, _ in candidates], ranks=ranks)
    ordered = sorted(
        zip(found, candidates, strict=True), key=lambda pair: (pair[0], [-x for x in pair[1][0]])
    )
    return [Ranked(rank, row) for rank, (_, row) in ordered]


def best_trial(rows: Sequence[Row], objective: str, direction: str) -> Row | None:
    """The complete trial with the best value of one objective."""
    known = [
        (value, row)
        for row in rows
        if row.get("status") == "complete"
        and (value := _upwards(row, objective, direction)) is not None
    ]
    return max(known, key=lambda pair: pair[0])[1] if known else None


def chosen(ranked: Sequence[Ranked], limit: int) -> list[Ranked]:
    """At most `limit` of the ranked trials; a longer first rank is thinned evenly, ends kept."""
    front = [trial for trial in ranked if trial.rank == 1]
    if len(front) <= limit or limit == 1:
        return list(ranked[:limit])
    return [front[round(i * (len(front) - 1) / (limit - 1))] for i in range(limit)]


def _upwards(row: Row, name: str, direction: str) -> float | None:
    value = figure_of(row, name)
    return -value if value is not None and direction == "min" else value
