"""What `best` and `confirm` show: trials at given sparsities, and settings run with fresh seeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType

from ticketsweep.display.figures import NONE, figure, is_share, plural, short, with_spread
from ticketsweep.display.terminal import Column, paragraph, tables
from ticketsweep.display.trials import header, settings_columns
from ticketsweep.results.best import BestTrials, figures_as_plain, settings_as_plain
from ticketsweep.results.confirming import Confirmed, Wanted, mean_shrinkage
from ticketsweep.results.rows import Row
from ticketsweep.results.spread import Spread


def best_answer(console: Console, best: BestTrials, *, trials: int) -> list[RenderableType]:
    """A line for each trial, and how it was chosen among so many complete `trials`."""
    rows = [each.row or {} for each in best.trials]
    figures = [each.figures for each in best.trials]
    key = [
        Column("sparsity\nat least %", [_percent(each.least) for each in best.trials]),
        Column("trial", [short(row["trial_id"]) if row else NONE for row in rows], right=False),
    ]
    columns = [_spread_column(name, header(name), figures) for name in best.metrics]
    columns.append(_counts(figures, best.metrics[0]))
    sparsest = "" if best.sparsest is None else f" (the sparsest: {100 * best.sparsest:.2f} %)"
    note = (
        f"The best by {figure_name(best.by)} among {plural(trials, 'complete trial')} that are at "
        f"least so sparse{sparsest}; ±: standard deviation over n replicates. Nothing was chosen "
        "by test figures. The best of many is partly luck: `ticketsweep confirm` measures it again "
        "with fresh seeds."
    )
    drawn = tables(console, key, columns, settings_columns(rows, best.searched))
    return [drawn, "", paragraph(note)]


def confirmed_answer(
    console: Console,
    found: Sequence[Confirmed],
    wanted: Wanted,
    *,
    searched: Sequence[str],
) -> list[RenderableType]:
    """The search's figures beside those of fresh seeds, and how far the first are above.

    Parameters
    ----------
    found: what has come of `wanted`.
    searched: dotted keys of the settings that the sweep searches over.
    """
    rows = [each.row for each in found]
    validation, test, *others = wanted.metrics
    before, after = [each.before for each in found], [each.after for each in found]
    key = [Column("trial", [short(row["trial_id"]) for row in rows], right=False)]
    if wanted.at:
        shares = [", ".join(map(_percent, wanted.at[str(row["trial_id"])])) for row in rows]
        key.append(Column("sparsity\nat least %", shares, right=False))
    figures = [
        _spread_column(validation, f"{header(validation)}\nin the search", before),
        _spread_column(validation, f"{header(validation)}\nfresh seeds", after),
        Column("falls by", [_signed(each.shrinkage(validation), validation) for each in found]),
        _spread_column(test, f"{header(test)}\nfresh seeds", after),
        _counts(after, validation),
    ]
    for name in others:
        figures.append(_spread_column(name, f"{header(name)}\nin the search", before))
        figures.append(_spread_column(name, f"{header(name)}\nfresh seeds", after))
    drawn = tables(console, key, figures, settings_columns(rows, searched))
    return [drawn, "", paragraph(_told(found, validation))]


def confirmed_records(
    found: Sequence[Confirmed],
    wanted: Wanted,
    *,
    searched: Sequence[str],
    command: Callable[[Row], str | None],
) -> list[dict[str, Any]]:
    """One a line of `confirmed_answer`, with plain values.

    `search_…` are the search's figures; the test figure of the search is left out, since a figure
    of trials that were chosen by a split beside it says less than that of fresh seeds.
    """
    validation, test, *others = wanted.metrics
    return [
        {
            "trial_id": each.row["trial_id"],
            **(
                {"sparsity_at_least": list(wanted.at[str(each.row["trial_id"])])}
                if wanted.at
                else {}
            ),
            "confirmed_trial_id": each.again and each.again["trial_id"],
            **figures_as_plain(each.before, [validation, *others], prefix="search_"),
            **figures_as_plain(each.after, [validation, test, *others]),
            "shrinkage": each.shrinkage(validation),
            **settings_as_plain(each.row, searched),
            "command": each.again and command(each.again),
        }
        for each in found
    ]


def figure_name(metric: str) -> str:
    """`validation accuracy` for `val_accuracy`: a metric as a sentence names it."""
    return metric.replace("val_", "validation_").replace("strong_", "test_").replace("_", " ")


def _told(found: Sequence[Confirmed], validation: str) -> str:
    mean = mean_shrinkage(found, validation)
    name = figure_name(validation)
    said = (
        "in the search: what the choice looked at; fresh seeds: the same settings with seeds that "
        "the search has not seen; ±: standard deviation over n replicates. The validation images "
        "are the search's own, so what fits them alone does not show in the difference; nothing "
        "was chosen by the test figures, which are free of that too."
    )
    if mean is None:
        return said
    unit = " points" if is_share(validation) else ""
    way = "above" if mean >= 0 else "below"
    known = sum(each.shrinkage(validation) is not None for each in found)
    return (
        f"On average over {plural(known, 'setting')} the search's {name} lies "
        f"{figure(abs(mean), validation)}{unit} {way} that of fresh seeds (all settings have the "
        f"same ones, so part of it may be theirs). {said[0].upper()}{said[1:]}"
    )


def _spread_column(name: str, head: str, of: Sequence[Mapping[str, Spread]]) -> Column:
    spreads = [each.get(name) for each in of]
    return Column(head, [with_spread(s.mean, s.sd, name) if s else NONE for s in spreads])


def _counts(of: Sequence[Mapping[str, Spread]], metric: str) -> Column:
    spreads = [each.get(metric) for each in of]
    return Column("n", [str(each.n) if each else NONE for each in spreads])


def _percent(share: float) -> str:
    return f"{100 * share:.6g}"


def _signed(value: float | None, name: str) -> str:
    if value is None:
        return NONE
    return f"{100 * value:+.2f}" if is_share(name) else f"{value:+.4g}"
