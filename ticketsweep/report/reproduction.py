"""What it takes to get the same again: versions, machines, seeds, the search space; as HTML."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape

from ticketsweep.display.figures import NONE, duration, plural, short
from ticketsweep.results.report import ReportData
from ticketsweep.results.rows import Row, config_of, figure_of, finite_number, setting_of

_MOST_SEEDS = 64  # replicates of the first trial whose seeds are listed


def reproduction(data: ReportData) -> str:
    """Environment and seeds."""
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in _facts(data))
    return (
        '<section id="again"><h2>To reproduce it</h2><p class="intro">On the same processor, with '
        "as many threads and the same packs, a trial ends with the same masks, bit for bit; "
        f"elsewhere sums are rounded in another order.</p><dl>{facts}</dl>"
        f"{_seeds(data)}{_space(data)}</section>"
    )


def _facts(data: ReportData) -> list[tuple[str, str]]:
    rows, view = data.view.trials, data.view
    seconds = [s for row in rows if (s := finite_number(row.get("wall_seconds"))) is not None]
    times = [row["started_at"] for row in rows if isinstance(row.get("started_at"), datetime)]
    threads = [f"{n:.0f}" for row in rows if (n := figure_of(row, "threads")) is not None]
    facts = [
        ("ticketsweep", _counted(str(row.get("version") or NONE) for row in rows)),
        ("Hosts", _counted(str(row.get("host") or NONE) for row in rows)),
        ("Devices", _counted(str(row.get("device") or NONE) for row in rows)),
    ]
    if threads:
        facts.append(("Threads a trial", _counted(threads)))
    if times:
        first, last = min(times).astimezone(UTC), max(times).astimezone(UTC)
        facts.append(("Begun", f"{first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC"))
    if seconds:
        facts.append(("Time of all trials together", duration(sum(seconds))))
    if view.row is not None:
        facts.append(("Seed of the search", str(view.row.get("seed"))))
    roots = {str(setting_of(config_of(row), "seed")) for row in view.complete}
    if roots:
        facts.append((f"Root seed{'s' if len(roots) > 1 else ''} of the trials", ", ".join(roots)))
    return facts


def _counted(values: Iterable[str]) -> str:
    """`a (3 trials), b (1 trial)`."""
    found = Counter(values)
    return ", ".join(f"{name} ({plural(n, 'trial')})" for name, n in found.most_common()) or NONE


def _seeds(data: ReportData) -> str:
    """The seeds of the replicates of the first of the best."""
    if not data.best:
        return ""
    trial_id = str(data.best[0].row["trial_id"])
    rows: list[Row] = sorted(data.replicates.get(trial_id, []), key=lambda r: r["replicate"])
    names = ("replicate", "init_seed", "data_seed", "gate_seed")
    heads = "".join(f'<th scope="col">{name.replace("_", " ")}</th>' for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_plain(row.get(n)))}</td>" for n in names) + "</tr>"
        for row in rows[:_MOST_SEEDS]
    )
    return (
        f"<details><summary>Seeds of the replicates of trial {escape(short(trial_id))}; other "
        "trials with as many replicates and the same root seed have the same</summary>"
        f'<div class="scroll" tabindex="0"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div></details>"
    )


def _plain(value: object) -> str:
    return NONE if value is None else str(value)


def _space(data: ReportData) -> str:
    if data.view.row is None or not data.view.row.get("space"):
        return ""
    space = json.dumps(json.loads(str(data.view.row["space"])), indent=2)
    return (
        "<details><summary>The search space, with defaults</summary>"
        f"<pre><code>{escape(space)}</code></pre></details>"
    )
