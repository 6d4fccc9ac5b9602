"""What the six tables hold, and how one trial's rows become Arrow tables.

Accuracies, densities and sparsities are fractions in [0, 1]; times are UTC; a mask's `bits` are its
gates in C order, least significant bit first, zero-padded to whole bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SCHEMA_VERSION = 1
"""Written into every file. A reader takes its own version and those before it."""

Table: TypeAlias = Literal["sweeps", "trials", "replicates", "masks", "curves", "comparisons"]

_FIGURES = pa.map_(pa.string(), pa.float64())
_TIME = pa.timestamp("us", tz="UTC")


def _schema(**types: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, of) for name, of in types.items()])


SWEEPS: pa.Schema = _schema(
    sweep=pa.string(),
    created_at=_TIME,
    version=pa.string(),  # of ticketsweep
    space=pa.string(),  # JSON
    objectives=pa.map_(pa.string(), pa.string()),  # metric -> max | min
    samples=pa.int64(),
    seed=pa.int64(),
)
TRIALS: pa.Schema = _schema(
    sweep=pa.string(),
    trial_id=pa.string(),
    status=pa.string(),  # one of STATUSES
    steps_done=pa.int64(),
    error=pa.string(),
    model=pa.string(),
    dataset=pa.string(),
    gate_family=pa.string(),
    granularity=pa.string(),
    l0_strength=pa.float64(),
    temperature=pa.float64(),
    temperature_end=pa.float64(),
    rewind_step=pa.int64(),
    lr=pa.float64(),
    steps=pa.int64(),
    batch_size=pa.int64(),
    weights=pa.string(),
    weight_init=pa.string(),
    weight_scale=pa.float64(),
    config=pa.string(),  # JSON, the whole of it
    val_accuracy=pa.float64(),
    strong_accuracy=pa.float64(),
    density=pa.float64(),
    sparsity=pa.float64(),
    stability=pa.float64(),
    metrics=_FIGURES,
    wall_seconds=pa.float64(),
    host=pa.string(),
    device=pa.string(),
    version=pa.string(),
    started_at=_TIME,
    search=pa.string(),  # JSON: the sampler's own record of the suggestion, null without a sampler
)
REPLICATES: pa.Schema = _schema(
    sweep=pa.string(),
    trial_id=pa.string(),
    replicate=pa.int64(),
    init_seed=pa.int64(),
    data_seed=pa.int64(),
    gate_seed=pa.int64(),
    val_accuracy=pa.float64(),
    strong_accuracy=pa.float64(),
    joint_accuracy=pa.float64(),
    retrained_accuracy=pa.float64(),
    dense_accuracy=pa.float64(),
    shuffled_mask_accuracy=pa.float64(),
    reinitialized_accuracy=pa.float64(),
    random_mask_accuracy=pa.float64(),
    density=pa.float64(),
    sparsity=pa.float64(),
    undecided=pa.float64(),
    loss=pa.float64(),
    metrics=_FIGURES,
)
MASKS: pa.Schema = _schema(
    sweep=pa.string(),
    trial_id=pa.string(),
    replicate=pa.int64(),
    step=pa.int64(),
    layer=pa.string(),
    layer_index=pa.int64(),
    shape=pa.list_(pa.int64()),
    size=pa.int64(),
    kept=pa.int64(),
    sparsity=pa.float64(),
    bits=pa.binary(),
    digest=pa.string(),
)
CURVES: pa.Schema = _schema(
    sweep=pa.string(),
    trial_id=pa.string(),
    replicate=pa.int64(),
    step=pa.int64(),
    loss=pa.float64(),
    val_accuracy=pa.float64(),
    expected_density=pa.float64(),
    metrics=_FIGURES,
)
COMPARISONS: pa.Schema = _schema(
    sweep=pa.string(),
    trial_id=pa.string(),
    first=pa.int64(),
    second=pa.int64(),
    differs=pa.string(),  # seeds in which the two replicates differ, as "init+data"; "" for none
    measures=_FIGURES,  # KIND.NAME -> a finite number
    settings=pa.string(),  # JSON: KIND -> what was asked
)
SCHEMAS: Mapping[Table, pa.Schema] = {
    "sweeps": SWEEPS,
    "trials": TRIALS,
    "replicates": REPLICATES,
    "masks": MASKS,
    "curves": CURVES,
    "comparisons": COMPARISONS,
}
TRIAL_TABLES: tuple[Table, ...] = ("masks", "replicates", "curves", "trials")
"""The tables of a trial in the order of writing: the last one commits the others.

Its `comparisons` come later, if at all, and are no part of what is committed.
"""

STATUSES = ("complete", "stopped", "failed")

_SHARES = {"density", "sparsity", "undecided", "expected_density"}
_ROUNDING = 1e-6  # a mean of float32 shares may pass 1 by this much
_KEYS: Mapping[Table, tuple[str, ...]] = {
    "replicates": ("replicate",),
    "masks": ("replicate", "step", "layer"),
    "curves": ("replicate", "step"),
    "comparisons": ("first", "second"),
}


def pack_mask(mask: NDArray[np.bool_]) -> bytes:
    """A bool array of any shape as bits: C order, least significant bit first, zero-padded."""
    return np.packbits(mask.reshape(-1), bitorder="little").tobytes()


def unpack_mask(bits: bytes, shape: Sequence[int]) -> NDArray[np.bool_]:
    """The bool array of `shape` that `pack_mask` turned into `bits`."""
    flat = np.unpackbits(
        np.frombuffer(bits, dtype=np.uint8), count=math.prod(shape), bitorder="little"
    )
    return flat.reshape(tuple(shape)).view(np.bool_)


def mask_digest(bits: bytes, shape: Sequence[int]) -> str:
    """BLAKE2b-128 of the shape (as a JSON list) and the bits, in hex."""
    digest = hashlib.blake2b(json.dumps([int(n) for n in shape]).encode(), digest_size=16)
    digest.update(bits)
    return digest.hexdigest()


@dataclass(frozen=True)
class MaskRow:
    """One layer's hardened gates of one replicate.

    Parameters
    ----------
    replicate: index within the trial.
    step: training step at which the gates were hardened.
    layer, layer_index: the parameter's name, and its place among the gated ones.
    shape: of the mask, in the layer's own layout.
    bits: `pack_mask` of it.

    Raises
    ------
    ValueError: the number of bytes does not fit the shape, or a padding bit is set.
    """

    replicate: int
    step: int
    layer: str
    layer_index: int
    shape: tuple[int, ...]
    bits: bytes

    def __post_init__(self) -> None:
        whole, rest = divmod(self.size, 8)
        if len(self.bits) != whole + (rest > 0):
            raise ValueError(f"{self.layer}: {len(self.bits)} bytes do not hold shape {self.shape}")
        if rest and self.bits[-1] >> rest:
            raise ValueError(f"{self.layer}: a bit is set in the padding after shape {self.shape}")

    @classmethod
    def from_array(
        cls, mask: NDArray[np.bool_], *, replicate: int, step: int, layer: str, layer_index: int
    ) -> MaskRow:
        """The row of a bool array in the layer's own shape. Raises ValueError if it is not bool."""
        if mask.dtype != np.bool_:
            raise ValueError(f"{layer}: a mask must be bool, got {mask.dtype}")
        return cls(replicate, step, layer, layer_index, mask.shape, pack_mask(mask))

    def to_array(self) -> NDArray[np.bool_]:
        """The mask as a bool array of `shape`."""
        return unpack_mask(self.bits, self.shape)

    @property
    def size(self) -> int:
        """Number of gates."""
        return math.prod(self.shape)

    @property
    def kept(self) -> int:
        """Number of gates that are open."""
        # Eight bytes at a time, and the rest.
        whole = len(self.bits) // 8
        words = np.frombuffer(self.bits, dtype=np.uint64, count=whole)
        rest = int.from_bytes(self.bits[8 * whole :], "little")
        return int(np.bitwise_count(words).sum(dtype=np.int64)) + rest.bit_count()

    @property
    def sparsity(self) -> float:
        """Share of gates that are shut; 0 for a layer without gates."""
        return 1.0 - self.kept / self.size if self.size else 0.0

    @property
    def digest(self) -> str:
        """`mask_digest` of this mask."""
        return mask_digest(self.bits, self.shape)

    def row(self) -> dict[str, object]:
        """The columns of `MASKS` but for `sweep` and `trial_id`."""
        kept = self.kept
        return {
            "replicate": self.replicate,
            "step": self.step,
            "layer": self.layer,
            "layer_index": self.layer_index,
            "shape": list(self.shape),
            "size": self.size,
            "kept": kept,
            "sparsity": 1.0 - kept / self.size if self.size else 0.0,
            "bits": self.bits,
            "digest": self.digest,
        }


@dataclass(frozen=True)
class TrialRows:
    """Everything the database holds of one trial.

    Parameters
    ----------
    trial: columns of `TRIALS`; `trial_id` and `status` must be there, `sweep` is the writer's.
    replicates: columns of `REPLICATES` but for `sweep` and `trial_id`; one each.
    masks: one per replicate, step and layer.
    curves: columns of `CURVES` but for `sweep` and `trial_id`; one per replicate and logged step.

    Columns left out are null. A failed trial has only its own row.
    """

    trial: Mapping[str, object]
    replicates: Sequence[Mapping[str, object]] = ()
    masks: Sequence[MaskRow] = ()
    curves: Sequence[Mapping[str, object]] = ()


def arrow_table(table: Table, rows: Iterable[Mapping[str, object]], **fixed: str) -> pa.Table:
    """Rows as an Arrow table with the table's schema; `fixed` columns are set on every row.

    Raises ValueError for a column that the table does not have, a value of the wrong type, a share
    outside [0, 1], an unknown status, or a key that occurs twice.
    """
    schema = SCHEMAS[table]
    complete = [{**row, **fixed} for row in rows]
    check_rows(table, complete)
    columns = []
    for field in schema:
        values = [_arrow_value(row.get(field.name)) for row in complete]
        try:
            columns.append(pa.array(values, type=field.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise ValueError(f"{table}.{field.name} must be {field.type}: {error}") from error
    return pa.Table.from_arrays(columns, schema=schema)


def check_rows(table: Table, rows: Sequence[Mapping[str, object]]) -> None:
    """Raises ValueError for rows that `arrow_table` refuses, but for a value's type."""
    for row in rows:
        _check(table, row)
    if key := _KEYS.get(table):
        _check_keys(table, key, rows)


def _check(table: Table, row: Mapping[str, Any]) -> None:
    if unknown := sorted(row.keys() - set(SCHEMAS[table].names)):
        raise ValueError(f"{table} has no column {', '.join(unknown)}")
    for name, value in row.items():
        share = name in _SHARES or name.endswith("_accuracy")
        if share and isinstance(value, (int, float)) and not math.isnan(value):
            outside = value < -_ROUNDING or value > 1 + _ROUNDING
            if outside:
                raise ValueError(f"{table}.{name} must be a share in [0, 1], got {value!r}")
    if table == "trials" and row.get("status") not in STATUSES:
        raise ValueError(f"trials.status must be one of {STATUSES}, got {row.get('status')!r}")
    if table == "comparisons":
        _check_comparison(row)


def _check_comparison(row: Mapping[str, Any]) -> None:
    for name, value in (row.get("measures") or {}).items():
        if not math.isfinite(value):
            raise ValueError(f"comparisons: {name} must be a finite number, got {value!r}")
    try:
        settings = json.loads(row["settings"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("comparisons.settings must be a JSON object") from error
    if not isinstance(settings, dict):
        raise ValueError(f"comparisons.settings must be a JSON object, got {row['settings']!r}")


def _check_keys(table: Table, key: tuple[str, ...], rows: Sequence[Mapping[str, object]]) -> None:
    seen = set()
    for row in rows:
        values = tuple(row.get(name) for name in key)
        if values in seen:
            raise ValueError(f"{table}: {dict(zip(key, values, strict=True))} occurs twice")
        seen.add(values)


def _arrow_value(value: object) -> object:
    # Arrow takes a map as a list of pairs.
    return list(value.items()) if isinstance(value, Mapping) else value
