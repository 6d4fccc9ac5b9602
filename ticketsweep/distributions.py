"""Distributions in place of values: how they are written, sampled, enumerated and written back.

A tree is a trial's settings as nested dicts, its leaves values or distributions. This module knows
their form; which settings exist is `config`'s business.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeGuard

from ticketsweep.errors import MISSING, Fault

Label = str | int | float | bool | None


@dataclass(frozen=True)
class Uniform:
    """A number in [low, high], all equally likely; with `log`, its logarithm is."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Integer:
    """A whole number in [low, high], both ends included."""

    low: int
    high: int


@dataclass(frozen=True)
class Choice:
    """One of `options`; an option may be a mapping that holds distributions of its own."""

    options: tuple[Node, ...]

    @cached_property
    def labels(self) -> tuple[Label, ...]:
        """What a search library sees: plain values as they are, mappings as their JSON."""
        plain = all(o is None or isinstance(o, (str, int, float, bool)) for o in self.options)
        if plain:
            return self.options
        return tuple(json.dumps(as_plain(option), sort_keys=True) for option in self.options)


@dataclass(frozen=True)
class Broken:
    """Takes the place of a distribution that was reported as faulty, so it is reported once.

    It stays in the tree, so that its key is looked at too.
    """

    written: Mapping[str, Any]


USE_UNIFORM = "or use uniform"
"""The remedy for a range whose ends another distribution takes, if the setting does."""

Distribution = Uniform | Integer | Choice
Node = Any  # a value, a Distribution, or a dict of name -> Node


class Suggest(Protocol):
    """Where a sampled value comes from. `name` is the dotted key."""

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        """A number in [low, high]."""

    def integer(self, name: str, low: int, high: int) -> int:
        """A whole number in [low, high]."""

    def choice(self, name: str, labels: Sequence[Label]) -> int:
        """An index into `labels`."""


def _parse(value: Any, key: str, faults: list[Fault]) -> Node:
    if not isinstance(value, Mapping):
        return value
    if is_distribution(value):
        (word, argument), *_ = value.items()
        return DISTRIBUTIONS[word](argument, key, word, faults)
    return parse_tree(value, f"{key}.", faults)


def is_distribution(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a plain value is written as a distribution: a mapping of its word to an argument."""
    return isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in DISTRIBUTIONS


def parse_tree(raw: Mapping[str, Any], prefix: str, faults: list[Fault]) -> dict[str, Node]:
    """A tree from plain values; every fault of a distribution is added to `faults`."""
    tree = {}
    for key, value in raw.items():
        if isinstance(key, str):
            tree[key] = _parse(value, f"{prefix}{key}", faults)
        else:
            faults.append(Fault(f"{prefix}{key}", MISSING, "is not a setting (a key must be text)"))
    return tree


def is_number(value: object) -> bool:
    """Whether `value` is a number that a float can hold, which no integer above 1e308 is."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max


def _parse_range(argument: Any, key: str, word: str, faults: list[Fault]) -> Node:
    """`[low, high]` of a uniform, loguniform or int distribution."""
    shown = {word: argument}
    if not (isinstance(argument, list) and len(argument) == 2 and all(map(is_number, argument))):
        faults.append(Fault(key, shown, f"must be {{{word}: [low, high]}} with two numbers"))
        return Broken(shown)
    low, high = argument
    if not low < high:
        remedy = "for one value, write the value" if low == high else ""
        faults.append(Fault(key, shown, "must have low < high", remedy))
        return Broken(shown)
    if word == "int":
        if not (isinstance(low, int) and isinstance(high, int)):
            faults.append(Fault(key, shown, "must have whole numbers", USE_UNIFORM))
            return Broken(shown)
        return Integer(low, high)
    if word == "loguniform" and low <= 0:
        faults.append(Fault(key, shown, "must have low > 0", USE_UNIFORM))
        return Broken(shown)
    return Uniform(float(low), float(high), log=word == "loguniform")


def _parse_choice(argument: Any, key: str, word: str, faults: list[Fault]) -> Node:
    shown = {word: argument}
    if not isinstance(argument, list) or not argument:
        faults.append(Fault(key, shown, "must be {choice: [option, …]} with at least one option"))
        return Broken(shown)
    if any(map(is_distribution, argument)):
        rule = "must not hold a bare distribution among its options"
        faults.append(Fault(key, shown, rule, "inside a mapping it may stand"))
        return Broken(shown)
    known_faults = len(faults)
    options = tuple(_parse(option, key, faults) for option in argument)
    if len(faults) == known_faults and len({identity_of(option) for option in options}) < len(
        options
    ):
        faults.append(Fault(key, shown, "must not name an option twice"))
        return Broken(shown)
    return Choice(options)


def identity_of(node: Node) -> str:
    """Text that is the same for nodes of the same meaning: `1` and `1.0`, and any order of keys."""
    written = json.dumps(as_plain(node), default=repr)
    return json.dumps(json.loads(written, parse_int=float), sort_keys=True)


DISTRIBUTIONS = {
    "uniform": _parse_range,
    "loguniform": _parse_range,
    "int": _parse_range,
    "choice": _parse_choice,
}


def corners(node: Node) -> Iterator[Any]:
    """Plain trees that between them hold both ends of every range and every option.

    One distribution is varied at a time, all others staying at their first value.
    """
    if isinstance(node, (Uniform, Integer)):
        yield node.low
        yield node.high
    elif isinstance(node, Choice):
        for option in node.options:
            yield from corners(option)
    elif isinstance(node, Mapping):
        first = {key: next(corners(child)) for key, child in node.items()}
        yield first
        for key, child in node.items():
            for value in itertools.islice(corners(child), 1, None):
                yield {**first, key: value}
    else:
        yield node


def sample(node: Node, key: str, suggest: Suggest) -> Any:
    """`node` with every distribution asked of `suggest` under its dotted key."""
    if isinstance(node, Uniform):
        return suggest.number(key, node.low, node.high, log=node.log)
    if isinstance(node, Integer):
        return suggest.integer(key, node.low, node.high)
    if isinstance(node, Choice):
        return sample(node.options[suggest.choice(key, node.labels)], key, suggest)
    if isinstance(node, Mapping):
        return {name: sample(child, f"{key}.{name}", suggest) for name, child in node.items()}
    return node


def walk(node: Node, key: str) -> Iterator[tuple[str, Distribution]]:
    """Every distribution under `node` with its dotted key, those inside a choice included."""
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from walk(child, f"{key}.{name}" if key else name)
    elif isinstance(node, (Uniform, Integer)):
        yield key, node
    elif isinstance(node, Choice):
        yield key, node
        for option in node.options:
            if isinstance(option, Mapping):
                yield from walk(option, key)


def grid(node: Node, key: str) -> Iterator[tuple[tuple[str, Any], ...]]:
    """Every point of `node` as (dotted key, label) pairs; ranges of numbers have no points."""
    if isinstance(node, Mapping):
        yield from _crossed([(f"{key}.{n}" if key else n, child) for n, child in node.items()])
    elif isinstance(node, Integer):
        for value in range(node.low, node.high + 1):
            yield ((key, value),)
    elif isinstance(node, Choice):
        for option, label in zip(node.options, node.labels, strict=True):
            for rest in grid(option, key):
                yield ((key, label), *rest)
    else:
        yield ()


def _crossed(axes: Sequence[tuple[str, Node]]) -> Iterator[tuple[tuple[str, Any], ...]]:
    """The product of the grids of `axes`, the last varying fastest; made one at a time, for a
    range of whole numbers may be endless in practice.
    """
    if not axes:
        yield ()
        return
    (key, node), *others = axes
    for point in grid(node, key):
        for rest in _crossed(others):
            yield point + rest


def as_plain(node: Node) -> Any:
    """`node` as it would be written in a file, in one normal form."""
    if isinstance(node, Uniform):
        return {"loguniform" if node.log else "uniform": [node.low, node.high]}
    if isinstance(node, Integer):
        return {"int": [node.low, node.high]}
    if isinstance(node, Choice):
        return {"choice": [as_plain(option) for option in node.options]}
    if isinstance(node, Mapping):
        return {key: as_plain(child) for key, child in node.items()}
    return node.written if isinstance(node, Broken) else node
