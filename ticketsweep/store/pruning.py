"""Row groups of masks that a query's condition on `sparsity` rules out.

DuckDB hands most conditions on to Arrow, which leaves out row groups by their statistics. It keeps
`sparsity > x` to itself, since NaN is above every number in SQL and not in Arrow. No sparsity of a
mask is NaN, so that condition is taken from the query's plan and applied to the row groups here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb
import pyarrow.dataset as ds

from ticketsweep.store.scanning import BoundedDataset

_SCAN = "ARROW_SCAN"
_NUMBER = r"(\d+(?:\.\d*)?(?:e[+-]?\d+)?)"
_ABOVE = re.compile(rf"\(sparsity (?:>|>=) {_NUMBER}\)", re.IGNORECASE)
_BETWEEN = re.compile(rf"\(sparsity BETWEEN {_NUMBER} AND {_NUMBER}\)", re.IGNORECASE)


def without_ruled_out(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    parameters: Mapping[str, object],
    masks: ds.FileSystemDataset,
) -> ds.FileSystemDataset:
    """The dataset without the row groups that the query cannot have a row of.

    Parameters
    ----------
    connection: has `masks` registered under that name, and no other table of the database.
    query: one statement; anything but a SELECT that scans the masks once rules nothing out.
    """
    least = _least_sparsity(connection, query, parameters)
    if least is None:
        return masks
    condition = ds.field("sparsity") >= least
    some = (each.subset(condition, schema=masks.schema) for each in masks.get_fragments())
    kept = [each for each in some if each.row_groups]
    return BoundedDataset(kept, masks.schema, masks.format, masks.filesystem)


def _least_sparsity(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: Mapping[str, object]
) -> float | None:
    """The sparsity below which no row of the query's one scan passes the filter right above it."""
    explained = f"EXPLAIN (FORMAT json) {query}"
    try:
        plan = connection.sql(explained, params=dict(parameters) or None).fetchall()
        nodes = list(_nodes({"name": "", "children": json.loads(plan[0][1])}))
    except (duckdb.Error, ValueError, LookupError):
        return None  # not a SELECT, or one that will fail in words of its own
    if sum(_SCAN in node["name"] for node in nodes) != 1:
        return None
    for node in nodes:
        if node["name"] == "FILTER" and _SCAN in node["children"][0]["name"]:
            return _least(str(node["extra_info"]["Expression"]))
    return None


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node["children"]:
        yield from _nodes(child)


def _least(expression: str) -> float | None:
    """The greatest lower bound of sparsity among the conditions that `expression` joins by AND."""
    if "'" in expression or '"' in expression:
        return None  # a text may look like a condition
    bounds = []
    for part in [expression, *_joined_by_and(expression)]:
        if found := _ABOVE.fullmatch(part) or _BETWEEN.fullmatch(part):
            bounds.append(float(found[1]))
    return max(bounds, default=None)


def _joined_by_and(expression: str) -> list[str]:
    """`((a > 1) AND (b = 2))` -> `(a > 1)`, `(b = 2)`; nothing for any other form."""
    if not (expression.startswith("((") and expression.endswith("))")):
        return []
    parts, depth, start = [], 0, 1
    for at, letter in enumerate(expression[1:-1], 1):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth < 0:
            return []
        if depth == 0 and letter == ")":
            parts.append(expression[start : at + 1])
            start = at + 1
            if expression.startswith(" AND (", start):
                start += len(" AND ")
            elif at != len(expression) - 2:
                return []
    return parts
