"""Settings that a search begins with: points of its space that are named in part or in full.

A point is what `distributions.grid` gives, dotted key -> number or a choice's label, but for the
distributions that the user has left open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ticketsweep.config import parse_config
from ticketsweep.distributions import (
    Broken,
    Choice,
    Integer,
    Label,
    Node,
    Uniform,
    as_plain,
    identity_of,
    is_number,
    sample,
)
from ticketsweep.errors import MISSING, ConfigError, Fault, did_you_mean, shown

Point = Mapping[str, Label]


@dataclass
class _Fit:
    """What comes of holding given settings against a tree.

    Attributes
    ----------
    point: the distributions that have got a value.
    faults: values that no distribution has; their keys are the trial's.
    fixed: values that differ from the tree's own: the value, and the tree's, by key.
    unknown: values of keys that the tree does not name, and so of defaults.
    """

    point: dict[str, Label] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    fixed: dict[str, tuple[Any, list[Any]]] = field(default_factory=dict)
    unknown: dict[str, Any] = field(default_factory=dict)

    @property
    def misfits(self) -> int:
        """How many of the values are not those of the tree."""
        return len(self.faults) + len(self.fixed)

    def add(self, other: _Fit) -> None:
        """Take up what has come of a part of the settings."""
        self.point |= other.point
        self.faults += other.faults
        self.fixed |= other.fixed
        self.unknown |= other.unknown


def parse_points(
    entries: Sequence[Any], tree: Mapping[str, Node], *, key: str
) -> tuple[list[Point], list[Fault]]:
    """The points that a list of settings stands for, and every fault of it.

    Parameters
    ----------
    entries: mappings of dotted or nested settings; whatever is none is left out.
    tree: the space, whose own faults are none of the entries'.
    key: of the list, for messages.
    """
    points: list[Point] = []
    faults: list[Fault] = []
    for number, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            continue
        place = f"{key}.{number}"
        if not entry:
            faults.append(Fault(place, MISSING, "must name at least one setting"))
            continue
        found: list[Fault] = []
        nested = _nested(entry, found)
        fit = _fit_mapping(tree, nested, "")
        found += fit.faults
        found += [_fixed(inner, value, own) for inner, (value, own) in fit.fixed.items()]
        if not found:
            found += _faults_of_defaults(fit, tree)
        faults += [Fault(f"{place}.{f.key}", f.value, f.rule, f.remedy) for f in found]
        if found:
            continue
        if fit.point in points:
            faults.append(Fault(place, entry, "must not be given twice"))
        points.append(fit.point)
    return points, faults


def _nested(entry: Mapping[str, Any], faults: list[Fault]) -> dict[str, Any]:
    """`{"train.lr": 0.1}` as `{"train": {"lr": 0.1}}`; both forms may stand side by side."""
    tree: dict[str, Any] = {}

    def put(place: dict[str, Any], key: str, value: Any, path: str) -> None:
        name, dot, rest = key.partition(".")
        here = f"{path}{name}"
        if dot or isinstance(value, Mapping):
            inner = place.setdefault(name, {})
            if not isinstance(inner, dict):
                faults.append(Fault(here, MISSING, "must be given once"))
                return
            for key_below, below in {rest: value}.items() if dot else value.items():
                put(inner, str(key_below), below, f"{here}.")
        elif name in place:
            faults.append(Fault(here, MISSING, "must be given once"))
        else:
            place[name] = value

    for key, value in entry.items():
        put(tree, str(key), value, "")
    return tree


def _fit(node: Node, given: Any, key: str) -> _Fit:
    if isinstance(node, (Uniform, Integer)):
        return _fit_range(node, given, key)
    if isinstance(node, Choice):
        return _fit_choice(node, given, key)
    if isinstance(node, Broken):  # reported by itself
        return _Fit()
    if isinstance(node, Mapping) and isinstance(given, Mapping):
        return _fit_mapping(node, given, f"{key}.")
    if identity_of(node) == identity_of(given):
        return _Fit()
    return _Fit(fixed={key: (given, [as_plain(node)])})


def _fit_mapping(node: Mapping[str, Node], given: Mapping[str, Any], prefix: str) -> _Fit:
    fit = _Fit()
    for name, value in given.items():
        key = f"{prefix}{name}"
        if name in node:
            fit.add(_fit(node[name], value, key))
        else:
            fit.unknown |= {f"{prefix}{below}": v for below, v in _leaves({name: value}).items()}
    return fit


def _fit_range(node: Uniform | Integer, given: Any, key: str) -> _Fit:
    is_whole = isinstance(node, Integer)
    if not is_number(given) or not node.low <= given <= node.high or (is_whole and given % 1):
        kind = "a whole number" if is_whole else "a number"
        return _Fit(faults=[Fault(key, given, f"must be {kind} from {node.low} to {node.high}")])
    return _Fit({key: int(given) if is_whole else float(given)})


def _fit_choice(node: Choice, given: Any, key: str) -> _Fit:
    """The option that has the most of what is given, and of equals the first."""
    fits = []
    for option, label in zip(node.options, node.labels, strict=True):
        fit = _fit(option, given, key)
        fit.point[key] = label
        fits.append(fit)
    best = min(fits, key=lambda fit: (fit.misfits + len(fit.unknown), len(fit.unknown)))
    for inner in best.fixed:
        others = [own for fit in fits for own in fit.fixed.get(inner, (given, []))[1]]
        apart = {identity_of(own): own for own in others}
        best.fixed[inner] = (best.fixed[inner][0], list(apart.values()))
    return best


def _leaves(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key -> value."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": below for key, below in _leaves(value).items()}
        else:
            flat[name] = value
    return flat


def _fixed(key: str, given: Any, own: Sequence[Any]) -> Fault:
    if len(own) == 1:
        return Fault(key, given, f"must be {shown(own[0])}, as in every trial of this space")
    return Fault(key, given, f"must be one of {', '.join(map(shown, own))}")


def _faults_of_defaults(fit: _Fit, tree: Mapping[str, Node]) -> list[Fault]:
    """Faults of settings that the space leaves at their defaults, in the trial asked for."""
    if not fit.unknown:
        return []
    try:
        chosen = Chosen(fit.point)
        raw = {key: sample(node, key, chosen) for key, node in tree.items()}
        own = _leaves(parse_config(raw, source="").model_dump())
    except ConfigError:  # the space is at fault, and reported by itself
        return []
    faults = []
    for key, value in fit.unknown.items():
        if key not in own:
            faults.append(Fault(key, MISSING, "is not a setting here", did_you_mean(key, own)))
        elif identity_of(own[key]) != identity_of(value):
            faults.append(_fixed(key, value, [own[key]]))
    return faults


class Chosen:
    """`distributions.Suggest` by a point; what it leaves open is at its first value."""

    def __init__(self, point: Point) -> None:
        self._point = point

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:  # noqa: ARG002
        """The point's number, or the lower end."""
        return self._point.get(name, low)  # type: ignore[return-value]

    def integer(self, name: str, low: int, high: int) -> int:  # noqa: ARG002
        """The point's number, or the lower end."""
        return self._point.get(name, low)  # type: ignore[return-value]

    def choice(self, name: str, labels: Sequence[Label]) -> int:
        """Of the point's label, or the first."""
        return list(labels).index(self._point[name]) if name in self._point else 0
