"""The two streams: data on stdout, everything else on stderr; and the look of a table."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.table import Table
from rich.text import Text

_UNBOUNDED = 10_000  # characters: in a file or a pipe nothing is cut to a width
_READABLE = 88  # characters a line of running text


def stdout_console() -> Console:
    """Console for results. Its width is the terminal's, or unbounded in a file or a pipe."""
    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else _UNBOUNDED
    return Console(width=width, markup=False, highlight=False, emoji=False)


def stderr_console() -> Console:
    """Console for progress, notes and errors."""
    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def emit(text: str) -> None:
    """Write data to stdout."""
    emit_all([text])


def emit_all(pieces: Iterable[str]) -> None:
    """Write data to stdout. A reader who has gone (`… | head`) ends the program without a word."""
    try:
        sys.stdout.writelines(pieces)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered would fail once more when the interpreter closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


def show(console: Console, *parts: RenderableType) -> None:
    """Write to stdout what `console` makes of the parts. Plain strings are left in one line."""
    with console.capture() as capture:
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, str))
    lines = capture.get().splitlines(keepends=True)
    # Tables fill their cells with spaces, which only a terminal's colours need.
    emit("".join(lines if console.is_terminal else (f"{line.rstrip()}\n" for line in lines)))


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Parameters
    ----------
    header, cells: as they are shown.
    right: whether the cells stand to the right, as numbers do.
    wrap: whether cells may take several lines where the width does not suffice; others keep theirs.
    """

    header: str
    cells: Sequence[str]
    right: bool = True
    wrap: bool = False


def table(columns: Sequence[Column], *, styles: Sequence[str] = ()) -> Table:
    """A table with a line below its header and nothing else drawn; `styles` are of its rows."""
    drawn = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for column in columns:
        side: Literal["left", "right"] = "right" if column.right else "left"
        overflow: Literal["fold", "ellipsis"] = "fold" if column.wrap else "ellipsis"
        drawn.add_column(column.header, justify=side, no_wrap=not column.wrap, overflow=overflow)
    for index, cells in enumerate(zip(*(column.cells for column in columns), strict=True)):
        drawn.add_row(*cells, style=styles[index] if styles else None)
    return drawn


def tables(
    console: Console,
    key: Sequence[Column],
    *parts: Sequence[Column],
    styles: Sequence[str] = (),
) -> RenderableType:
    """One table of all columns where the console is wide enough for it, else several.

    Each then begins with the columns of `key`, and a part that fits into one table is not split.
    """
    whole = table([*key, *itertools.chain(*parts)], styles=styles)
    if fits(console, whole):
        return whole
    split: list[list[Column]] = [[]]

    def fits_the_last(more: Sequence[Column]) -> bool:
        return not split[-1] or fits(console, table([*key, *split[-1], *more]))

    for part in parts:
        if not fits_the_last(part):
            split.append([])
        for column in part:
            if not fits_the_last([column]):
                split.append([])
            split[-1].append(column)
    drawn = [table([*key, *columns], styles=styles) for columns in split]
    return Group(drawn[0], *(each for later in drawn[1:] for each in ("", later)))


def paragraph(text: str) -> RenderableType:
    """Text that explains something: dim, and in lines that are easy to read."""
    return Constrain(Text(text, style="dim"), _READABLE)


def fits(console: Console, renderable: RenderableType) -> bool:
    """Whether a renderable needs no more than the console's width."""
    unbounded = console.options.update(width=_UNBOUNDED)
    return console.measure(renderable, options=unbounded).maximum <= console.width
