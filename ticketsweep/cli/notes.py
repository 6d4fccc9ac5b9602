"""Lines on stderr."""

from __future__ import annotations

import shutil
import sys
import textwrap
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


def readable(text: str) -> str:
    """The text with long lines broken between words, where stderr is a terminal; else as it is."""
    if not sys.stderr.isatty():
        return text  # a line of a log is one of its entries
    width = shutil.get_terminal_size().columns
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False,
                      break_on_hyphens=False)
        if len(line) > width else line
        for line in text.splitlines()
    )  # fmt: skip


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
