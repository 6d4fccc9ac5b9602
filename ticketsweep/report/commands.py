"""The command line that runs a stored trial again."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from ticketsweep.config import EXECUTION_FIELDS, TrialConfig
from ticketsweep.families import FAMILIES
from ticketsweep.results.rows import Row, config_of, is_imported

_PLAIN = re.compile(r"[A-Za-z_][\w./:-]*")
_WORDS = ("null", "true", "false")


def run_again(row: Row, *, storage: str | None) -> str | None:
    """`ticketsweep trial --set …`: every setting that is not the default; None of an imported one.

    Where the trial is stored, it answers at once; in another storage it is trained again.
    """
    if is_imported(row):
        return None
    settings = [shlex.quote(f"{key}={_yaml(value)}") for key, value in _changed(config_of(row))]
    words = [f"--set {each}" for each in settings]
    return " ".join(["ticketsweep trial", *words, *_where(storage)])


def export(row: Row, *, storage: str | None) -> str:
    """`ticketsweep masks export …`: the trial's best ticket as a file."""
    trial_id = str(row["trial_id"])
    out = f"ticket-{trial_id[:8]}.safetensors"
    return " ".join(["ticketsweep masks export", trial_id, "--out", out, *_where(storage)])


def _changed(config: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Dotted settings that differ from the defaults, those that only say where it runs left out."""
    defaults = TrialConfig().model_dump(mode="json")
    for key, value in config.items():
        if key == "gate":
            yield from _changed_gate(value)
        elif key in EXECUTION_FIELDS and key != "data_root":
            continue
        elif isinstance(value, Mapping):
            own = {name: v for name, v in value.items() if v != defaults[key].get(name)}
            if own and key == "retrain":  # it is refused without
                own = {"steps": value["steps"], **own}
            yield from ((f"{key}.{name}", v) for name, v in own.items())
        elif value != defaults.get(key):
            yield key, value


def _changed_gate(gate: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    fields = FAMILIES[gate["family"]].model_fields
    yield "gate.family", gate["family"]
    for name, value in gate.items():
        field = fields.get(name)
        default = field.get_default(call_default_factory=True) if field else None
        required = field is None or field.is_required()
        if name != "family" and (required or value != default):
            yield f"gate.{name}", value


def _yaml(value: object) -> str:
    """A value as YAML reads it back: JSON, and text as it is where nothing else is meant."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value)


def _where(storage: str | None) -> list[str]:
    return ["--storage", shlex.quote(storage)] if storage else []
