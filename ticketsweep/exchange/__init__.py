"""Tickets that leave the mask database as files that others read, and others' masks that enter it.

`ticket` makes one ticket again, weights included, `export` writes it to a file; `import_masks`
stores what open_lth and hidden-networks have written. Nothing here writes a pickle, and what is
read of one is tensors and plain values, never code.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ticketsweep.exchange.choice import choose, choose_best
    from ticketsweep.exchange.formats import export
    from ticketsweep.exchange.importing import import_masks
    from ticketsweep.exchange.remaking import remade, stored_masks, ticket

__all__ = [
    "choose",
    "choose_best",
    "export",
    "import_masks",
    "remade",
    "stored_masks",
    "ticket",
]

_HOMES = {
    "choose": "choice",
    "choose_best": "choice",
    "export": "formats",
    "import_masks": "importing",
    "remade": "remaking",
    "stored_masks": "remaking",
    "ticket": "remaking",
}


def __getattr__(name: str) -> object:
    """A function above, imported with all of torch once it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
