"""Lines on stderr."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_PATIENCE_SECONDS = 2.0


def note(text: str) -> None:
    """Write a line to stderr."""
    print(text, file=sys.stderr)


def notes(texts: Iterable[str]) -> None:
    """Write lines to stderr."""
    for text in texts:
        note(text)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """Say on stderr what is being waited for, once it has taken two seconds."""
    timer = threading.Timer(_PATIENCE_SECONDS, note, [f"{text} …"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
