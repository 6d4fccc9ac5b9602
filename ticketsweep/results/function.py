"""What stored comparisons of tickets say, averaged over pairs and trials."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ticketsweep.analysis.intervals import jackknife_interval, trial_weights
from ticketsweep.results.grouping import Group, groups_of, order_of, plain_group
from ticketsweep.results.masks import Triple, seeds_by_trial
from ticketsweep.results.rows import Row
from ticketsweep.store.database import Database

PREDICTIONS, TRANSFER, CONNECTIVITY, ALIGN = "predictions", "transfer", "connectivity", "align"
KINDS = (PREDICTIONS, TRANSFER, CONNECTIVITY, ALIGN)
STABLE_BELOW = 0.02
"""Barrier of the test error below which Frankle et al. (2020) call a network stable."""

BARRIER, STABLE = "test_barrier", "stable"


@dataclass(frozen=True)
class PairSpread:
    """A measure of several pairs.

    Attributes
    ----------
    mean: over trials, of means over their pairs.
    least, most: of any pair.
    low, high: 95 % interval over seeds of the mean; None where there are fewer than three seeds of
        a kind that varies.
    """

    mean: float
    least: float
    most: float
    low: float | None
    high: float | None


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
    figures: Mapping[str, PairSpread]
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
    if not rows:
        return []
    seeds_of = seeds_by_trial(database.replicates(str(trials[0]["sweep"]), one))
    found: dict[tuple[int, Group, str], list[Row]] = {}
    for row in rows:
        if row["trial_id"] not in groups:
            continue
        for kind in json.loads(row["settings"]).keys() & set(KINDS):
            # A mask meets other weights alone, which hang on the init seed and on no other.
            seeds = "init" if kind == TRANSFER else row["differs"]
            key = (KINDS.index(kind), groups[row["trial_id"]], seeds)
            found.setdefault(key, []).append(row)
    order = sorted(set(groups.values()), key=order_of)

    def place(key: tuple[int, Group, str]) -> tuple[int, int, int, str]:
        kind, group, seeds = key
        return kind, order.index(group), seeds.count("+") + bool(seeds), seeds

    return [
        _function_row(key[1], KINDS[key[0]], key[2], found[key], seeds_of)
        for key in sorted(found, key=place)
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
            "low": spread.low,
            "high": spread.high,
            "pairs": row.pairs,
            "trials": row.trials,
        }
        for row in rows
        for name, spread in row.figures.items()
    ]


def _function_row(
    group: Group,
    kind: str,
    differs: str,
    rows: Sequence[Row],
    seeds_of: Mapping[str, Mapping[int, Triple]],
) -> FunctionRow:
    every = [_measures(row, kind) for row in rows]
    settings = {
        json.dumps(json.loads(row["settings"])[kind], sort_keys=True): json.loads(row["settings"])
        for row in rows
    }
    figures = {}
    for name in dict.fromkeys(name for own in every for name in own):
        having = [(row, own[name]) for row, own in zip(rows, every, strict=True) if name in own]
        figures[name] = _spread([row for row, _ in having], [v for _, v in having], seeds_of)
    return FunctionRow(
        group=group,
        kind=kind,
        differs=differs,
        figures=figures,
        pairs=len(rows),
        trials=len({row["trial_id"] for row in rows}),
        without=sum(not own for own in every),
        settings=tuple(each[kind] for each in settings.values()),
    )


def _measures(row: Row, kind: str) -> dict[str, float]:
    """Those of one kind, and what follows from them."""
    start = f"{kind}."
    own = {k.removeprefix(start): v for k, v in row["measures"].items() if k.startswith(start)}
    if BARRIER in own:
        own[STABLE] = float(own[BARRIER] < STABLE_BELOW)
    return own


def _spread(
    rows: Sequence[Row],
    values: Sequence[float],
    seeds_of: Mapping[str, Mapping[int, Triple]],
) -> PairSpread:
    figures = np.array(values)
    trial = np.unique([row["trial_id"] for row in rows], return_inverse=True)[1].astype(np.int64)
    weights = trial_weights(trial)
    # Pairs of a trial that differ in the same seeds are alike; unlike ones keep their shares.
    unlike = [f"{at} {row['differs']}" for at, row in zip(trial.tolist(), rows, strict=True)]
    strata = np.unique(unlike, return_inverse=True)[1].astype(np.int64)
    ends = [
        [seeds_of.get(row["trial_id"], {}).get(row[end]) for end in ("first", "second")]
        for row in rows
    ]
    interval = None
    if all(None not in both for both in ends):
        seeds = np.array(ends, dtype=np.int64).transpose(0, 2, 1)  # (P, factor, 2)
        interval = jackknife_interval(figures, weights, strata, seeds)
    return PairSpread(
        mean=float(figures @ weights),
        least=min(values),
        most=max(values),
        low=interval.low if interval else None,
        high=interval.high if interval else None,
    )
