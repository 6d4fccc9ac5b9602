"""What one may want to type next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.console import RenderableType


def next_lines(commands: Sequence[str], *, storage: str | None) -> list[RenderableType]:
    """These commands as lines that can be pasted.

    Parameters
    ----------
    storage: as the user named it; None where the default was taken.
    """
    return ["", "next:", *(f"  ticketsweep {each}{storage_option(storage)}" for each in commands)]


def storage_option(storage: str | None) -> str:
    """` --storage URI`, or nothing where the default was taken."""
    return f" --storage {shlex.quote(storage)}" if storage else ""
