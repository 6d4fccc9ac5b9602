"""Find winning lottery tickets by learning gates alone, and compare them across seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ticketsweep.api import run as run
    from ticketsweep.store import open as open

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`ticketsweep.run` and `ticketsweep.open`, imported once they are asked for."""
    if name == "run":
        from ticketsweep.api import run

        return run
    if name == "open":
        from ticketsweep.store import open

        return open
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
