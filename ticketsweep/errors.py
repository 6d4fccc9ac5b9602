"""The exception tree. What a command prints, and with which exit code, follows from the class.

`UserError` and its children mean: the input was wrong. The command line prints the message alone
(no traceback) and exits with 2. Every other `TicketsweepError` means that the work failed: exit 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class TicketsweepError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code = 1


class TrialFailure(TicketsweepError):
    """A trial could not be finished (it diverged, say). The sweep records it and goes on."""


class UserError(TicketsweepError):
    """The user's input was wrong. The message names the field, the value, the rule, the remedy."""

    exit_code = 2


class DataError(UserError):
    """A data set is unknown, missing, or not in the layout it should have."""


class ModelError(UserError):
    """A model is unknown or cannot take the data's images."""


class StorageError(UserError):
    """The mask database cannot be opened, read or written."""


class QueryError(UserError):
    """A query is not one SELECT, or is not valid SQL."""


class SweepError(UserError):
    """A sweep cannot be started or continued as asked."""


@dataclass(frozen=True)
class Fault:
    """One thing wrong with an input: which key, what stood there, the rule, and what to do."""

    key: str
    value: object
    rule: str
    remedy: str = ""

    def __str__(self) -> str:
        shown = "" if self.value is MISSING else f", got {self.value!r}"
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{self.key} {self.rule}{shown}{remedy}"


class _Missing:
    """Stands for "no value there", since None is a value that a user can write."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()


class ConfigError(UserError):
    """Every fault of one configuration at once.

    Parameters
    ----------
    source: where the configuration came from, as the user named it (a path, or "--set").
    faults: at least one.
    """

    def __init__(self, source: str, faults: Sequence[Fault]) -> None:
        self.source = source
        self.faults = tuple(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        super().__init__(f"{source}: {count}\n{lines}")

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, tuple[Fault, ...]]]:
        return type(self), (self.source, self.faults)  # so that it crosses process boundaries


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'lr'?` for the nearest known word, or every known word if none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
