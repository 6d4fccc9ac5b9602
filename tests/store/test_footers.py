from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pyarrow.parquet as pq

from ticketsweep.store.compaction import compact
from ticketsweep.store.database import Database
from ticketsweep.store.schema import TRIALS
from ticketsweep.store.writer import write_trial

COLUMNS = [name for name in TRIALS.names if name not in ("sweep", "trial_id")]


def changed(rows, **columns):
    return dataclasses.replace(rows, trial={**rows.trial, **columns})


def whole(database, sweep=None):
    return database.trials(sweep).to_pylist()


def alike(one, other) -> bool:
    def same(a, b):
        nan = isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b)
        if isinstance(a, list | tuple):
            return len(a) == len(b) and all(map(same, a, b))
        return nan or a == b

    return len(one) == len(other) and all(
        a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        for a, b in zip(one, other, strict=True)
    )


def test_outlines_are_the_rows_themselves(storage, make_trial):
    for seed in range(6):
        write_trial(storage, "a", make_trial(f"t{seed}", seed=seed))
    write_trial(storage, "a", make_trial("failed", status="failed"))
    long = changed(make_trial("long"), config="x" * 10_000, sparsity=math.nan, density=-0.0)
    write_trial(storage, "b", long)
    figures = {"a": math.nan, "b": -math.inf, "c": 0.5}
    write_trial(storage, "b", changed(make_trial("figures"), metrics=figures))
    write_trial(storage, "b", changed(make_trial("none"), metrics={}))
    for merged in (False, True):
        if merged:
            compact(storage, "a", report=lambda done, total: None)
            write_trial(storage, "a", make_trial("later", seed=9))
        for sweep in (None, "a", "b", "none"):
            database = Database(storage)
            assert alike(database.outlines(sweep, columns=COLUMNS), whole(database, sweep))


def test_a_damaged_footer_is_left_out_and_named(storage, make_trial):
    for seed in range(3):
        write_trial(storage, "a", make_trial(f"t{seed}", seed=seed))
    path = Path(storage.trial_file("trials", "a", "t1"))
    path.write_bytes(path.read_bytes()[:-50])
    database = Database(storage)
    found = database.outlines("a", columns=["status"])
    assert [row["trial_id"] for row in found] == ["t0", "t2"]
    assert "t1" in database.warnings[0]


def test_a_damaged_page_of_figures_is_left_out_and_named(storage, make_trial):
    for seed in range(3):
        write_trial(storage, "a", make_trial(f"t{seed}", seed=seed))
    path = Path(storage.trial_file("trials", "a", "t1"))
    content = bytearray(path.read_bytes())
    group = pq.read_metadata(path).row_group(0)
    (of_values,) = [
        group.column(i)
        for i in range(group.num_columns)
        if group.column(i).path_in_schema.startswith("metrics")
        and group.column(i).path_in_schema.endswith("value")
    ]
    content[of_values.data_page_offset + of_values.total_compressed_size - 1] ^= 1
    path.write_bytes(content)
    database = Database(storage)
    assert len(database.outlines("a", columns=["status"])) == 3
    found = database.outlines("a", columns=["status", "metrics"])
    assert [row["trial_id"] for row in found] == ["t0", "t2"]
    assert "t1" in database.warnings[0]


def test_some_trials_and_columns_alone(storage, make_trial):
    for seed in range(4):
        write_trial(storage, "a", make_trial(f"t{seed}", seed=seed))
    compact(storage, "a", report=lambda done, total: None)
    write_trial(storage, "a", make_trial("t4", seed=4))
    found = Database(storage).trials("a", only={"t1", "t4", "none"}, columns=["metrics"])
    assert [dict(row["metrics"]) for row in found.to_pylist()] == [{"seed": 1.0}, {"seed": 4.0}]
