"""Options that several commands share, and the words that they take."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


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


class Listing(StrEnum):
    """What can be listed."""

    SWEEPS = "sweeps"
    SPACES = "spaces"
    MODELS = "models"
    DATASETS = "datasets"
    GATES = "gates"
    CONTROLS = "controls"


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
FormatOption = Annotated[ResultFormat, typer.Option("--format", help="Format of the result.")]

PlacesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Where things are now: data_root=DIR, dataset=parquet:DIR, device=cpu.",
    ),
]
