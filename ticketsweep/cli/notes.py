"""Lines on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable


def note(text: str) -> None:
    """Write a line to stderr."""
    print(text, file=sys.stderr)


def notes(texts: Iterable[str]) -> None:
    """Write lines to stderr."""
    for text in texts:
        note(text)
