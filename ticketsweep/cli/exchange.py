"""The commands that carry tickets out of the mask database and others' masks into it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ticketsweep.cli.notes import note, notes
from ticketsweep.cli.options import FormatOption, PlacesOption, ResultFormat, StorageOption
from ticketsweep.errors import UserError

if TYPE_CHECKING:
    from ticketsweep.exchange.choice import Choice
    from ticketsweep.exchange.forms import Ticket
    from ticketsweep.store.database import Database


class TicketFormat(StrEnum):
    """What an exported ticket is."""

    SAFETENSORS = "safetensors"
    PRUNE = "prune"
    MASKS = "masks"
    COO = "coo"
    CSR = "csr"


def export(
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Where to write; with coo and csr, a new folder.")
    ],
    trial: Annotated[
        str | None, typer.Argument(metavar="TRIAL", help="A trial's id; the first digits will do.")
    ] = None,
    best: Annotated[
        str | None,
        typer.Option(
            metavar="SWEEP", help="In place of TRIAL: the sweep's best in its first objective."
        ),
    ] = None,
    min_sparsity: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="With --best: of the trials that are at least so sparse."
        ),
    ] = None,
    replicate: Annotated[
        int | None,
        typer.Option(help="Which of the trial's tickets.  [default: the best on validation]"),
    ] = None,
    output: Annotated[
        TicketFormat, typer.Option("--format", help="What is written.")
    ] = TicketFormat.SAFETENSORS,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    settings: PlacesOption = None,
    storage: StorageOption = None,
) -> None:
    """Write a ticket to a file that others read.

    Its weights are made again from seeds and rewinding step, and the ticket is scored on the test
    split before it is written. Formats: safetensors, a state dictionary of the plain model; prune,
    that of a model pruned by torch.nn.utils.prune; masks, NAME_mask alone; coo and csr, a SciPy
    file a layer.
    """
    if (trial is None) == (best is None):
        raise UserError("masks export needs either TRIAL or --best SWEEP")
    if min_sparsity is not None and best is None:
        raise UserError("--min-sparsity goes with --best: TRIAL says which trial it is")
    from ticketsweep.exchange.choice import choose, choose_best
    from ticketsweep.exchange.files import check_target
    from ticketsweep.store.database import open_database
    from ticketsweep.store.paths import default_storage

    is_folder = output in (TicketFormat.COO, TicketFormat.CSR)
    check_target(out, is_folder=is_folder, force=force)
    database = open_database(storage or default_storage())
    if best is not None:
        choice = choose_best(database, best, min_sparsity=min_sparsity, replicate=replicate)
    else:
        choice = choose(database, trial or "", replicate=replicate)
    notes(database.warnings)

    from ticketsweep.exchange.formats import export as write
    from ticketsweep.exchange.remaking import stored_masks
    from ticketsweep.results.rows import is_imported

    of_matrices_alone = is_folder and is_imported(choice.trial)
    if output is TicketFormat.MASKS or of_matrices_alone:
        masks = stored_masks(database, choice, settings=settings or [])
        write(masks, output.value, out, force=force)
        note(f"{_described(masks.about)} written to {out}")
    else:
        ticket = _made(database, choice, settings or [])
        write(ticket, output.value, out, force=force)
        note(f"{_described(ticket.about)} written to {out}")
        notes(ticket.notes)


def _made(database: Database, choice: Choice, settings: Sequence[str]) -> Ticket:
    from ticketsweep.display.progress import TrialDisplay
    from ticketsweep.display.terminal import stderr_console
    from ticketsweep.exchange.remaking import remade

    # What libraries print goes to stderr.
    with TrialDisplay(stderr_console()) as display, contextlib.redirect_stdout(sys.stderr):
        return display.follow(remade(database, choice, settings=settings))


def _described(about: Mapping[str, object]) -> str:
    """`replicate 2 of trial 3fa9… (model, test accuracy 97.31 %, sparsity 95.10 %)`."""
    shares = {"test accuracy": about.get("test_accuracy"), "sparsity": about.get("sparsity")}
    told = [f"{name} {100 * v:.2f} %" for name, v in shares.items() if isinstance(v, float)]
    named = [str(about["model"])] if "model" in about else []
    return (
        f"replicate {about['replicate']} of trial {about['trial_id']} ({', '.join(named + told)})"
    )


def import_(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help="open_lth's mask.pth, or the folder of a level; or hidden-networks' checkpoints. "
            "Each becomes a replicate of one trial.",
        ),
    ],
    sweep: Annotated[str, typer.Option(metavar="NAME", help="The sweep that gets the trial.")],
    prune_rate: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Of hidden-networks: the share of weights that stays.  "
            "[default: as in settings.txt of its run]",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="The model here that the masks fit; its names of layers are taken."),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="With --model: the data set, whose images set its sizes.")
    ] = None,
    storage: StorageOption = None,
    output: FormatOption = ResultFormat.TABLE,
) -> None:
    """Store masks that open_lth or hidden-networks has written, to compare them with one's own.

    What the files do not tell (seeds, accuracies, settings) stays null. Nothing in a file is run.
    """
    from dataclasses import asdict

    from ticketsweep.display.records import document
    from ticketsweep.display.terminal import emit
    from ticketsweep.exchange.importing import import_masks
    from ticketsweep.store.paths import Storage, default_storage

    opened = Storage.open(storage or default_storage(), create=True)
    found = import_masks(
        opened, files, sweep=sweep, prune_rate=prune_rate, model=model, dataset=dataset
    )
    if output is ResultFormat.JSON:
        emit(document({"storage": opened.uri, **asdict(found)}))
        return
    what = "stored" if found.stored else "was stored already"
    emit(
        f"trial {found.trial_id} of sweep {found.sweep} {what}: {found.project}, "
        f"replicates {found.replicates}, layers {len(found.layers)}, "
        f"{100 * found.density:.2f} % of the weights kept\n"
    )
