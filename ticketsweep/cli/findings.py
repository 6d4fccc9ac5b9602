"""What an examination of this machine says of one thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ticketsweep.errors import TicketsweepError


@dataclass(frozen=True)
class Finding:
    """What was found of one thing: `note` is worth knowing, `fault` keeps something from working.

    `remedy` is empty where there is nothing to do.
    """

    what: str
    state: Literal["ok", "note", "fault"]
    found: str
    remedy: str = ""


def guarded(what: str, check: Callable[[], Finding]) -> Finding:
    """A finding, also where looking for it ends in an error: a broken installation may do that."""
    try:
        return check()
    except TicketsweepError as error:
        return Finding(what, "fault", str(error))
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        return Finding(
            what, "fault", f"{type(error).__name__}: {reason[0]}", "install ticketsweep afresh"
        )
