"""The report's figures as files for papers: PNG, SVG, PDF, and the tables behind them."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import kaleido
import plotly.graph_objects as go
from choreographer.browsers.chromium import Chromium
from kaleido.errors import (
    BrowserClosedError,
    BrowserFailedError,
    ChromeNotFoundError,
    JavascriptError,
    KaleidoError,
)

from ticketsweep import __version__
from ticketsweep.errors import TicketsweepError, UserError
from ticketsweep.exchange.files import put_folder
from ticketsweep.report.drawn import Drawn, Section
from ticketsweep.report.latex import latex_table
from ticketsweep.report.theme import TEMPLATE

ABOUT = "figures.json"  # beside the figures: what each shows, and which files are ours

# Pixels of CSS are 1/96 inch, points 1/72.
_WIDTH = 528  # 5.5 inches: the width of a page's text at NeurIPS and ICLR
_LOW, _STEEP = 150, 0.75  # a figure is lower than on the page: what goes beyond 150, by a quarter
_DOTS = 300  # an inch, of a PNG
_TEXT, _SMALL = 12, 11.3  # 9 and 8.5 points
_FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"

_FAULTS = (
    BrowserClosedError,
    BrowserFailedError,
    ChromeNotFoundError,
    JavascriptError,
    KaleidoError,
    TimeoutError,
)
_PAPER = go.layout.Template(TEMPLATE)
_PAPER.layout.update(
    font={"family": _FONT, "size": _SMALL},
    paper_bgcolor="#ffffff",
    plot_bgcolor="#ffffff",
    xaxis={"title": {"font": {"size": _TEXT}}},
    yaxis={"title": {"font": {"size": _TEXT}}},
    legend={"font": {"size": _SMALL}},
)


def shown_first(sections: Sequence[Section]) -> list[Drawn]:
    """The figures that the page shows before a menu is touched."""
    found = []
    for section in sections:
        found += [each for each in section.figures if not each.choice]
        found += [each for each in section.figures if each.choice][:1]
    return found


def find_chrome() -> str:
    """The browser that draws: Chrome, Chromium or a relative; $BROWSER_PATH, or one on PATH.

    Raises
    ------
    UserError: there is none.
    """
    path = Chromium.find_browser(skip_local=False)
    if path is None or not Path(path).is_file():
        looked = f"at {path}" if path else "on PATH"
        raise UserError(
            f"--figures needs Chrome or Chromium, which draws them, and found none {looked} "
            "(apt-get install chromium, or set BROWSER_PATH to where it is)"
        )
    return path


def check_folder(folder: Path) -> None:
    """Refuse a folder whose files no report has written: they would be replaced.

    Raises
    ------
    UserError: it is a file, the current folder, in a folder that is not, or holds other files.
    """
    target = folder.resolve()
    if not target.parent.is_dir():
        raise UserError(f"--figures {folder}: there is no folder {target.parent} (make it first)")
    if target.exists() and not target.is_dir():
        raise UserError(f"--figures must be a folder, got {folder} (a file)")
    if target == Path.cwd():
        raise UserError(f"--figures {folder} must be a folder of its own (name one in it)")
    if target.is_dir() and (foreign := sorted({p.name for p in target.iterdir()} - _own(target))):
        raise UserError(
            f"--figures {folder} holds what no report has written: {foreign[0]!r} (name another "
            "folder, or an empty one)"
        )


def _own(folder: Path) -> set[str]:
    """Names of the files that an earlier report has written there."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        return {ABOUT, *(str(name) for each in about["figures"] for name in each["files"])}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def write_figures(
    folder: Path,
    figures: Sequence[Drawn],
    *,
    sweep: str,
    formats: Sequence[str],
    browser: str,
    drawn: Callable[[], None],
) -> None:
    """Draw each figure in each format, and put them and their tables in the place of the folder.

    A figure is 5.5 inches wide on white, its text 8 to 9 points; PNG has 300 dots an inch. Beside
    it lie `NAME.csv` (raw: shares are fractions of 1) and `NAME.tex` (as the page shows them), and
    for all `figures.json`: titles, captions and names of files.

    Parameters
    ----------
    folder: as `check_folder` allows; appears whole or not at all.
    formats: of `png`, `svg`, `pdf`.
    browser: as `find_chrome` finds it. It asks nothing of any network.
    drawn: called after each file that was drawn.

    Raises
    ------
    TicketsweepError: the browser does not start, or does not draw.
    UserError: the folder cannot be written.
    """
    files = asyncio.run(_images(figures, formats, browser=browser, drawn=drawn))
    about = []
    for each in figures:
        files[f"{each.name}.csv"] = _csv(each).encode()
        files[f"{each.name}.tex"] = latex_table(each).encode()
        about.append(
            {
                "name": each.name,
                "title": each.title,
                "caption": each.caption,
                "choice": dict(each.choice),
                "files": [f"{each.name}.{suffix}" for suffix in (*formats, "csv", "tex")],
            }
        )
    written = {"sweep": sweep, "ticketsweep": __version__, "figures": about}
    files[ABOUT] = (json.dumps(written, indent=1, ensure_ascii=False) + "\n").encode()
    put_folder(folder.resolve(), files)


async def _images(
    figures: Sequence[Drawn],
    formats: Sequence[str],
    *,
    browser: str,
    drawn: Callable[[], None],
) -> dict[str, bytes]:
    """File name -> content."""
    files: dict[str, bytes] = {}
    drawing = kaleido.Kaleido(path=browser, mathjax=False)  # MathJax would come from a network
    try:
        await drawing.open()
        for each in figures:
            for suffix in formats:
                scale = _DOTS / 96 if suffix == "png" else 1
                options = {"format": suffix, "scale": scale}
                content = await drawing.calc_fig(on_paper(each.figure), opts=options)
                files[f"{each.name}.{suffix}"] = content
                drawn()
    except _FAULTS as error:
        if isinstance(error.__cause__, asyncio.CancelledError):  # Ctrl-C while it was starting
            raise error.__cause__ from None
        reason = " ".join(map(str, error.args)) or type(error).__name__
        reason = " ".join(reason.split())
        raise TicketsweepError(f"{browser} does not draw the figures: {reason[:200]}") from error
    finally:
        await drawing.close()
    return files


def on_paper(figure: go.Figure) -> go.Figure:
    """The figure with the size and the letters of a paper, on white."""
    height = min(figure.layout.height, _LOW + _STEEP * (figure.layout.height - _LOW))
    paper = go.Figure(figure).update_layout(template=_PAPER, width=_WIDTH, height=round(height))
    beside = {"colorbar": {"title": {"side": "right"}}}  # there is no room above the bar
    if "coloraxis" in paper.layout:
        paper.update_coloraxes(beside)
    return paper.update_traces(beside, selector={"type": "heatmap"})


def _csv(drawn: Drawn) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(drawn.columns)
    writer.writerows(drawn.rows)
    return text.getvalue()
