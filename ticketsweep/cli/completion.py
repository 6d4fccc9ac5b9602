"""What a shell offers where a sweep, a trial, a search space or a setting is to be typed.

It is asked at each press of the tabulator, so nothing slow is imported, and no network is asked.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

_MOST = 200  # offers: nobody reads more


VARIABLE = "_TICKETSWEEP_COMPLETE"
"""Set by the script that a shell has, where it asks."""

_NEW = {("init", "name")}  # not the name of anything there is


def offer(command: Any) -> None:
    """Let a command of Typer's, and those within it, offer what is at hand for their parameters."""
    for inner in getattr(command, "commands", {}).values():
        offer(inner)
    for parameter in command.params:
        if parameter.name in COMPLETERS and (command.name, parameter.name) not in _NEW:
            parameter._custom_shell_complete = _offers


def _offers(context: Any, parameter: Any, typed: str) -> list[str]:
    return complete(parameter.name, context.params, typed)


def complete(parameter: str, given: Mapping[str, Any], typed: str) -> list[str]:
    """What may stand for a parameter of this name, beginning with what has been typed.

    Parameters
    ----------
    given: the command's other parameters as far as they have been typed.
    """
    with contextlib.suppress(OSError):  # a folder that is not there, or may not be read
        offers = COMPLETERS[parameter](given, typed)
        return sorted({each for each in offers if each.startswith(typed)})[:_MOST]
    return []


def _sweeps(given: Mapping[str, Any], _: str) -> Iterator[str]:
    """The sweeps of a storage on a local disk."""
    for folder in _folders(given):
        yield folder.name.partition("=")[2]


def _trials(given: Mapping[str, Any], _: str) -> Iterator[str]:
    """The trials that have files of their own there."""
    sweep = given.get("sweep") or given.get("name")
    for folder in _folders(given):
        if sweep in (None, folder.name.partition("=")[2]):
            yield from (path.stem for path in folder.glob("*.parquet"))


def _folders(given: Mapping[str, Any]) -> Iterator[Path]:
    # Their names are those of `store.paths`, which is slow to import.
    root = given.get("storage") or os.environ.get("TICKETSWEEP_STORAGE") or "ticketsweep-storage"
    if "://" not in root:
        yield from Path(root).expanduser().glob("trials/sweep=*")


def _spaces(_: Mapping[str, Any], typed: str) -> Iterator[str]:
    """YAML files where one is typing, and a folder further down."""
    prefix = typed[: typed.rfind("/") + 1]
    folder = Path(prefix or ".").expanduser()
    for path in (*folder.glob("*.yaml"), *folder.glob("[!.]*/*.yaml")):
        yield prefix + path.relative_to(folder).as_posix()


def _keys(_: Mapping[str, Any], typed: str) -> Iterator[str]:
    """The dotted names of the settings of a trial."""
    from ticketsweep.config import TrialConfig
    from ticketsweep.families import FAMILIES
    from ticketsweep.sections import Section

    def keys(section: type[Section], prefix: str) -> Iterator[str]:
        for name, field in section.model_fields.items():
            inner = field.default
            if not prefix and name == "gate":
                for family in FAMILIES.values():
                    yield from keys(family, "gate.")
            elif isinstance(inner, Section):
                yield from keys(type(inner), f"{prefix}{name}.")
            else:
                yield prefix + name

    if "=" not in typed:
        yield from keys(TrialConfig, "")


def _settings(given: Mapping[str, Any], typed: str) -> Iterator[str]:
    yield from (f"{key}=" for key in _keys(given, typed))


def _models(_: Mapping[str, Any], __: str) -> Iterator[str]:
    from ticketsweep.names import MODELS

    yield from (name for name in MODELS if "…" not in name and ":" not in name)


def _datasets(_: Mapping[str, Any], __: str) -> Iterator[str]:
    from ticketsweep.names import DATASETS

    yield from (name for name in DATASETS if ":" not in name)


Completer = Callable[[Mapping[str, Any], str], Iterator[str]]
COMPLETERS: dict[str, Completer] = {
    "name": _sweeps,
    "names": _sweeps,
    "sweep": _sweeps,
    "best": _sweeps,
    "trial": _trials,
    "space": _spaces,
    "config": _spaces,
    "settings": _settings,
    "by": _keys,
    "model": _models,
    "dataset": _datasets,
}
"""By the names that commands give their parameters."""
