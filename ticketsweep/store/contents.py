"""What the rows of one trial must be: each table for itself, and the tables among each other."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from ticketsweep.seeds import replicate_plan
from ticketsweep.store.files import status_of
from ticketsweep.store.paths import StoredFile
from ticketsweep.store.schema import MaskRow, Table, arrow_table

Rows: TypeAlias = Sequence[Mapping[str, Any]]

_MASKS_AT_ONCE = 16  # rows whose bits are decoded together
_FIGURES = (
    "val_accuracy",
    "strong_accuracy",
    "density",
)  # of every replicate that has not diverged
_DIVERGED = "diverged_at_step"


def read_rows(file: StoredFile, fragment: ds.ParquetFileFragment, content: pa.Buffer) -> Rows:
    """The rows of a file, without the bits of masks, after checking each of them.

    Parameters
    ----------
    file: where it lies, which its rows must agree with.
    fragment, content: the file, opened and as bytes.

    Raises ValueError, or what a damaged Parquet file makes pyarrow raise.
    """
    rows: list[Mapping[str, Any]] = []
    parquet = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
    size = _MASKS_AT_ONCE if file.table == "masks" else 4096
    # Without threads of its own, which cost more than they bring where files are small.
    for batch in parquet.iter_batches(batch_size=size, use_threads=False):
        batch.validate(full=True)
        some = plain_rows(batch)
        rows += map(check_mask, some) if file.table == "masks" else some
    if len(rows) != fragment.metadata.num_rows:
        raise ValueError(
            f"it has {len(rows)} rows, but its footer says {fragment.metadata.num_rows}"
        )
    _check_names(file, rows)
    # Keys that occur once, shares within [0, 1], a known status: as when it was written.
    arrow_table(file.table, rows)
    if file.table in ("sweeps", "trials") and len(rows) != 1:
        raise ValueError(f"it has {len(rows)} rows instead of one")
    if file.table == "trials" and rows[0]["status"] != status_of(fragment):
        raise ValueError(
            f"its row is {rows[0]['status']}, but its footer says {status_of(fragment)!r}"
        )
    return rows


def check_statistics(content: pa.Buffer) -> None:
    """Compare the footer's statistics of a file that has no digest with those of its rows.

    A wrong one would make readers leave out rows that they should see. Raises ValueError.
    """
    parquet = pq.ParquetFile(pa.BufferReader(content))
    for index in range(parquet.num_row_groups):
        group = parquet.metadata.row_group(index)
        for at in range(group.num_columns):
            name, stated = group.column(at).path_in_schema, group.column(at).statistics
            if "." in name or stated is None:
                continue  # of what lies within lists and maps nothing is asked
            values = parquet.read_row_group(index, columns=[name])[name]
            if stated.has_null_count and stated.null_count != values.null_count:
                raise ValueError(f"its footer says that {name} has {stated.null_count} nulls")
            if not stated.has_min_max:
                continue
            least, most = pc.min_max(values).as_py().values()
            if (stated.min, stated.max) != (least, most):
                raise ValueError(
                    f"its footer says that {name} lies between {stated.min} and {stated.max}, "
                    f"its rows between {least} and {most}"
                )


def plain_rows(batch: pa.RecordBatch | pa.Table) -> list[dict[str, Any]]:
    """The rows as plain values. Raises ValueError if a map has a key twice."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist(maps_as_pydicts="strict")
    except KeyError as error:
        raise ValueError(f"a figure occurs twice in one row: {error}") from error
    return rows


def _check_names(file: StoredFile, rows: Rows) -> None:
    if file.table == "sweeps":
        if file.name != "sweep":
            raise ValueError("a sweep's own file is called sweep.parquet")
        own = {"sweep": file.sweep}
    else:
        own = {"sweep": file.sweep, "trial_id": file.name}
    for name, expected in own.items():
        for row in rows:
            if row[name] != expected:
                raise ValueError(f"it lies under {name} {expected}, but has a row of {row[name]}")


def check_mask(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row without its bits, from which all its figures must follow. Raises ValueError."""
    where = f"mask of replicate {row['replicate']}, layer {row['layer']!r}"
    nulls = [name for name, value in row.items() if value is None]
    if nulls or None in row["shape"]:
        raise ValueError(f"{where}: {', '.join(nulls) or 'a length in shape'} is null")
    if min(row["shape"], default=0) < 0:
        raise ValueError(f"{where}: shape {row['shape']} has a negative length")
    own = ("replicate", "step", "layer", "layer_index", "bits")
    mask = MaskRow(**{name: row[name] for name in own}, shape=tuple(row["shape"]))
    for name, expected in mask.row().items():
        if row[name] != expected:
            raise ValueError(f"{where}: {name} is {row[name]}, its bits and shape say {expected}")
    return {name: value for name, value in row.items() if name != "bits"}


def disagreements(rows: Mapping[Table, Rows]) -> Iterator[tuple[Table, str]]:
    """What the tables of one committed trial say against each other, with the table at fault."""
    (trial,) = rows["trials"]
    replicates = {row["replicate"]: row for row in rows["replicates"]}
    yield from _against_plan(trial, rows["replicates"])
    diverged = {r for r, row in replicates.items() if _DIVERGED in (row["metrics"] or {})}
    for replicate, row in replicates.items():
        if replicate in diverged and any(row[name] is not None for name in _FIGURES):
            yield "replicates", f"replicate {replicate} has diverged, yet has figures"
        if replicate not in diverged and all(row[name] is None for name in _FIGURES):
            yield "replicates", f"replicate {replicate} has neither figures nor {_DIVERGED}"
    yield from _against_replicates(rows["masks"], alive=replicates.keys() - diverged)
    for replicate in sorted({row["replicate"] for row in rows["curves"]} - replicates.keys()):
        yield "curves", f"replicate {replicate} is not in the table replicates"


def _against_plan(trial: Mapping[str, Any], rows: Rows) -> Iterator[tuple[Table, str]]:
    """Whether the replicates are those that the trial's configuration asks for, if it is there.

    Of masks that were imported, it tells a file a replicate, and no seeds.
    """
    if trial["config"] is None:
        if not rows:
            yield "replicates", "it has no replicate"
        return
    try:
        config = json.loads(trial["config"])
        imported = config.get("imported")
        asked = len(imported["files"]) if imported else math.prod(config["replicates"].values())
        if asked != len(rows):
            yield "replicates", f"it has {len(rows)} replicates, its config asks for {asked}"
            return
        if imported:
            return
        plan = replicate_plan(config["seed"], **config["replicates"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        yield "trials", f"its config does not tell the seeds: {error!r}"
        return
    wanted = {(r.index, r.init_seed, r.data_seed, r.gate_seed) for r in plan}
    columns = ("replicate", "init_seed", "data_seed", "gate_seed")
    stored = {tuple(row[name] for name in columns) for row in rows}
    for which, missing in (("has no", wanted - stored), ("has an unplanned", stored - wanted)):
        for index, init, data, gate in sorted(missing, key=str):
            seeds = f"seeds {init}, {data}, {gate}"
            yield "replicates", f"it {which} replicate {index} with the {seeds} (init, data, gate)"


def _against_replicates(masks: Rows, *, alive: set[int]) -> Iterator[tuple[Table, str]]:
    layers: dict[tuple[int, int], set[tuple[object, ...]]] = {}
    for row in masks:
        layer = (row["layer"], row["layer_index"], *row["shape"])
        layers.setdefault((row["replicate"], row["step"]), set()).add(layer)
    stored = {replicate for replicate, _ in layers}
    steps = {frozenset(step for of, step in layers if of == replicate) for replicate in stored}
    if len(steps) > 1:  # the last step of one would be taken for the ticket of all
        yield "masks", "its replicates have masks of different steps"
    for replicate in sorted(alive - stored):
        yield "masks", f"replicate {replicate} has figures, but no masks"
    for replicate in sorted(stored - alive):
        yield "masks", f"replicate {replicate} has masks, but no figures"
    if len({frozenset(each) for each in layers.values()}) > 1:
        yield "masks", "its replicates have masks of different layers"
