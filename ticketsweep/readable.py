"""How results look where they are the last line of a notebook's cell: as they print."""

from __future__ import annotations

from typing import Any, Protocol


class _Printer(Protocol):
    def text(self, text: str) -> None: ...


class Readable:
    """A result whose `str` is made for reading; its `repr` has every field."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        """IPython takes the first class that has either; a data class has a `repr` of its own."""
        super().__init_subclass__(**arguments)
        cls._repr_pretty_ = Readable._repr_pretty_  # type: ignore[method-assign]

    def _repr_pretty_(self, printer: _Printer, cycle: bool) -> None:
        """What IPython calls."""
        printer.text("..." if cycle else str(self))
