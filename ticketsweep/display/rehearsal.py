"""What a run would be: counts, time, memory, and what the sampler would draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table

from ticketsweep.display.figures import duration, plural, setting, short
from ticketsweep.display.terminal import Column, paragraph, tables
from ticketsweep.display.trials import setting_names
from ticketsweep.progress import UNDER_WAY
from ticketsweep.results.rows import setting_of


def rehearsal_parts(console: Console, found: dict[str, Any]) -> list[RenderableType]:
    """The parts of a rehearsal's message; `found` is the document that `--format json` has."""
    facts = {
        "trials": _trials(found),
        "space": _possible(found["possible"]),
        "replicates": _replicates(found),
        "at once": f"{plural(found['concurrency'], 'trial')}, {_given(found)} each",
        "a trial": _trial(found),
        "the run": _run(found),
        **({"memory": _memory(found["memory"])} if found["memory"] else {}),
    }
    parts: list[RenderableType] = [
        f"{found['sweep']}: nothing is in the way of this run, and nothing was written",
        "",
        _grid(facts),
    ]
    if found["drawn"]:
        parts += ["", _drawn(console, found["drawn"], found["searched"])]
        parts += ["", paragraph(_caution(found))]
    return parts


def _grid(facts: Mapping[str, str]) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for what, told in facts.items():
        grid.add_row(what, told)
    return grid


def _trials(found: dict[str, Any]) -> str:
    states = {"complete": 0, **found["states"]}
    stored = [f"{count} {state.replace('_', ' ')}" for state, count in states.items()]
    return f"{found['samples']:,} asked for; {', '.join(stored)}; {found['lacking']:,} to be run"


def _possible(count: int | None) -> str:
    if count is None:
        return "endless: it has ranges of real numbers"
    more = "at least " if count >= 100_000 else ""
    return f"{more}{plural(count, 'distinct configuration')}"


def _replicates(found: dict[str, Any]) -> str:
    fewest, most = found["replicates"]
    count = str(most) if fewest == most else f"{fewest} to {most}"
    packs = found["memory"]["packs"] if found["memory"] else []
    if len(packs) > 1:
        why = f"on {found['gpus']:g} GPUs" if found["gpus"] > 1 else "for want of memory"
        return f"{count} a trial, in {len(packs)} packs of at most {max(packs)} {why}"
    return f"{count} a trial, trained together"


def _given(found: dict[str, Any]) -> str:
    given = f"{found['cpus']:g} CPU{'' if found['cpus'] == 1 else 's'}"
    if not found["gpus"]:
        return given
    return f"{given} and {found['gpus']:g} GPU{'s' if found['gpus'] > 1 else ''}"


def _trial(found: dict[str, Any]) -> str:
    seconds = [each["seconds"] for each in found["drawn"] if not each["stored_in"]]
    if not seconds:
        return "nothing to be trained among those drawn"
    least, most = duration(min(seconds)), duration(max(seconds))
    steps = "a few steps" if found["measured"] == found["kinds"] else "a few steps of some kinds"
    told = least if least == most else f"{least} to {most}"
    return f"about {told}, by {steps} on this machine"


def _run(found: dict[str, Any]) -> str:
    if not found["lacking"]:
        return "nothing to be run: every trial is stored"
    halved = ", as far as trials are stopped early" if found["stops_early"] else ""
    where = " on this machine alone" if found["address"] else ""
    return f"about {duration(found['seconds'])}{where}{halved}"


def _memory(memory: dict[str, Any]) -> str:
    told = f"{memory['trial'] / 2**30:.1f} GiB a trial"
    if memory["available"] is None:
        return told
    return f"{told}, of {memory['available'] / 2**30:.1f} GiB that each may take"


def _drawn(
    console: Console, drawn: Sequence[dict[str, Any]], searched: Sequence[str]
) -> RenderableType:
    key = [Column("trial", [short(each["trial_id"]) for each in drawn], right=False)]
    values = [
        Column(name, [setting(_told(setting_of(each["config"], of))) for each in drawn])
        for of, name in zip(searched, setting_names(searched), strict=True)
    ]
    times = ["stored" if each["stored_in"] else duration(each["seconds"]) for each in drawn]
    return tables(console, [*key, Column("time", times)], values)


def _told(value: object) -> object:
    return value["family"] if isinstance(value, dict) and "family" in value else value


def _caution(found: dict[str, Any]) -> str:
    first = plural(len(found["drawn"]), "configuration")
    told = f"{first} as the {found['sampler']} sampler draws them before it has seen a result"
    if found["sampler"] in ("tpe", "nsga2"):
        told += "; later ones depend on what is found"
    if UNDER_WAY in found["states"] or found["states"].get("failed"):
        told += "; trials that were cut off or have failed are tried again first"
    return f"{told}."
