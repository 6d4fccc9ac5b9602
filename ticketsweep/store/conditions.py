"""Conditions on rows of masks, checked before anything is read."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.dataset as ds

from ticketsweep.errors import QueryError, did_you_mean
from ticketsweep.store.paths import one_line
from ticketsweep.store.schema import MASKS


def checked(
    columns: Sequence[str] | None, where: ds.Expression | None, layer: str | None
) -> ds.Expression | None:
    """The condition on masks that `where` and `layer` make.

    Raises QueryError for a column that there is not, in `where` or `columns`.
    """
    for name in columns or ():
        if name not in MASKS.names:
            raise QueryError(f"masks have no column {name!r} ({did_you_mean(name, MASKS.names)})")
    if where is not None:
        try:
            ds.dataset(MASKS.empty_table()).to_table(filter=where)
        except (pa.ArrowException, TypeError) as error:
            raise QueryError(f"where is not a condition on masks: {one_line(error)}") from error
    if layer is None:
        return where
    own = ds.field("layer") == layer
    return own if where is None else own & where


def all_of(conditions: Sequence[ds.Expression]) -> ds.Expression | None:
    """The condition that all of these hold; None for none."""
    return functools.reduce(operator.and_, conditions) if conditions else None
