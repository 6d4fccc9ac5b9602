"""Colours, markers and the look of every figure, in light and in dark.

The hues are Okabe and Ito's (2008), which the colour-blind can tell apart, a little darker on
white and a little lighter on black, so that each has a contrast of 3:1 at least. Whatever a colour
says, a marker, a dash or a label says too.
"""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go
from plotly.subplots import make_subplots

BLUE, VERMILLION, GREEN, PURPLE = "#0072b2", "#d55e00", "#00886a", "#b0578d"
OCHRE, SKY, GREY, INK = "#b07a00", "#3d93c4", "#6b7280", "#1b2230"
PAPER, FAINT = "#ffffff", "#e4e7ec"
HUES = (BLUE, VERMILLION, GREEN, PURPLE, OCHRE, SKY, GREY)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")

# What takes the place of each colour on a dark page.
DARK: Mapping[str, str] = {
    BLUE: "#56b4e9",
    VERMILLION: "#ff8f52",
    GREEN: "#2fc79b",
    PURPLE: "#e59ccb",
    OCHRE: "#f0b83f",
    SKY: "#9ad7f7",
    GREY: "#99a1ae",
    INK: "#e8eaf0",
    PAPER: "#14171d",
    FAINT: "#2a2f3a",
    "#2b4a7d": "#4f7fc4",
    "#5a6a82": "#7f93ab",
    "#8c8a7d": "#a9a795",
    "#bfae6a": "#d3c27a",
    "#f2d84b": "#ffe860",
}
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
# From little to much: blue over grey to yellow with ever more light, after cividis (Nuñez et al.
# 2018), which the colour-blind see alike; its darkest end is left out, since a page may be dark.
SCALE = [
    [0.0, "#2b4a7d"],
    [0.25, "#5a6a82"],
    [0.5, "#8c8a7d"],
    [0.75, "#bfae6a"],
    [1.0, "#f2d84b"],
]

_AXIS = {
    "gridcolor": FAINT,
    "linecolor": GREY,
    "tickcolor": GREY,
    "ticks": "outside",
    "ticklen": 4,
    "showline": True,
    "zeroline": False,
    "automargin": True,
    "title": {"standoff": 8, "font": {"size": 13}},
}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": FONT, "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": list(HUES),
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "margin": {"l": 56, "r": 12, "t": 12, "b": 48},
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": GREY, "font": {"color": INK}},
        "hovermode": "closest",
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.0,
            "yanchor": "bottom",
            "font": {"size": 12},
            "itemsizing": "constant",
        },
        "bargap": 0.35,
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": INK},
    }
)


def filled(colour: str, shape: str) -> dict[str, object]:
    """The look of bars: a colour, and a pattern over it for those who cannot tell colours apart."""
    return {
        "color": colour,
        "pattern": {"shape": shape, "fillmode": "overlay", "fgcolor": PAPER, "fgopacity": 0.55},
    }


def blank(height: int, **layout: object) -> go.Figure:
    """An empty figure of this look; `height` in pixels."""
    return go.Figure(layout={"template": TEMPLATE, "height": height, **layout})


def panels(count: int, height: int, **layout: object) -> go.Figure:
    """An empty figure of `count` panels, one below the other, that share their horizontal axis."""
    figure = blank(height, **layout)
    return make_subplots(
        figure=figure, rows=count, cols=1, shared_xaxes=True, vertical_spacing=0.16 / (count + 1)
    )
