"""Figures as text: with their spread, without false precision, and `–` where there is none."""

from __future__ import annotations

import json
from collections.abc import Mapping

NONE = "–"
_SHARES = frozenset({"density", "sparsity", "undecided", "expected_density"})


def is_share(name: str) -> bool:
    """Whether a metric is a fraction of 1, and so shown in per cent."""
    return name in _SHARES or name.endswith("_accuracy")


def figure(value: float | None, name: str) -> str:
    """A metric as text: shares in per cent with two decimals, others with four digits."""
    if value is None:
        return NONE
    if name == "stability":
        return f"{value:z.2f}"
    return f"{100 * value:.2f}" if is_share(name) else f"{value:.4g}"


def with_spread(value: float | None, sd: float | None, name: str) -> str:
    """`97.12 ±0.08`: a metric and its standard deviation, where there is one."""
    shown = figure(value, name)
    return shown if value is None or sd is None else f"{shown} ±{figure(sd, name)}"


def named_figure(value: float | None, name: str) -> str:
    """A metric with its name and unit: `val_accuracy 97.12 %`."""
    unit = " %" if is_share(name) and value is not None else ""
    return f"{name} {figure(value, name)}{unit}"


def setting(value: object) -> str:
    """The value of a setting as short text."""
    if value is None:
        return NONE
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, Mapping):
        return json.dumps(value, default=str)
    return str(value)


def duration(seconds: float | None) -> str:
    """`0.4 s`, `42 s`, `1:07` (minutes), `1:07:05`, `2 days 3:00:00`."""
    if seconds is None:
        return NONE
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{minutes:02}:{rest:02}" if hours or days else f"{minutes}:{rest:02}"
    return f"{plural(days, 'day')} {clock}" if days else clock


def plural(count: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def out_of(count: int, asked: int, what: str) -> str:
    """`3 of 12 trials done`; `4 trials done (2 asked for)` where there are more than that."""
    if count > asked:
        return f"{plural(count, 'trial')} {what} ({asked:,} asked for)"
    return f"{count:,} of {plural(asked, 'trial')} {what}"


def short(trial_id: object) -> str:
    """The first eight digits of a trial's id: enough to tell trials apart, and to name one."""
    return str(trial_id)[:8]


def first_line(text: object) -> str:
    """The first line that says something, or `–`."""
    lines = str(text or "").strip().splitlines()
    return lines[0] if lines else NONE
