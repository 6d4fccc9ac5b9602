"""Which replicates of a trial are compared, and whether the store has that already."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any

from ticketsweep.results.function import ALIGN, CONNECTIVITY, PREDICTIONS, TRANSFER
from ticketsweep.results.rows import Row, figure_of
from ticketsweep.seeds import Replicate, derive_seed

MOST_TRANSFERS = 128
MOST_CONNECTED = 32
MOST_ALIGNED = 16
_FACTORS = ("init", "data", "gate")

Pair = tuple[Replicate, Replicate]


@dataclass(frozen=True)
class Work:
    """One kind of comparison of a trial.

    Attributes
    ----------
    pairs: those to be compared, in the order of their numbers.
    settings: what is stored with the figures; the same settings give the same figures. Among them
        is how many pairs were compared of how many possible ones.
    """

    kind: str
    pairs: tuple[Pair, ...]
    settings: Mapping[str, Any]


def replicates_of(rows: Iterable[Row]) -> list[Replicate]:
    """The replicates that have a ticket, by number, from rows of `replicates` of one trial."""
    alive = [row for row in rows if figure_of(row, "diverged_at_step") is None]
    return sorted(
        (
            Replicate(row["replicate"], row["init_seed"], row["data_seed"], row["gate_seed"])
            for row in alive
        ),
        key=lambda replicate: replicate.index,
    )


def differs(first: Replicate, second: Replicate) -> str:
    """The seeds in which two replicates differ, as "init+data"; "" for none."""
    unlike = [f for f in _FACTORS if getattr(first, f"{f}_seed") != getattr(second, f"{f}_seed")]
    return "+".join(unlike)


def pairs_of(kind: str, replicates: Sequence[Replicate]) -> tuple[list[Pair], int]:
    """The pairs that a kind compares, and how many there were to choose from.

    - predictions: all pairs.
    - transfer: ordered pairs of different initial weights, the mask's replicate first.
    - connectivity: each replicate with itself, and pairs of the same initial weights.
    - align: pairs of different initial weights.

    Where there are more than a bound, a sample from a fixed seed, as many of each two (or one)
    initial weights as can be. What a ticket is with itself is never left out.
    """
    unlike = _of_unlike_init
    if kind == PREDICTIONS:
        every = list(combinations(replicates, 2))
        return every, len(every)
    if kind == TRANSFER:
        found = [pair for pair in permutations(replicates, 2) if unlike(pair)]
        return _balanced(found, MOST_TRANSFERS, kind), len(found)
    pairs = list(combinations(replicates, 2))
    if kind == ALIGN:
        found = [pair for pair in pairs if unlike(pair)]
        return _balanced(found, MOST_ALIGNED, kind), len(found)
    own = [(replicate, replicate) for replicate in replicates]
    alike = [pair for pair in pairs if not unlike(pair)]
    chosen = own + _balanced(alike, MOST_CONNECTED, kind)
    return sorted(chosen, key=_numbers), len(own) + len(alike)


def work_of(kind: str, replicates: Sequence[Replicate], settings: Mapping[str, Any]) -> Work:
    """One kind of comparison, with its pairs; `settings` are those of the kind."""
    pairs, possible = pairs_of(kind, replicates)
    counts = {"pairs": len(pairs), "possible_pairs": possible}
    return Work(kind, tuple(pairs), {**settings, **counts})


def is_stored(work: Work, rows: Iterable[Row]) -> bool:
    """Whether all pairs have been compared with these settings; `rows` are of one trial."""
    stored = {
        (row["first"], row["second"])
        for row in rows
        if json.loads(row["settings"]).get(work.kind) == dict(work.settings)
    }
    return stored >= {_numbers(pair) for pair in work.pairs}


def why_none(kind: str, replicates: Sequence[Replicate]) -> str:
    """Why a kind has no pair to compare, as half a sentence."""
    if not replicates:
        return "it has no replicate with masks"
    if kind == CONNECTIVITY:
        return "it has no ticket to retrain"
    if len(replicates) == 1:
        return "it has one ticket, and nothing to compare it with"
    return "all its tickets have the same initial weights (replicates.init above 1 has others)"


def _of_unlike_init(pair: Pair) -> bool:
    return pair[0].init_seed != pair[1].init_seed


def _numbers(pair: Pair) -> tuple[int, int]:
    return pair[0].index, pair[1].index


def _balanced(pairs: Sequence[Pair], most: int, label: str) -> list[Pair]:
    """At most so many pairs: one of each two initial weights in turn, in an order by lot."""
    if len(pairs) <= most:
        return list(pairs)

    def lot(pair: Pair) -> int:
        return derive_seed(0, "compared-pairs", label, *map(str, _numbers(pair)))

    groups: dict[tuple[int, int], list[Pair]] = {}
    for first, second in sorted(pairs, key=lot):
        groups.setdefault((first.init_seed, second.init_seed), []).append((first, second))
    chosen: list[Pair] = []
    while len(chosen) < most:
        for group in groups.values():
            if group and len(chosen) < most:
                chosen.append(group.pop())
    return sorted(chosen, key=_numbers)
