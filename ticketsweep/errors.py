"""The exception tree. What a command prints, and with which exit code, follows from the class.

`UserError` and its children mean: the input was wrong. The command line prints the message alone
(no traceback) and exits with 2. Every other `TicketsweepError` means that the work failed: exit 1.
"""

from __future__ import annotations

import difflib
import itertools
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_WIDTH = 80  # of a message; a value takes at most its greater part
_VALUE_WIDTH = 60


class TicketsweepError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code = 1


class TrialFailure(TicketsweepError):
    """A trial could not be finished (it diverged, say). The sweep records it and goes on."""


class DeviceLost(TicketsweepError):
    """The accelerator refuses all further work of this process, which has to be replaced."""


class UserError(TicketsweepError):
    """The user's input was wrong. The message names the field, the value, the rule, the remedy."""

    exit_code = 2


class DataError(UserError):
    """A data set is unknown, missing, or not in the layout it should have."""


class ModelError(UserError):
    """A model is unknown or cannot take the data's images."""


class StorageError(UserError):
    """The mask database cannot be opened, read or written."""


class MissingStorage(StorageError):
    """There is no mask database yet where one was looked for."""


class QueryError(UserError):
    """A query is not one SELECT, or is not valid SQL."""


class ExchangeError(UserError):
    """A stored ticket cannot be made again or exported, or a file not imported, as asked."""


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
        key = _cut(self.key if self.key.isprintable() else repr(self.key))
        got = "" if self.value is MISSING else f", got {shown(self.value)}"
        remedy = f" ({self.remedy})" if self.remedy else ""
        return f"{key} {self.rule}{got}{remedy}"


class _Missing:
    """Stands for "no value there", since None is a value that a user can write."""

    def __repr__(self) -> str:
        return "MISSING"

    def __reduce__(self) -> str:
        return "MISSING"  # by its name, so that it stays one object in another process


MISSING = _Missing()


def shown(value: object) -> str:
    """`value` as one writes it in YAML, in one printable line of at most 60 characters."""
    return _cut(_written(value, depth=0))


def _written(value: object, *, depth: int) -> str:
    if isinstance(value, str):
        return repr(value[:_VALUE_WIDTH])  # quoted, and control characters escaped
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a whole number of {value.bit_length()} bits"  # Python refuses to print the longest
    if not isinstance(value, (Mapping, list, tuple)):
        return repr(value)
    is_mapping = isinstance(value, Mapping)
    opening, closing = "{}" if is_mapping else "[]"
    if depth == 3:
        return f"{opening}…{closing}"
    parts = []
    for item in itertools.islice(value, _VALUE_WIDTH):  # more would be cut off anyway
        text = _written(item, depth=depth + 1)
        if is_mapping:
            name = item if isinstance(item, str) and item.isprintable() else text
            text = f"{_cut(name)}: {_written(value[item], depth=depth + 1)}"
        parts.append(text)
    return f"{opening}{', '.join(parts)}{closing}"


def _cut(text: str) -> str:
    return text if len(text) <= _VALUE_WIDTH else f"{text[: _VALUE_WIDTH - 1]}…"


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
        super().__init__("\n".join([f"{source}: {count}", *map(_wrapped, self.faults)]))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, tuple[Fault, ...]]]:
        return type(self), (self.source, self.faults)  # so that it crosses process boundaries


def _wrapped(fault: Fault) -> str:
    return textwrap.fill(
        str(fault), _WIDTH, initial_indent="  ", subsequent_indent="      ",
        break_long_words=False, break_on_hyphens=False, expand_tabs=False,
    )  # fmt: skip


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'lr'?` for the nearest known word, or every known word if none is near."""
    names = {name.casefold(): name for name in sorted(known)}
    near = difflib.get_close_matches(word.casefold(), names, n=1, cutoff=0.6)
    return f"did you mean {names[near[0]]!r}?" if near else f"known: {', '.join(names.values())}"
