"""What stored comparisons of tickets say, averaged over pairs and trials."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ticketsweep.results.grouping import Group, groups_of, plain_group
from ticketsweep.results.rows import Row
from ticketsweep.store.database import Database

PREDICTIONS, TRANSFER, CONNECTIVITY, ALIGN = "predictions", "transfer", "connectivity", "align"
KINDS = (PREDICTIONS, TRANSFER, CONNECTIVITY, ALIGN)
STABLE_BELOW = 0.02
"""Barrier of the test error below which Frankle et al. (2020) call a network stable."""

BARRIER, STABLE = "test_barrier", "stable"


@dataclass(frozen=True)
class Spread:
    """The mean over trials of means over pairs, and the least and the most of any pair."""

    mean: float
    least: float
    most: float


@dataclass(frozen=True)
class FunctionRow:
    """One kind of comparison of the pairs that differ in the same seeds, in a group of trials.

    Attributes
    ----------
    group: the values of the keys that the trials share.
    differs: "init+data", …; "" for tickets compared with themselves.
    figures: measure -> its spread; only measures that some pair has. Of `connectivity`, `stable` is
        the share of pairs whose test barrier is below `STABLE_BELOW`.
    pairs, trials: how many there are.
    without: pairs of which nothing could be measured, since their outputs are not finite.
    settings: the different settings of these pairs.
    """

    group: Group
    kind: str
    differs: str
    figures: Mapping[str, Spread]
    pairs: int
    trials: int
    without: int
    settings: tuple[Mapping[str, Any], ...]


def stored_function(
    database: Database, trials: Sequence[Row], *, keys: Sequence[str]
) -> list[FunctionRow]:
    """All that is stored of these trials, by kind, group and the seeds that differ.

    Parameters
    ----------
    trials: rows of `trials`, all of one sweep.
    keys: as of `stability_by`.
    """
    if not trials:
        return []
    groups = dict(
        zip(
            (str(row["trial_id"]) for row in trials),
            groups_of(trials, keys, binned=True),
            strict=True,
        )
    )
    one = str(trials[0]["trial_id"]) if len(trials) == 1 else None
    rows = database.comparisons(str(trials[0]["sweep"]), one).to_pylist(maps_as_pydicts="strict")
    found: dict[tuple[int, Group, str], list[Row]] = {}
    for row in rows:
        if row["trial_id"] not in groups:
            continue
        for kind in json.loads(row["settings"]).keys() & set(KINDS):
            # A mask meets other weights alone, which hang on the init seed and on no other.
            seeds = "init" if kind == TRANSFER else row["differs"]
            key = (KINDS.index(kind), groups[row["trial_id"]], seeds)
            found.setdefault(key, []).append(row)
    order = list(dict.fromkeys(groups.values()))

    def place(key: tuple[int, Group, str]) -> tuple[int, int, int, str]:
        kind, group, seeds = key
        return kind, order.index(group), seeds.count("+") + bool(seeds), seeds

    return [
        _function_row(key[1], KINDS[key[0]], key[2], found[key]) for key in sorted(found, key=place)
    ]


def function_records(rows: Iterable[FunctionRow], *, keys: Sequence[str]) -> list[dict[str, Any]]:
    """One flat record a measure, for JSON and CSV."""
    return [
        {
            **plain_group(keys, row.group),
            "kind": row.kind,
            "differs": row.differs,
            "measure": name,
            "mean": spread.mean,
            "least": spread.least,
            "most": spread.most,
            "pairs": row.pairs,
            "trials": row.trials,
        }
        for row in rows
        for name, spread in row.figures.items()
    ]


def _function_row(group: Group, kind: str, differs: str, rows: Sequence[Row]) -> FunctionRow:
    start = f"{kind}."
    by_trial: dict[str, list[dict[str, float]]] = {}
    without = 0
    for row in rows:
        own = {k.removeprefix(start): v for k, v in row["measures"].items() if k.startswith(start)}
        if BARRIER in own:
            own[STABLE] = float(own[BARRIER] < STABLE_BELOW)
        without += not own
        by_trial.setdefault(row["trial_id"], []).append(own)
    names = dict.fromkeys(name for pairs in by_trial.values() for own in pairs for name in own)
    settings = {
        json.dumps(json.loads(row["settings"])[kind], sort_keys=True): json.loads(row["settings"])
        for row in rows
    }
    return FunctionRow(
        group=group,
        kind=kind,
        differs=differs,
        figures={name: _spread(by_trial.values(), name) for name in names},
        pairs=len(rows),
        trials=len(by_trial),
        without=without,
        settings=tuple(each[kind] for each in settings.values()),
    )


def _spread(trials: Iterable[Sequence[Mapping[str, float]]], name: str) -> Spread:
    values = [[own[name] for own in pairs if name in own] for pairs in trials]
    known = [each for each in values if each]
    every = [value for each in known for value in each]
    means = [sum(each) / len(each) for each in known]
    return Spread(sum(means) / len(means), min(every), max(every))
