"""What the analysis is handed: the masks of a layer in packed bits, and the seeds behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FACTORS = ("init", "data", "gate")
"""What may differ between two replicates of a trial: three streams of seeds."""

ALL_LAYERS = "all layers"

_ROWS = 255  # of a mask summed at once: as many as a byte can count
_GATES = 1 << 20  # gates whose counts are put in a histogram at once


@dataclass(frozen=True)
class LayerBits:
    """The masks of one layer, one replicate a row.

    Parameters
    ----------
    layer: its name.
    shape: of the layer: (units, inputs, ...) of a weight, (units,) where a gate is a unit.
    bits: uint8 (M, ceil(size / 8)), packed as `overlap.pack` packs them.

    Raises
    ------
    ValueError: where `bits` has another shape or type, or a padding bit is set (it would count).
    """

    layer: str
    shape: tuple[int, ...]
    bits: NDArray[np.uint8]

    def __post_init__(self) -> None:
        width = -(-self.size // 8)
        if self.bits.dtype != np.uint8 or self.bits.ndim != 2 or self.bits.shape[1] != width:
            raise ValueError(
                f"the bits of layer {self.layer!r} ({self.size} gates) must be uint8 (M, {width}), "
                f"got {self.bits.dtype} {self.bits.shape}"
            )
        spare = self.size % 8
        if spare and np.any(self.bits[:, -1] >> spare):
            raise ValueError(
                f"the padding bits of layer {self.layer!r} ({self.size} gates) must be 0: "
                "the masks are damaged, or the size belongs to another layer"
            )

    @property
    def size(self) -> int:
        """Gates in the layer."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Seeds:
    """The seeds of M replicates, int64 (M,) each."""

    init: NDArray[np.int64]
    data: NDArray[np.int64]
    gate: NDArray[np.int64]


@dataclass(frozen=True)
class KeptCounts:
    """How much the M masks of a layer keep, summed in three directions.

    Parameters
    ----------
    units: int64 (M, units), gates kept of each unit: along the shape's first dimension.
    inputs: int64 (M, inputs), gates kept of each input: along its second.
    by_masks: int64 (M + 1,), how many gates 0, 1, ... M of the masks keep.

    Of a layer with one dimension, where a gate is a unit, `units` and `inputs` have no columns.
    """

    units: NDArray[np.int64]
    inputs: NDArray[np.int64]
    by_masks: NDArray[np.int64]


def count_kept(layer: LayerBits) -> KeptCounts:
    """Sum the masks of a layer over inputs, over units and over masks.

    One mask is unpacked at a time: beside the bits it needs three bytes a gate of one mask.
    """
    masks, weights = len(layer.bits), len(layer.shape) > 1
    units, inputs = layer.shape[:2] if weights else (0, 0)
    of_units = np.zeros((masks, units), dtype=np.int64)
    of_inputs = np.zeros((masks, inputs), dtype=np.int64)
    keepers = np.zeros(layer.size, dtype=np.uint16)
    for mask, bits in enumerate(layer.bits):
        kept = np.unpackbits(bits, count=layer.size, bitorder="little")
        keepers += kept
        if weights and layer.size:
            rows = kept.reshape(units, -1)
            of_units[mask] = [np.count_nonzero(row) for row in rows.view(np.bool_)]
            for start in range(0, units, _ROWS):
                columns = np.add.reduce(rows[start : start + _ROWS], axis=0, dtype=np.uint8)
                of_inputs[mask] += columns.reshape(inputs, -1).sum(axis=1, dtype=np.int64)
    by_masks = np.zeros(masks + 1, dtype=np.int64)
    for start in range(0, layer.size, _GATES):
        by_masks += np.bincount(keepers[start : start + _GATES], minlength=masks + 1)
    return KeptCounts(of_units, of_inputs, by_masks)
