"""The source of a user's own code, so that a changed model is another trial."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from functools import cache
from pathlib import Path

from ticketsweep.errors import ModelError


@cache
def source_digest(name: str) -> str:
    """16 hexadecimal digits of the content of the module file in `package.module:factory`.

    What that module imports is not looked at.

    Raises
    ------
    ModelError: there is no such module, or it has no file.
    """
    module = name.partition(":")[0]
    folder = str(Path.cwd())
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)
    try:
        found = importlib.util.find_spec(module)
        content = Path(found.origin).read_bytes() if found and found.origin else None
    except (ImportError, OSError, ValueError) as error:
        raise _not_found(name, f"{type(error).__name__}: {error}") from error
    if content is None:
        raise _not_found(name, "no such module")
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def _not_found(name: str, reason: str) -> ModelError:
    return ModelError(
        f"model {name} cannot be imported: {' '.join(reason.split())} "
        "(run from the folder that holds the package, or install it)"
    )
