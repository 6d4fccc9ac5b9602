"""The report as one HTML file: it needs no network, and its policy forbids it to ask for any."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from typing import Any

from plotly.offline import get_plotlyjs

from ticketsweep import __version__
from ticketsweep.display.figures import plural
from ticketsweep.report.contents import sections
from ticketsweep.report.drawn import Drawn, Section
from ticketsweep.report.findings import cautions, findings, tiles
from ticketsweep.report.reproduction import reproduction
from ticketsweep.report.text import cell, label
from ticketsweep.report.theme import DARK, TEMPLATE
from ticketsweep.report.tickets import tickets_table
from ticketsweep.report.words import METHOD, WORDS
from ticketsweep.results.report import ReportData

_MOST_ROWS = 500  # of the table behind a figure


def report_page(data: ReportData, *, made: datetime) -> str:
    """The whole page.

    Parameters
    ----------
    made: when, for the foot of the page.
    """
    tables = _Tables()
    parts = sections(data)
    body = "".join(_section(part, tables) for part in parts)
    library, own = _script(get_plotlyjs()), _script(_asset("page.js"))
    shared = {
        "dark": dict(DARK),
        "template": TEMPLATE.to_plotly_json(),
        "tables": tables.known,
    }
    contents = [(part.key, part.heading) for part in parts]
    contents += [("table", "Tickets"), ("words", "Words"), ("method", "How it is computed")]
    contents += [("again", "To reproduce it")]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy([library, own])}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="ticketsweep {escape(__version__)}">
<title>{escape(data.name)}: tickets</title>
<style>{_asset("page.css")}</style>
</head>
<body>
<a class="skip" href="#findings">Skip to what was found</a>
<div class="page">
{_head(data)}
{_contents(contents)}
<main>
{_findings(data)}
{body}
<section id="table"><h2>Tickets</h2><p class="intro">Complete trials, rank 1 in bold; ± is the
standard deviation over n replicates, [ ] a 95 % interval over seeds. The commands run a trial again
and write its best ticket to a file.</p>{tickets_table(data)}</section>
{_words()}
{reproduction(data)}
</main>
<footer class="small">Made by ticketsweep {escape(__version__)} on
{made.astimezone(UTC):%Y-%m-%d at %H:%M} UTC. This file asks nothing of any network.</footer>
</div>
<p id="copied" class="visually-hidden" role="status"></p>
<p id="undrawn" class="care" hidden>This browser is too old to draw the figures; their tables,
the tickets and the words are here.</p>
<noscript><p>The figures need JavaScript; the tickets and words are here without it.</p></noscript>
<script type="application/json" id="shared">{_json(shared)}</script>
<script type="text/plain" id="library">{_packed(library)}</script>
<script>{own}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return files("ticketsweep.report").joinpath("assets", name).read_text(encoding="utf-8")


def _script(source: str) -> str:
    """As a browser reads it inside an element: its line ends are part of what the policy hashes."""
    return source.replace("\r\n", "\n").replace("\r", "\n")


def _packed(source: str) -> str:
    """A third of its size, in letters; the page unpacks it, and the policy knows it unpacked."""
    return base64.b64encode(gzip.compress(source.encode(), mtime=0)).decode()


def _policy(scripts: Sequence[str]) -> str:
    """Nothing is fetched, from anywhere, and only these scripts run."""
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _json(value: object) -> str:
    """JSON that no browser takes for markup; NaN is refused."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


class _Tables:
    """The tables behind the figures, each once, whatever number of figures shows the same."""

    def __init__(self) -> None:
        self.known: list[Mapping[str, Any]] = []
        self._places: dict[str, int] = {}

    def place(self, drawn: Drawn) -> int:
        """The number of a figure's table."""
        rows = [
            [cell(value, name) for name, value in zip(drawn.columns, row, strict=True)]
            for row in drawn.rows[:_MOST_ROWS]
        ]
        table = {"columns": list(drawn.columns), "rows": rows}
        key = hashlib.sha256(json.dumps(table).encode()).hexdigest()
        if key not in self._places:
            self._places[key] = len(self.known)
            self.known.append(table)
        return self._places[key]


def _head(data: ReportData) -> str:
    told = [f"{model} on {dataset}" for model, dataset in data.problems[:3]]
    more = f" and {len(data.problems) - 3} more" if len(data.problems) > 3 else ""
    aims = ", ".join(f"{label(name)} ({way})" for name, way in data.view.objectives.items())
    problem = f"{'; '.join(told)}{more} · " if told else ""
    return (
        '<header class="top"><p class="kicker">Which sparse subnetworks win, and does another seed '
        f"find the same one?</p><h1>{escape(data.name)}</h1>"
        f'<p class="intro">{escape(problem)}searched for {escape(aims)}</p></header>'
    )


def _contents(entries: Sequence[tuple[str, str]]) -> str:
    items = [("findings", "What was found"), *entries]
    listed = "".join(f'<li><a href="#{key}">{escape(text)}</a></li>' for key, text in items)
    return (
        '<nav class="toc" aria-label="Contents"><details open><summary>Contents</summary>'
        f"<ol>{listed}</ol></details></nav>"
    )


def _findings(data: ReportData) -> str:
    shown = "".join(
        f"<li><b>{escape(tile.value)}</b><span>{escape(tile.what)}</span></li>"
        for tile in tiles(data)
    )
    found = "".join(f"<li>{escape(each)}</li>" for each in findings(data))
    care = "".join(f"<li>{_prose(each)}</li>" for each in cautions(data))
    said = f'<ul class="found">{found}</ul>' if found else ""
    box = (
        f'<aside class="care"><h3>With care, or not at all</h3><ul>{care}</ul></aside>'
        if care
        else ""
    )
    return (
        '<section id="findings"><h2>What was found</h2>'
        f'<ul class="tiles">{shown}</ul>{said}{box}</section>'
    )


def _section(section: Section, tables: _Tables) -> str:
    menus = list(dict.fromkeys(menu for each in section.figures for menu in each.choice))
    alone = [each for each in section.figures if not each.choice]
    chosen = [each for each in section.figures if each.choice]
    parts = [_figure(each, tables, hidden=False) for each in alone]
    if chosen:
        shown = "".join(_figure(each, tables, hidden=at > 0) for at, each in enumerate(chosen))
        parts.append(f'<div class="panel">{_menus(menus, chosen)}{shown}</div>')
    notes = "".join(f"<li>{_prose(note)}</li>" for note in section.notes)
    box = f'<aside class="care"><ul>{notes}</ul></aside>' if notes else ""
    return (
        f'<section id="{section.key}"><h2>{escape(section.heading)}</h2>'
        f'<p class="intro">{escape(section.intro)}</p>{box}{"".join(parts)}</section>\n'
    )


def _prose(sentence: str) -> str:
    """A sentence as HTML; what stands in backticks is code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(sentence))


def _menus(names: Sequence[str], figures: Sequence[Drawn]) -> str:
    parts = []
    for name in names:
        entries = dict.fromkeys(each.choice[name] for each in figures if name in each.choice)
        if len(entries) > 1:
            options = "".join(f"<option>{escape(entry)}</option>" for entry in entries)
            parts.append(
                f"<label>{escape(name)} "
                f'<select data-menu="{escape(name)}" autocomplete="off">{options}</select></label>'
            )
    return f'<div class="menus">{"".join(parts)}</div>' if parts else ""


def _figure(drawn: Drawn, tables: _Tables, *, hidden: bool) -> str:
    spec = drawn.figure.to_plotly_json()
    spec = {"data": spec["data"], "layout": {**spec["layout"], "template": None}}
    choice = escape(json.dumps(dict(drawn.choice)), quote=True)
    rows = len(drawn.rows)
    left = f" (the first {_MOST_ROWS})" if rows > _MOST_ROWS else ""
    height = int(drawn.figure.layout.height)
    described = escape(f"{drawn.title}. {drawn.caption}", quote=True)
    return (
        f'<figure class="drawn" id="fig-{drawn.name}" data-choice="{choice}"'
        f"{' hidden' if hidden else ''}><h3>{escape(drawn.title)}</h3>"
        f'<div class="plot" role="img" aria-label="{described}" style="height:{height}px"></div>'
        f'<figcaption class="caption">{escape(drawn.caption)}</figcaption>'
        f'<details class="data" data-table="{tables.place(drawn)}"><summary>Show as table: '
        f"{escape(plural(rows, 'row'))}{left}</summary>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(drawn.title)}"></div>'
        f'</details><script type="application/json" class="spec">{_json(spec)}</script></figure>\n'
    )


def _words() -> str:
    words = "".join(f"<dt>{escape(word)}</dt><dd>{escape(said)}</dd>" for word, said in WORDS)
    method = "".join(f"<li>{escape(each)}</li>" for each in METHOD)
    return (
        f'<section id="words"><h2>Words</h2><dl>{words}</dl></section>'
        '<section id="method"><h2>How the '
        f'figures are computed</h2><ul class="found">{method}</ul></section>'
    )
