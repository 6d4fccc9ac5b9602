"""Trials of a sweep compared: how stable their tickets are, how accurate and how sparse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ticketsweep.analysis.layers import ALL_LAYERS, LayerBits, Seeds
from ticketsweep.analysis.stability import Stability, StabilityRow, sweep_stability
from ticketsweep.errors import UserError, did_you_mean
from ticketsweep.readable import Readable
from ticketsweep.results.grouping import Group, groups_of, order_of
from ticketsweep.results.masks import seeds_by_trial, seeds_of, ticket_layers
from ticketsweep.results.rows import Row, is_imported
from ticketsweep.results.settling import SweepSettling, settling_by
from ticketsweep.results.spread import Spread, spread_of
from ticketsweep.store.database import Database

COMPARED = ("val_accuracy", "strong_accuracy", "sparsity")
"""Figures of replicates that are compared beside their stability."""

_PROBLEM = ("dataset", "model")  # averaged over several of these, figures say little


@dataclass(frozen=True)
class Comparison:
    """Trials that share the values of the keys they were grouped by.

    Parameters
    ----------
    trials: how many.
    figures: each of `COMPARED` that is known -> its spread over the replicates of all of them.
    stability: averaged over them; None where no trial has masks that can be compared.
    """

    trials: int
    figures: Mapping[str, Spread]
    stability: Stability | None


@dataclass(frozen=True)
class SweepComparison(Readable):
    """The trials of a sweep by the values of `keys`, and where along training masks settle."""

    keys: tuple[str, ...]
    groups: Mapping[Group, Comparison]
    settling: SweepSettling

    @property
    def stability(self) -> dict[Group, Stability]:
        """Of the groups that have one."""
        return {group: of.stability for group, of in self.groups.items() if of.stability}

    def __str__(self) -> str:
        if not self.groups:
            return "no complete trial to compare"
        return "\n".join(self._line(group, of) for group, of in self.groups.items())

    def _line(self, group: Group, of: Comparison) -> str:
        values = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in group)
        key = ", ".join(f"{k} {v}" for k, v in zip(self.keys, values, strict=True)) or "all"
        said = [f"{of.trials} trial{'s' if of.trials > 1 else ''}"]
        accuracy, sparsity = of.figures.get("strong_accuracy"), of.figures.get("sparsity")
        if accuracy:
            said.append(f"test accuracy {accuracy}")
        if sparsity:
            said.append(f"sparsity {sparsity}")
        if of.stability and of.stability.score is not None:
            said.append(f"stability {of.stability.score:z.2f}")
        return f"{key}: {', '.join(said)}"


def compare_by(
    database: Database,
    trials: Sequence[Row],
    *,
    keys: Sequence[str],
    layer: str | None,
    warn: Callable[[str], None],
) -> SweepComparison:
    """Compare the trials that share the values of `keys` with the others.

    Arguments as of `stability_by`, but that there may be no trial, and that a key with more than
    eight distinct numbers is cut into quarters of the trials (`grouping.Bin`). What it raises is
    the same.
    """
    if not trials:
        return SweepComparison(tuple(keys), {}, SweepSettling((), 0))
    groups = groups_of(trials, keys, binned=True)
    stability = _stability(database, trials, groups, layer=layer, warn=warn)
    replicates: dict[str, list[Row]] = {}
    for row in database.replicates(sweep=str(trials[0]["sweep"])).to_pylist():
        replicates.setdefault(row["trial_id"], []).append(row)
    members: dict[Group, list[str]] = {}
    for row, group in zip(trials, groups, strict=True):
        members.setdefault(group, []).append(str(row["trial_id"]))
    return SweepComparison(
        tuple(keys),
        {
            group: Comparison(
                len(members[group]),
                _figures([row for one in members[group] for row in replicates.get(one, ())]),
                stability.get(group),
            )
            for group in sorted(members, key=order_of)
        },
        settling_by(database, trials, groups=groups, layer=layer, warn=warn),
    )


def _figures(replicates: Sequence[Row]) -> dict[str, Spread]:
    found = {name: spread_of(row.get(name) for row in replicates) for name in COMPARED}
    return {name: spread for name, spread in found.items() if spread is not None}


def stability_by(
    database: Database,
    trials: Sequence[Row],
    *,
    keys: Sequence[str],
    layer: str | None,
    warn: Callable[[str], None],
) -> dict[Group, Stability]:
    """Stability of trials, averaged over those that share the values of `keys`.

    The masks of one trial are in memory at a time.

    Parameters
    ----------
    trials: rows of `trials`, at least one, all of one sweep.
    keys: columns of `trials`, or dotted settings; without any, all trials are one group.
    layer: looks at one layer alone.
    warn: told of each trial that had to be left out, and where unlike trials are averaged.

    Raises
    ------
    UserError: a key or a layer that none of the trials has.
    """
    groups = groups_of(trials, keys, binned=False)
    return _stability(database, trials, groups, layer=layer, warn=warn)


def _stability(
    database: Database,
    trials: Sequence[Row],
    groups: Sequence[Group],
    *,
    layer: str | None,
    warn: Callable[[str], None],
) -> dict[Group, Stability]:
    for name, values in _averaged_over(trials, groups):
        warn(
            f"averaged over trials of more than one {name} ({', '.join(values)}): "
            f"--by {name} keeps them apart, --trial ID looks at one trial"
        )
    sweep = str(trials[0]["sweep"])
    seeds = seeds_by_trial(database.replicates(sweep=sweep))

    def compared() -> Iterator[tuple[Group, list[LayerBits], Seeds]]:
        for row, group in zip(trials, groups, strict=True):
            trial_id = str(row["trial_id"])
            if is_imported(row):
                warn(
                    f"trial {trial_id} is left out: it was imported, and which seeds differ in its "
                    "replicates is not known (a query compares its masks: mask_jaccard)"
                )
                continue
            masks = database.masks(sweep=sweep, trial=trial_id, layer=layer)
            of = seeds_of(masks, seeds.get(trial_id, {}))
            if of is not None:
                yield group, ticket_layers(masks), of
            elif layer is None:
                warn(f"trial {trial_id} is left out: its masks or its replicates are not there")

    found = sweep_stability(compared())
    if layer is not None and not found and not all(is_imported(row) for row in trials):
        names = database.sql(f"select distinct layer from masks where sweep = '{sweep}'")
        hint = did_you_mean(layer, names["layer"].to_pylist())
        raise UserError(f"--layer must be a layer of sweep {sweep}, got {layer!r} ({hint})")
    if layer is not None:  # pooled over the one layer, the figures are the same
        found = {group: _without_pooled(each) for group, each in found.items()}
    return dict(sorted(found.items(), key=lambda item: order_of(item[0])))


def figures_of_agreement(row: StabilityRow) -> dict[str, Any]:
    """What a row says, as plain values for JSON and CSV.

    Its `z` is left out: it takes a layer's gates for independent, so it grows with the layer and
    reads as a certainty that a few seeds cannot give.
    """
    figures = asdict(row)
    del figures["z"]
    return figures


def _averaged_over(
    trials: Sequence[Row], groups: Sequence[Group]
) -> Iterator[tuple[str, list[str]]]:
    """Names of what trials of one group differ in though they should not, with the values."""
    for name in _PROBLEM:
        found: dict[Group, set[str]] = {}
        for row, group in zip(trials, groups, strict=True):
            found.setdefault(group, set()).add(str(row[name]))
        several = [values for values in found.values() if len(values) > 1]
        if several:
            yield name, sorted(set().union(*several))


def _without_pooled(stability: Stability) -> Stability:
    """Of one layer, on which the figures pooled over layers are the same again."""
    return replace(
        stability,
        rows=tuple(row for row in stability.rows if row.layer != ALL_LAYERS),
        pairs=tuple(
            replace(trial, figures={k: v for k, v in trial.figures.items() if k != ALL_LAYERS})
            for trial in stability.pairs
        ),
    )


def gates_of(trials: Sequence[Row]) -> str:
    """What the gates of these trials stand for: "weights", "units", or, in a mixture, "gates"."""
    names = {"units" if row.get("granularity") == "neuron" else "weights" for row in trials}
    return names.pop() if len(names) == 1 else "gates"


def trial_named(trials: Sequence[Row], prefix: str) -> Row:
    """The trial whose id begins so. Raises UserError where none does, or several do."""
    found = [row for row in trials if str(row["trial_id"]).startswith(prefix)]
    if len(found) == 1 and prefix:
        return found[0]
    shown = ", ".join(str(row["trial_id"]) for row in (found or trials)[:5])
    rest = ", …" if len(found or trials) > 5 else ""
    rule = "begins the ids of several" if found else "begins the id of none"
    raise UserError(f"--trial {prefix!r} {rule} of the complete trials ({shown}{rest})")
