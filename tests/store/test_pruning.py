"""What a query's condition on sparsity rules out changes no answer."""

from __future__ import annotations

import pyarrow as pa
import pytest

from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.store.pruning import _least
from ticketsweep.store.sql import run_query
from ticketsweep.store.writer import write_trial

ALL = pa.RecordBatchReader.read_all


@pytest.fixture(scope="module")
def stored(tmp_path_factory, make_trial) -> Database:
    storage = Storage.open(str(tmp_path_factory.mktemp("stored")), create=True)
    for seed in range(6):
        write_trial(storage, "a", make_trial(f"t{seed}", seed=seed))
    return Database(storage)


CONDITIONS = [
    "sparsity > 0.7", "sparsity >= 0.7", "0.7 < sparsity", "sparsity > 7e-1", "sparsity > 2",
    "sparsity between 0.69 and 0.71", "sparsity > 0.7 and layer = 'fc1'", "not sparsity > 0.7",
    "sparsity > 0.7 or kept > 1", "(sparsity > 0.7 or kept > 1) and sparsity > 0.6",
    "sparsity > 0.7 and kept % 2 = 0", "sparsity > 0.7 is null", "1 - sparsity > 0.7",
    "sparsity > 0.7 and sparsity < 0.72", "-sparsity > -0.7", "sparsity > 0.69 and sparsity > 0.7",
    "sparsity > kept / size", "case when sparsity > 0.7 then kept > 100 else true end",
    "coalesce(sparsity > 0.7, false)", "layer || '((sparsity > 0.7) AND (1 = 1))' = layer",
    "sparsity > (select avg(sparsity) from masks)", "sparsity != 0.7", "sparsity > -0.7",
    "exists (select 1 from masks b where b.sparsity > 0.71 and b.layer = masks.layer)",
]  # fmt: skip


@pytest.mark.parametrize("condition", CONDITIONS)
def test_no_answer_differs_from_that_over_all_rows(stored, condition):
    for query in (
        f"select trial_id, replicate, layer from masks where {condition} order by all",
        f"select count(*) filter ({condition}) c, count(*) n from masks",
        f"select a.* from masks a left join (from masks where {condition}) b"
        f" using (trial_id, layer) order by all",
    ):
        assert stored.sql(query) == run_query(query, {"masks": stored.masks()}, {}, ALL), query


@pytest.mark.parametrize(
    ("expression", "least"),
    [
        ("(sparsity > 0.9)", 0.9),
        ("((sparsity >= 0.5) AND (kept > 1))", 0.5),
        ("((kept > 1) AND (sparsity BETWEEN 0.5 AND 1.0) AND ((kept % 2) = 1))", 0.5),
        ("((sparsity > 0.5) AND (sparsity > 0.9))", 0.9),
        ("((sparsity > 0.9) OR (kept > 1))", None),
        ("((kept > 1) AND ((sparsity > 0.9) OR (kept > 1)))", None),
        ("((sparsity > 0.9) IS NULL)", None),
        ("((sparsity > 0.9) = (kept > 1))", None),
        ("(NOT (sparsity > 0.9))", None),
        ("((layer = 'a') AND (sparsity > 0.9))", None),
        ("((1.0 - sparsity) < 0.1)", None),
    ],
)
def test_only_conditions_that_every_row_must_meet_count(expression, least):
    assert _least(expression) == least
