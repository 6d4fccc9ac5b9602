"""How results look where they are the last line of a notebook's cell: as they print."""

from __future__ import annotations

from typing import Protocol


class _Printer(Protocol):
    def text(self, text: str) -> None: ...


class Readable:
    """A result whose `str` is made for reading; its `repr` has every field."""

    def _repr_pretty_(self, printer: _Printer, cycle: bool) -> None:
        """What IPython calls."""
        printer.text("..." if cycle else str(self))
