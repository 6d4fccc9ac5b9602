"""The table of the best tickets, with the command lines that run them again; as HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from ticketsweep.display.figures import NONE, figure, is_share, short, with_spread
from ticketsweep.report.commands import export, run_again
from ticketsweep.report.text import label, overlap, same_init, value_of
from ticketsweep.results.report import ReportData
from ticketsweep.results.rows import Row, config_of, figure_of, setting_of

MOST = 200  # trials in the table


@dataclass(frozen=True)
class _Cell:
    """What is shown, and what it is sorted by."""

    text: str
    key: str
    is_text: bool = False


def tickets_table(data: ReportData) -> str:
    """The complete trials, best first; empty where there is none."""
    rows = list(data.complete)[:MOST]
    if not rows:
        return "<p>No trial is complete.</p>"
    ranks = {str(each.row["trial_id"]): each.rank for each in data.summary.ranked}
    metrics = data.summary.metrics
    searched = list(data.view.searched)
    heads = ["rank", "trial", "commands", *(_head(metric) for metric in metrics), "n", *searched]
    text_columns = {"trial", "commands", *searched}
    body = []
    for row in rows:
        trial_id = str(row["trial_id"])
        cells = list(_cells(data, row, ranks.get(trial_id), metrics, searched))
        body.append(_row(cells, _commands(data, row), first=ranks.get(trial_id) == 1))
    shown = "".join(
        f'<th scope="col"{" class=text" if name in text_columns else ""}>'
        + (escape(name) if name == "commands" else f'<button type="button">{escape(name)}</button>')
        + "</th>"
        for name in heads
    )
    more = ""
    if len(rows) < len(data.complete):
        command = escape(f"ticketsweep status {data.name}")
        more = (
            f'<p class="small">The best {len(rows)} of {len(data.complete):,} complete trials; '
            f"<code>{command}</code> and a query have the rest.</p>"
        )
    return (
        '<div class="tools"><label for="filter" class="visually-hidden">Filter the table</label>'
        '<input id="filter" type="search" placeholder="Filter: words, trial, setting" '
        'autocomplete="off"><span id="count" class="small" role="status">'
        f"{len(rows)} of {len(rows)} trials</span></div>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Table of tickets">'
        f'<table id="tickets"><thead><tr>{shown}</tr>'
        f"</thead><tbody>{''.join(body)}</tbody></table></div>{more}"
    )


def _head(metric: str) -> str:
    return f"{label(metric)} %" if is_share(metric) else label(metric)


def _cells(
    data: ReportData,
    row: Row,
    rank: int | None,
    metrics: Sequence[str],
    searched: Sequence[str],
) -> Iterator[_Cell]:
    trial_id = str(row["trial_id"])
    yield _Cell(str(rank or NONE), str(rank or ""))
    yield _Cell(short(trial_id), trial_id, True)
    for metric in metrics:
        value = figure_of(row, metric)
        key = "" if value is None else f"{value:.6g}"
        stable = same_init(data.stability.get(trial_id))
        if metric == "stability" and stable is not None:
            yield _Cell(overlap(stable), key)
            continue
        spread = data.summary.spread(row, metric)
        sd = spread.sd if spread and metric != "undecided" else None
        yield _Cell(with_spread(value, sd, metric) if sd else figure(value, metric), key)
    spread = data.summary.spread(row, "val_accuracy")
    yield _Cell(str(spread.n) if spread else NONE, str(spread.n) if spread else "")
    config = config_of(row)
    for key in searched:
        value = setting_of(config, key)
        if isinstance(value, dict):
            value = value.get("family", value)
        yield _Cell(value_of(value), "" if value is None else str(value), True)


def _commands(data: ReportData, row: Row) -> str:
    found = {
        "Run it again": run_again(row, storage=data.storage),
        "Write its best ticket to a file": export(row, storage=data.storage),
    }
    parts = "".join(
        f'<div class="command"><p class="small">{what} '
        f'<button type="button" class="copy">Copy</button></p>'
        f"<pre><code>{escape(command)}</code></pre></div>"
        for what, command in found.items()
        if command
    )
    return f'<details><summary>Show</summary><div class="commands">{parts}</div></details>'


def _row(cells: Sequence[_Cell], commands: str, *, first: bool) -> str:
    words = escape(" ".join(cell.text for cell in cells).lower(), quote=True)
    shown = [
        f'<td{" class=text" if cell.is_text else ""} data-sort="{escape(cell.key, quote=True)}">'
        f"{escape(cell.text)}</td>"
        for cell in cells
    ]
    shown.insert(2, f'<td class="text">{commands}</td>')
    mark = ' class="first"' if first else ""
    return f'<tr{mark} data-text="{words}">{"".join(shown)}</tr>'
