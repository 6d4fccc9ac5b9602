"""Options that several commands share, and the words that they take."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

import typer

from ticketsweep.errors import UserError

_SPAN = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_UNITS = (86_400, 3600, 60, 1)
_LONGEST = 366 * 86_400


class ResultFormat(StrEnum):
    """Formats of a result that is more than one table."""

    TABLE = "table"
    JSON = "json"


class TableFormat(StrEnum):
    """Formats of one table."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


class QueryFormat(StrEnum):
    """Formats of the answer to a query."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    PARQUET = "parquet"


class FigureFormat(StrEnum):
    """Formats of a figure."""

    PNG = "png"
    SVG = "svg"
    PDF = "pdf"


class Tracking(StrEnum):
    """Where W&B puts its runs."""

    ONLINE = "online"
    OFFLINE = "offline"
    OFF = "off"


class TrackerName(StrEnum):
    """What curves and results are tracked with."""

    WANDB = "wandb"
    TENSORBOARD = "tensorboard"
    JSONL = "jsonl"


class Listing(StrEnum):
    """What can be listed."""

    SWEEPS = "sweeps"
    SPACES = "spaces"
    MODELS = "models"
    DATASETS = "datasets"
    GATES = "gates"
    CONTROLS = "controls"


def seconds_of(text: str) -> float:
    """`1h30m` as 5400. Raises typer.BadParameter for anything else, and for no time at all."""
    match = _SPAN.fullmatch(text)
    parts = match.groups(default="0") if match else ()
    seconds = sum(int(part[:12]) * unit for part, unit in zip(parts, _UNITS, strict=False))
    if not 0 < seconds <= _LONGEST:
        raise typer.BadParameter(
            f"must be a time such as 90s, 30m, 2h, 1d or 1h30m, at most 366d, got {text[:40]!r}"
        )
    return float(seconds)


TimeOption = Annotated[
    float | None,
    typer.Option(
        "--for",
        metavar="TIME",
        parser=seconds_of,
        help="Stop after 30m, 2h, 1h30m: no trial is begun that would end too late; what runs then "
        "is stopped at its next checkpoint, and the same line goes on with it.",
    ),
]
StorageOption = Annotated[
    str | None,
    typer.Option(
        "--storage",
        metavar="URI",
        help="The mask database: a folder, s3://… or gs://…  "
        "[default: $TICKETSWEEP_STORAGE, else ./ticketsweep-storage]",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting, for example gate.l0_strength=2; may be repeated.",
    ),
]
RetryOption = Annotated[
    bool,
    typer.Option(
        "--retry-failed", help="Run failed trials again that sweep.max_failures gives up."
    ),
]
FormatOption = Annotated[ResultFormat, typer.Option("--format", help="Format of the result.")]

TrackerOption = Annotated[
    list[TrackerName] | None,
    typer.Option(
        "--tracker",
        metavar="NAME",
        help="wandb, tensorboard or jsonl (a line of JSON an event); may be repeated.  "
        "[default: wandb]",
    ),
]

PlacesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Where things are now: data_root=DIR, dataset=parquet:DIR, device=cpu.",
    ),
]


def chosen_trackers(
    named: Sequence[TrackerName] | None, wandb: Tracking | None
) -> Sequence[TrackerName]:
    """Those named, else W&B alone. Raises UserError where a mode is given for W&B without it."""
    chosen = named or [TrackerName.WANDB]
    if wandb and TrackerName.WANDB not in chosen:
        raise UserError(f"--wandb {wandb.value} goes with --tracker wandb (name it too)")
    return chosen
