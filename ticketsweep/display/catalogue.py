"""What settings may name, and which search spaces lie at hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console, RenderableType

from ticketsweep.config import TrialConfig
from ticketsweep.display.figures import NONE
from ticketsweep.display.terminal import Column, table, tables
from ticketsweep.errors import ConfigError
from ticketsweep.space import SweepSpec, read_space


def names_table(names: Mapping[str, str]) -> RenderableType:
    """Names, each with a line that says what it is."""
    return table(
        [
            Column("name", list(names), right=False),
            Column("what", list(names.values()), right=False, wrap=True),
        ]
    )


def spaces_table(console: Console, folder: Path) -> RenderableType:
    """The search spaces of a folder: how much each runs, and its first comment line.

    Where the console is too narrow for one table, what each is stands in a second one.
    """
    files = sorted(folder.glob("*.yaml"))
    if not files:
        return f"no search space in ./{folder} (it has the files *.yaml)"
    spaces = [_load(file) for file in files]
    what = [
        _first_comment(file) if space else "has faults; run it to see them"
        for file, space in zip(files, spaces, strict=True)
    ]
    return tables(
        console,
        [Column(f"in ./{folder}", [file.name for file in files], right=False, wrap=True)],
        [
            Column("trials", [_trials(each) for each in spaces]),
            Column("replicates\na trial", [_replicates(each) for each in spaces]),
            Column("settings\nsearched", [_searched(each) for each in spaces]),
        ],
        [Column("what", what, right=False, wrap=True)],
    )


def _load(file: Path) -> SweepSpec | None:
    try:
        return read_space(file)
    except ConfigError:
        return None


def _trials(space: SweepSpec | None) -> str:
    if space is None:
        return NONE
    return str(space.settings.samples) if space.distributions() else "1"


def _replicates(space: SweepSpec | None) -> str:
    if space is None:
        return NONE
    counts = {**TrialConfig().replicates.model_dump(), **space.tree.get("replicates", {})}
    fixed = all(isinstance(count, int) for count in counts.values())
    return str(math.prod(counts.values())) if fixed else "varies"


def _searched(space: SweepSpec | None) -> str:
    if space is None or not space.distributions():
        return NONE
    return str(len(space.distributions()))


def _first_comment(file: Path) -> str:
    with file.open(encoding="utf-8") as lines:
        return next((line.strip("# \n") for line in lines if line.startswith("#")), "")
