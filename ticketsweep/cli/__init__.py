"""The command line: parse, call, print. Whatever is slow to import is imported inside a command.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 the work failed, 2 the input
was wrong, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import io
import os
import platform
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from ticketsweep import __version__
from ticketsweep.cli.completion import VARIABLE, offer
from ticketsweep.cli.confirming import best, confirm
from ticketsweep.cli.deleting import clean, delete
from ticketsweep.cli.doctor import doctor
from ticketsweep.cli.exchange import export, import_
from ticketsweep.cli.logs import logs
from ticketsweep.cli.masks import compact, verify
from ticketsweep.cli.notes import note, readable
from ticketsweep.cli.reading import list_, query
from ticketsweep.cli.report import report
from ticketsweep.cli.running import run, trial
from ticketsweep.cli.stability import stability
from ticketsweep.cli.starting import init
from ticketsweep.cli.status import status
from ticketsweep.errors import TicketsweepError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def main() -> None:
    """Entry point: one message and an exit code for every error that is meant for the user."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without `±` is no reason to fail
    # What torch and the like make while they are imported stays, and to look through all of it for
    # garbage after every 700 objects takes a tenth of a short command's time.
    gc.set_threshold(50_000, 20, 20)
    try:
        command = typer.main.get_command(app)
        if VARIABLE in os.environ:
            offer(command)
        command()
    except TicketsweepError as error:
        note(readable(f"Error: {error}"))
        sys.exit(error.exit_code)


_VERSIONS = ("torch", "ray", "optuna")  # told beside our own


def _print_version(wanted: bool) -> None:
    if wanted:
        found = [f"Python {platform.python_version()}"]
        for name in _VERSIONS:
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                found.append(f"{name} {importlib.metadata.version(name)}")
        print(f"ticketsweep {__version__} ({', '.join(found)})")
        raise typer.Exit


@app.callback(epilog="Begin with:  ticketsweep run search_spaces/quickstart.yaml")
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show versions and exit."
        ),
    ] = False,
) -> None:
    """Find winning lottery tickets, and learn whether another seed finds the same ones."""


_RULES = {"int_parsing": "must be a whole number"}


class _Command(TyperCommand):
    """A command that refuses an option's value in words of its own, not in pydantic's."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer does it; the context is Click's, or that of Typer's own copy of Click."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            message = _refusal(error.__cause__)
            if message is None:
                raise
            raise typer.BadParameter(message, ctx=error.ctx, param=error.param) from None


def _refusal(cause: BaseException | None) -> str | None:
    """Rule and value of the first fault that pydantic found; None for another cause."""
    faults = getattr(cause, "errors", None)
    if faults is None:
        return None
    fault = faults()[0]
    rule: str = _RULES.get(fault["type"], fault["msg"].removeprefix("Value error, "))
    value = repr(fault["input"])
    return rule if value in rule else f"{rule}, got {value}"


def _examples(*lines: str) -> str:
    return "\n".join(["\b", "Examples:", *(f"  ticketsweep {line}" for line in lines)])


app.command(
    cls=_Command,
    short_help="Run a sweep, or go on with one.",
    epilog=_examples(
        "run search_spaces/quickstart.yaml",
        "run search_spaces/quickstart.yaml --samples 30 --dry-run",
    ),
)(run)
app.command(
    cls=_Command,
    epilog=_examples(
        "trial --set gate.l0_strength=2 --set train.steps=500",
        "trial best.yaml --format json",
        "trial --like 3fa9 --set seed=1",
    ),
)(trial)
app.command(
    cls=_Command,
    short_help="Show how far sweeps have come.",
    epilog=_examples("status", "status quickstart", "status quickstart --watch --every 30"),
)(status)
app.command(
    cls=_Command,
    short_help="Show what a trial told while it ran.",
    epilog=_examples("logs 3fa9", "logs 3fa9 --sweep quickstart --follow"),
)(logs)
app.command(
    "list",
    cls=_Command,
    short_help="List sweeps, spaces, models, data sets, gates, controls.",
    epilog=_examples("list models", "list sweeps"),
)(list_)
app.command(
    cls=_Command,
    epilog=_examples(
        'query "select layer, avg(kept / size) from tickets group by 1"',
        'query "select * from trials" --format json',
        'query "select * from masks" --out masks.parquet',
        "query 'select * from trials where sweep = $s' --param s=mine",
    ),
)(query)
app.command(
    cls=_Command,
    short_help="Show how far the tickets of a sweep agree.",
    epilog=_examples(
        "stability quickstart",
        "stability quickstart --by rewind_step --format csv",
        "stability quickstart --predictions --transfer",
        "stability quickstart --connectivity --trial 3fa9",
    ),
)(stability)
app.command(
    cls=_Command,
    short_help="Show the best accuracy at given sparsities.",
    epilog=_examples("best quickstart", "best quickstart --at-sparsity 0.9,0.95 --format csv"),
)(best)
app.command(
    cls=_Command,
    short_help="Run the best settings again with fresh seeds.",
    epilog=_examples(
        "confirm quickstart",
        "confirm quickstart --at-sparsity 0.8,0.9 --replicates init=8",
    ),
)(confirm)
app.command(
    cls=_Command,
    short_help="Write what a sweep has found as one HTML file.",
    epilog=_examples(
        "report quickstart",
        "report quickstart --figures figures --figure-format pdf",
    ),
)(report)
app.command(
    cls=_Command,
    short_help="Write a search space to begin with.",
    epilog=_examples(
        "init mine",
        "init mine --dataset cifar10",
        "init mine --model mynet:net --dataset mynet:data",
    ),
)(init)
app.command(
    cls=_Command,
    short_help="Look for what would be in the way of a sweep.",
    epilog=_examples("doctor", "doctor --ray --storage s3://bucket/masks"),
)(doctor)
app.command(
    cls=_Command,
    short_help="Delete a sweep, or some of its trials.",
    epilog=_examples(
        "delete quickstart --dry-run", "delete quickstart", "delete quickstart --failed --yes"
    ),
)(delete)
app.command(
    cls=_Command,
    short_help="Delete what dead processes have left behind.",
    epilog=_examples("clean --dry-run", "clean quickstart --older-than 1"),
)(clean)

masks = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Check, compact, export and import the masks of the database.",
    short_help="Check, compact, export and import masks.",
)
app.add_typer(masks, name="masks")
masks.command(
    cls=_Command,
    short_help="Check every byte and row of the database.",
    epilog=_examples("masks verify", "masks verify quickstart --quarantine"),
)(verify)
masks.command(
    cls=_Command,
    short_help="Merge the files of single trials into few.",
    epilog=_examples("masks compact", "masks compact quickstart"),
)(compact)
masks.command(
    cls=_Command,
    short_help="Write a ticket to a file that others read.",
    epilog=_examples(
        "masks export --best quickstart --out ticket.safetensors",
        "masks export 3fa9 --replicate 2 --format csr --out matrices",
    ),
)(export)
masks.command(
    "import",
    cls=_Command,
    short_help="Store masks of open_lth or hidden-networks.",
    epilog=_examples(
        "masks import replicate_1/level_3 replicate_2/level_3 --sweep lth",
        "masks import model_best.pth --sweep popup --prune-rate 0.5",
    ),
)(import_)
