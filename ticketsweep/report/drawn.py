"""What a report consists of: figures with the records behind them, gathered in sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go

Cell = str | int | float | None


@dataclass(frozen=True)
class Drawn:
    """A figure, and all that is said about it.

    Parameters
    ----------
    name: of a file: letters, digits, `-` and `_`; unique within a report.
    title: what was found, or the question that the figure answers.
    caption: one sentence: what is drawn, of how many, with which spread.
    figure: without title; colours are those of `theme` in light.
    columns, rows: the records behind it, one cell a column; shares are fractions of 1.
    choice: what a menu shows it for, as menu -> entry; empty where it stands alone.
    """

    name: str
    title: str
    caption: str
    figure: go.Figure
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    choice: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Parameters
    ----------
    key: its anchor.
    heading: its title.
    intro: what it is about, in a sentence or two.
    figures: those with a choice are shown one at a time.
    notes: sentences: what is missing and why, or what to be careful about.
    """

    key: str
    heading: str
    intro: str
    figures: Sequence[Drawn]
    notes: Sequence[str] = ()
