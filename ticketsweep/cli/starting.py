"""`ticketsweep init`: a search space to begin with, and a module for a network and data."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ticketsweep.errors import UserError

if TYPE_CHECKING:
    from ticketsweep.config import TrialConfig
    from ticketsweep.train.data import Dataset

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_BATCH_SIZE = 64
_LARGE, _LARGE_BATCH_SIZE = 10_000, 128  # training images from which on a batch is larger


def init(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the sweep, and of the files.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="A model's name, or package.module:factory of your own."
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET",
            help="A data set's name, parquet:DIR, imagefolder:DIR or package.module:factory.",
        ),
    ] = None,
) -> None:
    """Write a commented search space NAME.yaml, to be run as it is or changed.

    What is not named, the network or the data, is written too: NAME.py has a small function for
    it, to be replaced by yours. Nothing is overwritten.
    """
    own = _module_of(name)
    space, module = Path(f"{name}.yaml"), Path(f"{own}.py")
    writes_module = model is None or dataset is None
    for path in (space, *([module] if writes_module else [])):
        if path.exists() or path.is_symlink():
            raise UserError(f"{path} exists, and is not overwritten (choose another NAME)")
    if writes_module and _is_taken(own):
        raise UserError(
            f"NAME must not be that of an installed Python module, got {name!r} "
            f"({own}.py would hide it)"
        )
    from ticketsweep.cli.template import module_text, space_text
    from ticketsweep.config import parse_config

    named = {"model": model or f"{own}:model", "dataset": dataset or f"{own}:data"}
    config = parse_config(named, source="init")
    written = []
    try:
        if writes_module:
            _write(module, module_text(model=model is None, data=dataset is None))
            written.append(module)
        batch_size, notes = _BATCH_SIZE, {}
        if model is not None or dataset is not None:  # else all of it is ours
            loaded = _checked(config)
            batch_size, notes = _batch_size(loaded), {"dataset": _described(loaded)}
        text = space_text(name=name, batch_size=batch_size, notes=notes, **named)
        _write(space, text)
    except BaseException:
        for path in written:
            path.unlink()
        raise
    for path in (*written, space):
        print(f"written: {path}")
    print("next:")
    for line in (f"run {space} --dry-run", f"run {space}", f"stability {name}"):
        print(f"  ticketsweep {line}")


def _module_of(name: str) -> str:
    """The name of the module that goes with a sweep."""
    own = name.replace("-", "_")
    if not _NAME.fullmatch(name) or keyword.iskeyword(own):
        raise UserError(
            f"NAME must be letters, digits, '_' or '-', at most 64, and begin with a letter, got "
            f"{name!r} (it names the sweep, a file and a Python module)"
        )
    return own


def _is_taken(module: str) -> bool:
    if module in sys.stdlib_module_names:
        return True
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # __main__ and the like
        return True


def _write(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from None


def _checked(config: TrialConfig) -> Dataset:
    """The data, which the model has been built for and tried on."""
    from ticketsweep.planning import check_trial, load_data

    dataset = load_data(config)
    batch_size = {"batch_size": _batch_size(dataset)}
    train = config.train.model_copy(update=batch_size)
    check_trial(config.model_copy(update={"train": train}), dataset)
    return dataset


def _batch_size(dataset: Dataset) -> int:
    """One that suits the number of training images, and leaves some to be held out."""
    images = len(dataset.train_labels)
    usual = _LARGE_BATCH_SIZE if images >= _LARGE else _BATCH_SIZE
    return max(1, min(usual, images // 2))


def _described(dataset: Dataset) -> str:
    shape = " x ".join(map(str, dataset.input_shape))
    return f"{len(dataset.train_labels):,} training images {shape}, {dataset.classes} classes"
