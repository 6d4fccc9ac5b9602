"""The ticket beside what it is compared with, and which replicates are in no figure."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType

from ticketsweep.display.figures import NONE, plural, short, with_spread
from ticketsweep.display.terminal import Column, paragraph, table
from ticketsweep.names import CONTROLS
from ticketsweep.results.networks import NETWORKS, Difference, Network
from ticketsweep.results.rows import Row, config_of, setting_of
from ticketsweep.results.summary import Summary


def networks_table(summary: Summary, row: Row) -> list[RenderableType]:
    """The accuracies of a trial's networks, one a row, and by how much they differ.

    Nothing where the strong ticket is the only one.
    """
    shown = [network for network in NETWORKS if summary.spread(row, network.test)]
    if len(shown) < 2:
        return []
    parts: list[RenderableType] = [
        table(
            [
                Column("network", [network.label for network in shown], right=False, wrap=True),
                Column("test\naccuracy %", [_cell(summary, row, each.test) for each in shown]),
                Column(
                    "validation\naccuracy %",
                    [_cell(summary, row, each.validation) for each in shown],
                ),
            ]
        )
    ]
    controls = [name for name in CONTROLS if summary.spread(row, f"{name}_accuracy")]
    explained = _told(summary.differences.get(row["trial_id"], []), several=len(controls) > 1)
    steps = setting_of(config_of(row), "retrain.steps")
    if steps:
        explained.append(f"Retrained networks and the dense one had {plural(steps, 'step')} each.")
    return [*parts, "", paragraph(" ".join(explained))] if explained else parts


def diverged_note(summary: Summary, row: Row) -> str:
    """How many of a trial's replicates are left out of its figures; empty where none is."""
    steps = summary.diverged.get(row["trial_id"], [])
    if not steps:
        return ""
    at = ", ".join(map(str, sorted(set(steps))))
    verb = "is" if len(steps) == 1 else "are"
    return (
        f"{len(steps)} of {plural(_replicates(summary, row), 'replicate')} diverged "
        f"(at step {at}) and {verb} left out of every figure"
    )


def diverged_notes(summary: Summary) -> str:
    """The same of the best trials of a sweep, in one line; empty where none is."""
    lost = [
        f"{len(steps)} of {_replicates(summary, each.row)} in trial {short(each.row['trial_id'])}"
        for each in summary.best
        if (steps := summary.diverged.get(each.row["trial_id"]))
    ]
    if not lost:
        return ""
    return f"replicates that diverged are left out of every figure: {', '.join(lost)}"


def _replicates(summary: Summary, row: Row) -> int:
    """All replicates of a trial."""
    spread = summary.spread(row, "val_accuracy")
    return (spread.n if spread else 0) + len(summary.diverged.get(row["trial_id"], []))


def _cell(summary: Summary, row: Row, metric: str) -> str:
    spread = summary.spread(row, metric)
    return with_spread(spread.mean, spread.sd, metric) if spread else NONE


def _told(differences: Sequence[Difference], *, several: bool) -> list[str]:
    """The differences in points, and no verdict: a few seeds seldom allow one.

    `several`: there are controls to choose from.
    """
    if not differences:
        return []
    counts = {each.n for each in differences}
    over = f" over {plural(max(counts), 'replicate')}" if len(counts) == 1 else ""
    told = "; ".join(_difference(each, tell_n=not over) for each in differences)
    text = f"Differences in test accuracy, in points, mean (least to most){over}: {told}."
    choice = "Of the controls, the one that is best on the validation split is taken."
    return [text, choice] if several else [text]


def _difference(each: Difference, *, tell_n: bool) -> str:
    text = f"{each.of.label} less {_quoted(each.less)} {100 * each.mean:+.1f}"
    if each.n > 1:
        text += f" ({100 * each.low:+.1f} to {100 * each.high:+.1f})"
    return f"{text}, {plural(each.n, 'replicate')}" if tell_n else text


def _quoted(network: Network) -> str:
    return f"“{network.label}”" if "," in network.label else network.label
