"""Search spaces: a trial's settings with any leaf replaced by a distribution, and a `sweep:` block.

Everything wrong with a file is reported at once, before anything is started. A space samples itself
through the small `Suggest` protocol ("define by run"), so this module knows no search library.
"""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ticketsweep.config import (
    EXECUTION_FIELDS,
    TrialConfig,
    parse_config,
    validate,
)
from ticketsweep.distributions import (
    USE_UNIFORM,
    Broken,
    Choice,
    Distribution,
    Label,
    Node,
    Suggest,
    Uniform,
    as_plain,
    corners,
    grid,
    is_distribution,
    parse_tree,
    sample,
    walk,
)
from ticketsweep.errors import MISSING, ConfigError, Fault, SweepError
from ticketsweep.families import FAMILIES
from ticketsweep.sections import Section, is_as_before
from ticketsweep.settings import apply_settings, read_yaml, take_faults
from ticketsweep.starting_points import Point, parse_points
from ticketsweep.sweep_settings import SweepSettings, faults_of_pairing, faults_of_settings


@dataclass(frozen=True)
class SweepSpec:
    """A checked search space.

    Attributes
    ----------
    settings: the `sweep:` block.
    tree: a trial's settings, dotted down as nested dicts, leaves being values or distributions.
    source: where it was read from, for messages.
    points: what the search begins with (`sweep.start_with`).
    """

    settings: SweepSettings
    tree: Mapping[str, Node]
    source: str
    points: Sequence[Point] = ()

    def sample(self, suggest: Suggest) -> TrialConfig:
        """One configuration, every distribution asked of `suggest` in the file's order."""
        raw = {key: sample(node, key, suggest) for key, node in self.tree.items()}
        return parse_config(raw, source=self.source)

    def distributions(self) -> dict[str, Distribution]:
        """Every distribution by its dotted key, those inside a choice's mappings included."""
        return dict(walk(self.tree, ""))

    def grid(self) -> Iterator[dict[str, Label]]:
        """Every point of a space of choices and whole numbers, as name -> label."""
        for point in grid(self.tree, ""):
            yield dict(point)

    def possible(self) -> int:
        """Distinct configurations of the space, counted no further than the number asked for."""
        if any(isinstance(each, Uniform) for each in self.distributions().values()):
            return self.settings.samples
        return sum(1 for _ in itertools.islice(self.grid(), self.settings.samples))

    def values_of(self, key: str) -> list[Any]:
        """Every value that the top-level setting `key` can take."""
        node = self.tree.get(key, TrialConfig.model_fields[key].default)
        return list(node.options) if isinstance(node, Choice) else [node]

    def as_plain(self) -> dict[str, Any]:
        """The space as plain values in one normal form, without what only decides where it runs.

        Settings that the file leaves out are written with their defaults, so that writing one down
        does not make another space, and a default that changes some day does.
        """
        full = _with_defaults(self.tree, TrialConfig())
        return {k: as_plain(v) for k, v in full.items() if k not in EXECUTION_FIELDS}

    def refuse_if_different(self, stored_space: str, stored_objectives: str) -> None:
        """Raise `SweepError` with the difference if the sweep in the store is another one.

        Parameters
        ----------
        stored_space, stored_objectives: JSON, as `as_plain` and the settings gave them.
        """
        old = {
            **_flatten(json.loads(stored_space)),
            **_flatten({"sweep": {"objectives": json.loads(stored_objectives)}}),
        }
        new = {
            **_flatten(self.as_plain()),
            **_flatten({"sweep": {"objectives": self.settings.objectives}}),
        }
        lines = [
            f"  {key}: {_show(old.get(key, MISSING))} in the storage, "
            f"{_show(new.get(key, MISSING))} in {self.source}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key, MISSING) != new.get(key, MISSING)
        ]
        if lines:
            raise SweepError(
                f"sweep {self.settings.name!r} exists with another space or other objectives; "
                "choose another --name, or run it with the space it began with:\n"
                + "\n".join(lines)
            )


def load_space(path: Path, *, settings: Sequence[str] = (), name: str | None = None,
               samples: int | None = None) -> SweepSpec:  # fmt: skip
    """A search space from a YAML file, with something in it to search.

    Parameters and errors are those of `read_space`; a space without a distribution is an error too.
    """
    spec = read_space(path, settings=settings, name=name, samples=samples)
    if not spec.distributions():
        rule = "holds no distribution, so there is nothing to search"
        remedy = (
            f"run it with `ticketsweep trial {shlex.quote(str(path))}`, "
            "or replace a value by {choice: [...]}"
        )
        raise ConfigError(spec.source, [Fault("file", MISSING, rule, remedy)])
    return spec


def read_space(path: Path, *, settings: Sequence[str] = (), name: str | None = None,
               samples: int | None = None) -> SweepSpec:  # fmt: skip
    """A space from a YAML file; one without a distribution is a single trial.

    Parameters
    ----------
    settings: `KEY=VALUE` strings laid over the file: a dotted key merges, a mapping replaces.
    name, samples: take the place of the `sweep:` block's.

    Raises
    ------
    ConfigError: with every fault of the file.
    """
    return space_of(
        read_yaml(path),
        settings=settings,
        name=name,
        samples=samples,
        source=str(path),
        usual_name=path.stem,
    )


def space_of(
    raw: Mapping[str, Any],
    *,
    settings: Sequence[str],
    name: str | None,
    samples: int | None,
    source: str,
    usual_name: str | None = None,
) -> SweepSpec:
    """A space from plain values.

    Parameters
    ----------
    raw: what a search space's file holds.
    settings, name, samples: see `read_space`.
    source: where the values are from, for messages.
    usual_name: of the sweep, where nothing else names it; None: it must be named.

    Raises
    ------
    ConfigError: with every fault of the values.
    """
    laid_over = apply_settings(raw, settings)
    block = {} if laid_over.get("sweep") is None else laid_over["sweep"]
    if isinstance(block, Mapping):
        given = {"name": name, "samples": samples}
        overriding = {key: value for key, value in given.items() if value is not None}
        usual = {} if usual_name is None else {"name": usual_name}
        laid_over["sweep"] = {**usual, **block, **overriding}
    return parse_space(laid_over, source=source)


def load_trial(path: Path | None, *, settings: Sequence[str] = ()) -> TrialConfig:
    """One trial's configuration from a YAML file (or the defaults) with `settings` laid over it.

    A search space is accepted once every distribution in it has been given a value; its `sweep:`
    block is of no effect.

    Raises
    ------
    ConfigError: with every fault of the file.
    """
    raw = apply_settings(read_yaml(path) if path else {}, settings)
    raw.pop("sweep", None)
    source = str(path) if path else "--set"
    faults: list[Fault] = []
    tree = _parse_trial(raw, faults)
    open_choices = {key: as_plain(node) for key, node in walk(tree, "")}
    faults += [
        Fault(key, value, "must be one value for a single trial", f"--set {key}=VALUE")
        for key, value in open_choices.items()
    ]
    if faults:
        raise ConfigError(source, _each_once(faults))
    return parse_config(tree, source=source)


def parse_space(raw: Mapping[str, Any], *, source: str) -> SweepSpec:
    """A checked `SweepSpec` from plain values, or a `ConfigError` with every fault."""
    faults: list[Fault] = []
    trial = {key: value for key, value in raw.items() if key != "sweep"}
    tree = _parse_trial(trial, faults)
    block: Any = {} if raw.get("sweep") is None else raw["sweep"]
    unusable: list[Fault] = []
    points: Sequence[Point] = ()
    block = take_faults(block, unusable)
    faults += unusable
    if isinstance(block, Mapping):
        hidden = {fault.key for fault in unusable}
        found = faults_of_settings(block) + faults_of_pairing(block, tree)
        given = block.get("start_with")
        if isinstance(given, Sequence) and not isinstance(given, str):
            points, misfits = parse_points(given, tree, key="sweep.start_with")
            found += misfits
        faults += [fault for fault in found if fault.key not in hidden]
    elif block is not MISSING:
        faults.append(Fault("sweep", block, "must be a mapping of settings"))
    if faults:
        raise ConfigError(source, _each_once(faults))
    return SweepSpec(SweepSettings.model_validate(block), tree, source, points)


def _parse_trial(raw: Mapping[str, Any], faults: list[Fault]) -> dict[str, Node]:
    """A trial's settings as a tree; every fault of a value that can come out of it is noted.

    Each distribution's ends and options are tried one at a time with all others at their first
    value; no rule of a trial's settings ties the values of two fields, so nothing hides between.
    """
    sound = take_faults(raw, faults)
    malformed: list[Fault] = []
    tree = parse_tree({} if sound is MISSING else sound, "", malformed)
    faults += map(_with_sound_remedy, malformed)
    nodes = dict(walk(tree, ""))
    for point in corners(tree):
        for fault in validate(TrialConfig, point):
            if isinstance(fault.value, Broken):
                continue
            node = nodes.get(fault.key)
            if isinstance(node, Uniform) and fault.rule == "must be a whole number":
                fault = replace(fault, value=as_plain(node), remedy="use int")
            faults.append(fault)
    kinds: dict[str, object] = {}
    for key, node in walk(tree, ""):
        kind = node.labels if isinstance(node, Choice) else (type(node), getattr(node, "log", None))
        if kinds.setdefault(key, kind) != kind:
            rule = "must be the same kind of distribution in every option that has it"
            faults.append(Fault(key, as_plain(node), rule))
    return tree


def _with_sound_remedy(fault: Fault) -> Fault:
    """`fault`, without the advice to use uniform where the setting would refuse its ends too."""
    if fault.remedy != USE_UNIFORM or not isinstance(fault.value, Mapping):
        return fault
    (ends,) = fault.value.values()
    for end in ends:
        trial: Any = float(end)
        for part in reversed(fault.key.split(".")):
            trial = {part: trial}
        if any(found.key == fault.key for found in validate(TrialConfig, trial)):
            return replace(fault, remedy="")
    return fault


def _each_once(faults: Sequence[Fault]) -> list[Fault]:
    """`faults` without repetitions: a value stands in many of the trials that a space holds."""
    first: dict[tuple[str, str], Fault] = {}
    for fault in faults:
        first.setdefault((fault.key, fault.rule), fault)
    return list(first.values())


def _with_defaults(tree: Mapping[str, Node], section: BaseModel) -> dict[str, Node]:
    """`tree` with the settings that it leaves out; what a choice holds stays as it is."""
    fields = type(section).model_fields
    full = {key: node for key, node in tree.items() if key not in fields}  # of a searched family
    for key, field in fields.items():
        usual = getattr(section, key)
        node = tree.get(key, {} if isinstance(usual, BaseModel) else usual)
        if isinstance(usual, BaseModel) and isinstance(node, Mapping):
            node = _with_defaults(node, _family_defaults(node) if key == "gate" else usual)
        if not is_as_before(field, node):  # else a space stored before the field would be another
            full[key] = node
    return full


def _family_defaults(gate: Mapping[str, Node]) -> BaseModel:
    """The defaults of a gate's family; of none where the family is searched over."""
    family = gate.get("family", TrialConfig().gate.family)
    return FAMILIES[family]() if isinstance(family, str) else Section()


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        is_block = isinstance(value, Mapping) and not is_distribution(value)
        flat.update(_flatten(value, f"{name}.") if is_block else {name: value})
    return flat


def _show(value: object) -> str:
    return "not set" if value is MISSING else json.dumps(value)
