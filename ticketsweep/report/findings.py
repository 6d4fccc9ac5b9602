"""The sweep in sentences: what was found, with intervals, and what cannot be said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

from ticketsweep.analysis.stability import OTHER_INIT, SAME_INIT
from ticketsweep.display.figures import first_line, plural, short
from ticketsweep.progress import UNDER_WAY
from ticketsweep.report.text import label, overlap, percent, row_of, same_init, with_sd
from ticketsweep.results.choosing import told_figures
from ticketsweep.results.confirming import confirming_name, confirms_another, mean_shrinkage
from ticketsweep.results.networks import STRONG, Network
from ticketsweep.results.report import ReportData
from ticketsweep.results.rows import Row, config_of, figure_of, setting_of, state_of

MUCH_UNDECIDED = 0.05
_FEW_TRIALS = 10


@dataclass(frozen=True)
class Tile:
    """A figure to begin with: its value, and what it is."""

    value: str
    what: str


def tiles(data: ReportData) -> list[Tile]:
    """At most four figures that sum the sweep up."""
    asked = data.view.row.get("samples") if data.view.row else None
    complete = len(data.view.complete)
    of = (
        f"of {asked:,} trials complete"
        if asked and asked >= complete
        else f"trial{'' if complete == 1 else 's'} complete"
    )
    found = [Tile(f"{complete:,}", of)]
    if not data.best:
        return found
    first = data.best[0].row
    accuracy, sparsity = data.mean_accuracy(first), figure_of(first, "sparsity")
    if accuracy is not None and sparsity is not None:
        found.append(Tile(percent(accuracy), f"test accuracy at {percent(sparsity)} sparsity"))
    row = same_init(data.stability.get(str(first["trial_id"])))
    if row is not None and row.corrected is not None:
        interval = f" [{row.low:z.2f}, {row.high:z.2f}]" if row.low is not None else ""
        what = f"overlap{interval} beyond chance of its tickets from the same initial weights"
        found.append(Tile(f"{row.corrected:z.2f}", what))
    for each in data.summary.differences.get(str(first["trial_id"]), []):
        if each.of is STRONG:
            found.append(Tile(f"{100 * each.mean:+.1f}", "points over its best control"))
    return found


def findings(data: ReportData) -> list[str]:
    """What was found, a sentence each."""
    return list(_found(data))


def _found(data: ReportData) -> Iterator[str]:
    if not data.best:
        return
    first = data.best[0].row
    yield _ticket(data, first)
    for each in data.summary.differences.get(str(first["trial_id"]), []):
        side = "above" if each.mean >= 0 else "below"
        yield (
            f"Its {each.of.label} lies {100 * abs(each.mean):.1f} points {side} "
            f"{_named(each.less)} ({100 * each.low:+.1f} to {100 * each.high:+.1f} over "
            f"{plural(each.n, 'replicate')})."
        )
    yield from _confirmed(data)
    yield from _agreement(data, first)
    yield from _attribution(data)
    front = [each.row for each in data.summary.ranked if each.rank == 1]
    sparsest = max(front, key=lambda row: figure_of(row, "sparsity") or 0.0)
    if sparsest is not first and (accuracy := data.mean_accuracy(sparsest)) is not None:
        yield (
            f"The sparsest of rank 1, trial {short(sparsest['trial_id'])}, leaves out "
            f"{percent(figure_of(sparsest, 'sparsity'))} of the weights and still reaches "
            f"{percent(accuracy)}."
        )


def _named(network: Network) -> str:
    """`the dense network`; controls by what they are."""
    if network is STRONG or network.label.startswith("dense"):
        return f"the {network.label}"
    what = network.label.replace(", retrained", "")
    retrained = ", retrained too" if what != network.label else ""
    return f"the control “{what}”{retrained}"


def _ticket(data: ReportData, row: Row) -> str:
    objective = next(iter(data.summary.objectives))
    trial_id = str(row["trial_id"])
    accuracies = data.accuracies(trial_id).get(STRONG.label, [])
    told = with_sd(accuracies) if accuracies else percent(data.mean_accuracy(row))
    over = f" ({plural(len(accuracies), 'replicate')})" if accuracies else ""
    steps = setting_of(config_of(row), "rewind_step")
    weights = f"weights of step {steps:,}" if steps else "untouched random weights"
    return (
        f"Trial {short(trial_id)}, the first of rank 1 by {label(objective)}, keeps "
        f"{percent(figure_of(row, 'density'))} of its weights and classifies {told} of the test "
        f"images correctly{over} on {weights}."
    )


def _confirmed(data: ReportData) -> Iterator[str]:
    if not data.confirmed:
        return
    validation, test = told_figures(data.view.objectives)[:2]
    again = f"with fresh seeds (sweep {confirming_name(data.name)})"
    fall = mean_shrinkage(data.confirmed, validation)
    if fall is not None:
        known = sum(each.shrinkage(validation) is not None for each in data.confirmed)
        moved = f"{abs(100 * fall):.1f} points {'below' if fall >= 0 else 'above'}"
        yield (
            f"Run again {again}, {plural(known, 'trial')} of the best "
            f"{'lies' if known == 1 else 'lie'} {moved} the search's own figure in "
            f"{label(validation)} (mean)."
        )
    first = data.confirmed[0]
    if (spread := first.after.get(test)) is not None:
        yield (
            f"Trial {short(first.row['trial_id'])} then reaches {spread} in {label(test)} "
            f"({plural(spread.n, 'replicate')}), a figure that nothing was chosen by."
        )


def _agreement(data: ReportData, first: Row) -> Iterator[str]:
    own = data.stability.get(str(first["trial_id"]))
    same, other = row_of(own, SAME_INIT), row_of(own, OTHER_INIT)
    if same is not None and same.corrected is not None:
        yield (
            f"Its tickets from the same initial weights overlap by {overlap(same)} beyond chance "
            "(1 is the same ticket, 0 chance)"
            + (f", those from other initial weights by {overlap(other)}." if other else ".")
        )
    elif other is not None and other.corrected is not None:
        yield f"Its tickets from other initial weights overlap by {overlap(other)} beyond chance."
    pooled = same_init(data.together)
    if pooled is not None and pooled.trials > 1 and pooled.corrected is not None:
        yield (
            f"On average over {pooled.trials} trials, tickets from the same initial weights "
            f"overlap by {overlap(pooled)} beyond chance."
        )


def _attribution(data: ReportData) -> Iterator[str]:
    found = data.together.attribution if data.together else ()
    if not found or len(found[-1].factors) < 2:
        return
    words = {"init": "the initial weights", "data": "the data order", "gate": "the gate noise"}
    parts = [
        f"{words[each.factor]} {each.alone}" for each in found[-1].factors if each.alone is not None
    ]
    if parts:
        yield (
            f"Of the part of a ticket that density does not give, alone fix: {', '.join(parts)} "
            f"(common to all seeds: {found[-1].common})."
        )


def cautions(data: ReportData) -> list[str]:
    """What cannot be said, or should be taken with care; a sentence each."""
    return list(dict.fromkeys(_cautions(data)))


def _cautions(data: ReportData) -> Iterator[str]:
    view = data.view
    if not view.trials:
        yield "No trial is stored yet, so there is nothing to show."
        return
    if not view.complete:
        yield "No trial is complete, so nothing can be said about tickets."
    elif not data.best:
        told = ", ".join(label(name) for name in view.objectives)
        yield f"No complete trial has all objectives ({told}), so none is ranked."
    yield from _lost(data)
    replicates = {len(data.replicates.get(str(e.row["trial_id"]), [])) for e in data.best}
    if data.best and replicates == {1}:
        yield (
            "Each trial has one replicate: how far a result depends on its seeds cannot be said, "
            "nor whether another seed finds the same ticket."
        )
    if data.together is not None:
        yield from (
            f"{each[0].upper()}{each[1:]}."
            for attribution in data.together.attribution[-1:]
            for each in attribution.cautions
        )
    was_searched = view.row is not None and bool(view.row.get("space"))
    may_be_confirmed = was_searched and not data.confirmed and not confirms_another(data.name)
    if len(data.best) > 1 and may_be_confirmed:
        yield (
            "The best trials were chosen by these figures, which flatters them: "
            f"`ticketsweep confirm {data.name}` measures them again with fresh seeds."
        )
    if 0 < len(view.complete) < _FEW_TRIALS:
        of = plural(len(view.complete), "complete trial")
        yield f"{of} {'are' if len(view.complete) > 1 else 'is'} too few for trends over settings."
    if len(data.problems) > 1:
        yield (
            f"The trials solve {len(data.problems)} problems (model and data set): figures over "
            "all trials mix them; means over masks, means of a setting's values and comparisons in "
            "function take those of the first alone."
        )
    open_ = [figure_of(each.row, "undecided") for each in data.best]
    much = [value for value in open_ if value is not None and value > MUCH_UNDECIDED]
    if much:
        of = (
            f"{len(much)} of the {len(data.best)} best trials"
            if len(data.best) > 1
            else "the trial"
        )
        yield (
            f"In {of} more than 5 % of the gates were undecided when they were hardened (mean "
            f"{percent(fmean(much))}): longer or colder training would settle them."
        )
    yield from (f"{each[0].upper()}{each[1:]}." for each in data.left_out)


def _lost(data: ReportData) -> Iterator[str]:
    for state in ("failed", "stopped", UNDER_WAY):
        rows = [row for row in data.view.trials if state_of(row) == state]
        if rows:
            first = f": {first_line(rows[0].get('error'))}" if state == "failed" else ""
            yield f"{plural(len(rows), 'trial')} {state.replace('_', ' ')}{first}."
    if data.summary.diverged:
        count = sum(len(steps) for steps in data.summary.diverged.values())
        verb = "is" if count == 1 else "are"
        yield f"{plural(count, 'replicate')} diverged and {verb} left out of every figure."
