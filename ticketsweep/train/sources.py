"""A user's own code, `package.module:factory`: imported, and told apart by its source."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from functools import cache
from pathlib import Path

from ticketsweep.errors import ModelError


class NotImportable(Exception):
    """A module that cannot be imported; says why in one line."""


def attribute_of(name: str) -> object | None:
    """What `package.module:attribute` names, None if the module has none of that name.

    The working folder is importable, as with `python -m`.

    Raises
    ------
    NotImportable: whatever the import raised.
    """
    module, _, attribute = name.partition(":")
    _make_working_folder_importable()
    try:
        found: object | None = getattr(importlib.import_module(module), attribute, None)
    except (Exception, SystemExit) as error:  # a module of the user's may raise anything
        raise NotImportable(said(error)) from error
    return found


@cache
def source_digest(name: str) -> str:
    """16 hexadecimal digits of the content of the module file in `package.module:factory`.

    What that module imports is not looked at.

    Raises
    ------
    ModelError: there is no such module, or it has no file.
    """
    _make_working_folder_importable()
    try:
        found = importlib.util.find_spec(name.partition(":")[0])
        content = Path(found.origin).read_bytes() if found and found.origin else None
    except (Exception, SystemExit) as error:  # looking for a.b imports a
        raise not_importable(name, said(error)) from error
    if content is None:
        raise not_importable(name, "no such module")
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def said(error: BaseException) -> str:
    """Class and message of an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def _make_working_folder_importable() -> None:
    folder = str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)


def not_importable(name: str, reason: str) -> ModelError:
    """What is wrong with a model whose module cannot be imported for this reason."""
    return ModelError(
        f"model {name} cannot be imported: {reason} "
        "(run from the folder that holds the package, or install it)"
    )
