"""Settings as plain values, from YAML files and from `KEY=VALUE` strings on the command line.

YAML 1.2 is read, so `1e-3` is a number and `off` is text. What the settings mean is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from ticketsweep.errors import MISSING, ConfigError, Fault


def read_yaml(path: Path) -> dict[str, Any]:
    """The top-level mapping of a YAML 1.2 file; an empty file is an empty mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            str(path), [Fault("file", MISSING, f"cannot be read: {reason}")]
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(str(path), [Fault("file", MISSING, "must be text in UTF-8")]) from None
    return _parse_yaml_mapping(text, source=str(path))


def apply_settings(raw: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """`raw` with every `KEY=VALUE` laid over it; VALUE is YAML, KEY is dotted."""
    merged = dict(raw)
    faults = []
    for setting in settings:
        key, equals, text = setting.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            rule = "must look like KEY=VALUE, for example gate.l0_strength=2"
            faults.append(Fault("--set", setting, rule))
            continue
        try:
            value = _yaml().load(text) if text.strip() else None
        except (YAMLError, RecursionError, ValueError) as error:
            faults.append(Fault(f"--set {key}", text, "must be a YAML value", _where(error)))
            continue
        place = merged
        for part in path[:-1]:
            inner = place.get(part)
            place[part] = place = dict(inner) if isinstance(inner, Mapping) else {}
        place[path[-1]] = value
    if faults:
        raise ConfigError("--set", faults)
    return merged


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.version = (1, 2)
    return yaml


def _parse_yaml_mapping(text: str, *, source: str) -> dict[str, Any]:
    try:
        raw = _yaml().load(text)
    except (YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(source, [Fault("file", MISSING, "must be YAML", _where(error))]) from None
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(source, [Fault("file", raw, "must be a mapping of settings")])
    return raw


def _where(error: Exception) -> str:
    """The parser's complaint and its place, in one line."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())[:200] or type(error).__name__
