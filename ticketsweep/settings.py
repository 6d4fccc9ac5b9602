"""Settings as plain values, from YAML files and from `KEY=VALUE` strings on the command line.

The values are those of YAML 1.2's core schema, so `1e-3` is a number and `off` is text. What the
settings mean is not known here. A settings file needs neither tags nor cycles, and is written by
hand: what goes beyond that is refused, and reading stays quick whatever the text is.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from ticketsweep.distributions import is_distribution
from ticketsweep.errors import MISSING, ConfigError, Fault, shown

_MAX_BYTES = 64 * 1024
_MAX_DEPTH = 20
_MAX_VALUES = 20_000  # aliases written out

# YAML 1.2.2, section 10.3.2
_NULL = re.compile(r"null|Null|NULL|~|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_WHOLE = re.compile(r"[-+]?[0-9]{1,400}")  # Python refuses the longest; as a float, it is infinite
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def read_yaml(path: Path) -> dict[str, Any]:
    """The top-level mapping of a YAML 1.2 file; an empty file is an empty mapping.

    A value that cannot be used (a second one for a key, one with a tag, …) is represented by its
    `Fault`; `take_faults` gathers them, so that they are reported with all others of the file.

    Raises
    ------
    ConfigError: if there is no such file, or it is no YAML, or holds something else than a mapping.
    """
    source = str(path)
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        rule = f"cannot be read: {error.strerror or error}"
        remedy = _files_like(path) if isinstance(error, FileNotFoundError) else ""
        raise ConfigError(source, [Fault("file", MISSING, rule, remedy)]) from None
    if len(content) > _MAX_BYTES:
        rule = f"must be a settings file of at most {_MAX_BYTES // 1024} KiB"
        raise ConfigError(source, [Fault("file", MISSING, rule)])
    try:
        raw = _parse(content.decode("utf-8-sig"), key="")
    except UnicodeDecodeError as error:
        rule = f"must be text in UTF-8, but its byte {error.start} is not"
        raise ConfigError(source, [Fault("file", MISSING, rule)]) from None
    except (YAMLError, _Refused) as error:
        raise ConfigError(source, [Fault("file", MISSING, *_complaint(error))]) from None
    if raw is None:
        return {}
    if isinstance(raw, Fault):
        raise ConfigError(source, [Fault("file", raw.value, raw.rule, raw.remedy)])
    if not isinstance(raw, dict):
        raise ConfigError(source, [Fault("file", raw, "must be a mapping of settings")])
    return raw


def _files_like(path: Path) -> str:
    """A settings file in the same folder with a name like `path`'s, else where files are listed."""
    files = {file.stem: file for file in path.parent.glob("*.yaml")}
    near = difflib.get_close_matches(path.stem, files, n=1)
    if not near:
        return "`ticketsweep list spaces` shows those of ./search_spaces"
    return f"did you mean {str(files[near[0]])!r}?"


def apply_settings(raw: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """`raw` with every `KEY=VALUE` laid over it; VALUE is YAML, KEY is dotted.

    A dotted key merges into the mappings on its way, a mapping as VALUE replaces what was there.
    `raw` itself is left as it is.

    Raises
    ------
    ConfigError: with every fault of `settings`.
    """
    merged = dict(raw)
    faults: list[Fault] = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            rule = "must look like KEY=VALUE, for example gate.l0_strength=2"
            faults.append(Fault("--set", setting, rule))
            continue
        try:
            value = take_faults(_parse(text, key=".".join(path)), faults)
        except (YAMLError, _Refused) as error:
            rule, remedy = _complaint(error)
            faults.append(Fault(f"--set {key.strip()}", text, rule, remedy))
            continue
        if value is not MISSING:
            _put(merged, path, value, faults)
    if faults:
        raise ConfigError("--set", faults)
    return merged


def take_faults(value: Any, faults: list[Fault]) -> Any:
    """`value` without the faults in it, which are added to `faults`; MISSING if nothing is left."""
    if isinstance(value, Fault):
        faults.append(value)
        return MISSING
    if not isinstance(value, Mapping) or not value:
        return value
    sound = {key: take_faults(child, faults) for key, child in value.items()}
    return {key: child for key, child in sound.items() if child is not MISSING} or MISSING


def _put(place: dict[str, Any], path: Sequence[str], value: Any, faults: list[Fault]) -> None:
    """`value` at `path` of `place`; mappings on the way are copied, since aliases share them."""
    for depth, part in enumerate(path[:-1], start=1):
        inner = place.get(part)
        is_value = inner is not None and not isinstance(inner, (Mapping, Fault))
        if is_value or (is_distribution(inner) and path[depth] not in inner):
            outer = ".".join(path[:depth])
            rule = f"cannot be set inside {outer}, which is {shown(inner)}"
            setting = f"--set {'.'.join(path)}"
            faults.append(Fault(setting, MISSING, rule, f"set {outer} as a whole"))
            return
        place[part] = dict(inner) if isinstance(inner, Mapping) else {}
        place = place[part]
    place[path[-1]] = value


class _Refused(Exception):
    """The text is YAML, but no settings."""


def _complaint(error: Exception) -> tuple[str, str]:
    """Rule and remedy: what the parser or the reader objects to, and where, in one line."""
    if isinstance(error, _Refused):
        return str(error), ""
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        problem = " ".join(str(error.problem).split())
        return "must be YAML", f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
    return "must be YAML", " ".join(str(error).split())[:100]


def _parse(text: str, *, key: str) -> Any:
    """The value of a YAML document, None if it is empty; `key` is where it will stand."""
    return _Reader(text).read(key)


class _Reader:
    """Makes plain values of a parser's events.

    ruamel's own constructor raises at the first fault, knows dates, which YAML 1.2 does not, and
    follows aliases wherever they lead.
    """

    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = YAML(typ="safe", pure=True).parse(text)
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._values = 0

    def read(self, key: str) -> Any:
        value = None
        documents = 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Refused(f"must be one YAML document ({_line(event)} begins another)")
            elif isinstance(event, NodeEvent):
                value = self._value(event, key, depth=0)
        return value

    def _value(self, event: Any, key: str, *, depth: int) -> Any:
        if isinstance(event, AliasEvent):
            if event.anchor not in self._anchors:
                rule = "must not refer to itself or to what is not there"
                return Fault(key, MISSING, rule, f"*{event.anchor} in {_line(event)}")
            value, size = self._anchors[event.anchor]
            self._count(size)
            return value
        if depth > _MAX_DEPTH:
            raise _Refused(f"must not be nested deeper than {_MAX_DEPTH} levels ({_line(event)})")
        before = self._values
        self._count(1)
        if isinstance(event, MappingStartEvent):
            value = self._mapping(key, depth=depth)
        elif isinstance(event, SequenceStartEvent):
            value = self._sequence(key, depth=depth)
        else:
            value = _scalar(event)
        if event.tag is not None:
            tag = f"{event.tag.replace('tag:yaml.org,2002:', '!!')} in {_line(event)}"
            value = Fault(key, MISSING, "must be written without a YAML tag", tag)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._values - before)
        return value

    def _mapping(self, key: str, *, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            if not isinstance(event, ScalarEvent):
                raise _Refused(f"must have text for every key ({_line(event)} has something else)")
            name = event.value  # `1:` and `null:` are text too where they stand for a key
            inner = f"{key}.{name}" if key else name
            value = self._value(next(self._events), inner, depth=depth + 1)
            if name in mapping:
                value = Fault(inner, MISSING, "must be given once", f"again in {_line(event)}")
            mapping[name] = value
        return mapping

    def _sequence(self, key: str, *, depth: int) -> Any:
        """A list, or its first fault: one with a gap in it would be another list."""
        items = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            items.append(self._value(event, key, depth=depth + 1))
        faults: list[Fault] = []
        for item in items:
            take_faults(item, faults)
        return faults[0] if faults else items

    def _count(self, values: int) -> None:
        self._values += values
        if self._values > _MAX_VALUES:
            raise _Refused(f"must hold at most {_MAX_VALUES} values, its aliases written out")


def _line(event: Event) -> str:
    return f"line {event.start_mark.line + 1}"


def _scalar(event: ScalarEvent) -> str | int | float | bool | None:
    text: str = event.value
    is_plain, _ = event.implicit
    if not is_plain:
        return text
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return text.lower() == "true"
    if _WHOLE.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text) or _HEXADECIMAL.fullmatch(text):
        return int(text, base=0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", ""))
    return text
