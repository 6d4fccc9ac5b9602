from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ticketsweep.store.schema import (
    SCHEMAS,
    MaskRow,
    TrialRows,
    arrow_table,
    mask_digest,
    pack_mask,
    unpack_mask,
)

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7))


def _row(mask: np.ndarray) -> MaskRow:
    return MaskRow.from_array(mask, replicate=0, step=1, layer="fc", layer_index=0)


@settings(deadline=None)
@given(MASKS)
def test_a_mask_comes_back_as_it_was(mask):
    row = _row(mask)
    np.testing.assert_array_equal(row.to_array(), mask)
    assert row.to_array().dtype == np.bool_
    assert row.bits == pack_mask(mask)
    assert (row.size, row.kept) == (mask.size, np.count_nonzero(mask))
    assert row.sparsity == pytest.approx(1 - mask.mean() if mask.size else 0.0)


@settings(deadline=None)
@given(MASKS)
def test_bits_are_in_c_order_least_significant_first(mask):
    value = int.from_bytes(pack_mask(mask), "little")
    assert value == sum(1 << index for index, gate in enumerate(mask.flat) if gate)


def test_a_transposed_view_is_packed_in_its_own_order():
    mask = np.random.default_rng(0).random((5, 9)) < 0.5
    assert _row(mask.T).bits == _row(np.ascontiguousarray(mask.T)).bits


@settings(deadline=None)
@given(MASKS)
def test_a_digest_covers_shape_and_bits(mask):
    bits, shape = pack_mask(mask), list(mask.shape)
    content = json.dumps(shape).encode() + bits
    assert _row(mask).digest == hashlib.blake2b(content, digest_size=16).hexdigest()
    assert mask_digest(bits, [*shape, 1]) != mask_digest(bits, shape)


def test_bits_that_do_not_fit_the_shape_are_refused():
    with pytest.raises(ValueError, match="2 bytes do not hold shape"):
        MaskRow(0, 0, "fc", 0, (3, 2), b"\x01\x00")
    with pytest.raises(ValueError, match="padding"):
        MaskRow(0, 0, "fc", 0, (3, 2), b"\x40")
    with pytest.raises(ValueError, match="must be bool, got int64"):
        _row(np.array([0, 1]))


@settings(deadline=None)
@given(st.lists(MASKS, max_size=5))
def test_mask_rows_survive_the_table(masks):
    rows = [
        MaskRow.from_array(mask, replicate=index, step=0, layer="fc", layer_index=0)
        for index, mask in enumerate(masks)
    ]
    table = arrow_table("masks", [row.row() for row in rows], sweep="s", trial_id="t")
    assert table.schema == SCHEMAS["masks"]
    for stored, mask in zip(table.to_pylist(), masks, strict=True):
        np.testing.assert_array_equal(unpack_mask(stored["bits"], stored["shape"]), mask)
        assert (stored["sweep"], stored["trial_id"]) == ("s", "t")


@pytest.mark.parametrize(
    ("table", "rows", "message"),
    [
        ("curves", [{"replicate": 0, "step": 0, "lost": 1.0}], "curves has no column lost"),
        ("replicates", [{"replicate": 0, "val_accuracy": 97.3}], "must be a share in .*97.3"),
        ("trials", [{"status": "done"}], "must be one of .*'done'"),
        ("trials", [{"status": "failed", "lr": "fast"}], "trials.lr must be double"),
        ("trials", [{"status": "failed", "steps": 2**70}], "trials.steps must be int64"),
        ("curves", [{"replicate": 0, "step": 0}] * 2, "occurs twice"),
    ],
)
def test_a_row_that_does_not_fit_is_refused(table, rows, message):
    with pytest.raises(ValueError, match=message):
        arrow_table(table, rows)


def test_columns_left_out_are_null_and_maps_are_kept():
    row = {"status": "complete", "metrics": {"a": 1, "b": None}, "density": 1 + 1e-8}
    stored = arrow_table("trials", [row]).to_pylist(maps_as_pydicts="strict")[0]
    assert stored["metrics"] == {"a": 1.0, "b": None}
    assert stored["lr"] is None


def test_times_are_stored_in_utc():
    local = datetime.fromisoformat("2026-03-01T10:00:00+02:00")
    table = arrow_table("trials", [{"status": "complete", "started_at": local}])
    assert table["started_at"].type == pa.timestamp("us", tz="UTC")
    assert table["started_at"][0].as_py() == datetime(2026, 3, 1, 8, tzinfo=UTC)


def test_a_failed_trial_needs_only_its_own_row():
    rows = TrialRows({"trial_id": "t", "status": "failed"})
    assert (rows.replicates, rows.masks, rows.curves) == ((), (), ())
