"""What the footer of a trial's own file says of its only row, without reading a page of it.

Of thousands of small files the footers are read anyway, to know which are whole; the pages take as
long again, several times over. A column's statistics hold its least and greatest value, which for
one row are the value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyarrow.dataset as ds

from ticketsweep.store.schema import SCHEMAS

_TRIALS = SCHEMAS["trials"]


def row_of_footer(
    fragment: ds.ParquetFileFragment, columns: Sequence[str]
) -> dict[str, Any] | None:
    """Values of some columns of a `trials` file, by name; None where the footer does not say.

    Parameters
    ----------
    fragment: of a file whose schema has been checked.
    columns: whose values are no lists or maps.
    """
    metadata = fragment.metadata
    if metadata.num_rows != 1 or metadata.num_row_groups != 1:
        return None
    group = metadata.row_group(0)
    places = {group.column(at).path_in_schema: at for at in _places(columns)}
    row: dict[str, Any] = {}
    for name in columns:
        found = group.column(places[name]).statistics if name in places else None
        if found is None:
            return None
        if found.has_min_max:
            row[name] = found.max
        elif found.has_null_count and found.null_count == 1:
            row[name] = None
        elif found.physical_type == "DOUBLE":  # NaN has no place in an order
            row[name] = math.nan
        else:
            return None
    return row


def _places(columns: Sequence[str]) -> list[int]:
    """Where the leaves of these columns stand; a map has two."""
    leaves = [name for name in _TRIALS.names for _ in range(2 if name == "metrics" else 1)]
    return [leaves.index(name) for name in columns]
