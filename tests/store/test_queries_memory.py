"""What a query over many masks holds in memory: a few row groups, however many there are."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from ticketsweep.store.paths import Storage
from ticketsweep.store.schema import MaskRow, TrialRows
from ticketsweep.store.writer import write_trial

TRIALS, REPLICATES = 6, 8
LAYERS = (("fc1.weight", (4000, 8000)), ("fc2.weight", (2000, 8000)), ("fc3.weight", (250, 8000)))
BITS = TRIALS * REPLICATES * sum(rows * columns // 8 for _, (rows, columns) in LAYERS)  # 300 MB
MIB = 1 << 20


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Storage:
    storage = Storage.open(str(tmp_path_factory.mktemp("large")), create=True)
    noise = np.random.default_rng(0).bytes(4 * MIB)  # as good as incompressible at this distance
    for trial in range(TRIALS):
        masks = [
            MaskRow(replicate, 1, layer, index, shape, noise[: shape[0] * shape[1] // 8])
            for index, (layer, shape) in enumerate(LAYERS)
            for replicate in range(REPLICATES)
        ]
        row = {"trial_id": f"t{trial}", "status": "complete"}
        own = [{"replicate": replicate} for replicate in range(REPLICATES)]
        write_trial(storage, "large", TrialRows(row, own, masks))
    return storage


MEASURED = """
import sys
from ticketsweep.store.database import open_database
def peak():  # `ru_maxrss` begins with that of the parent, which may be larger than this gets
    return next(int(line.split()[1]) for line in open("/proc/self/status") if "VmHWM" in line)
database = open_database(sys.argv[1])
database.sql("select 1")
before = peak()
exec(sys.argv[2])
print(peak() - before)
"""
SAVED = "from ticketsweep.cli import main; main()"

ASKED = {
    "select max(octet_length(bits)) from masks": 180,
    "select layer, avg(kept), max(mask_kept(bits)) from masks group by 1": 240,
    "select count(*), avg(sparsity) from masks": 50,
}


def _peak_mib(storage: Storage, code: str) -> float:
    """By how much a process grows beyond what its imports and first query took."""
    line = [sys.executable, "-c", MEASURED, storage.uri, code]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=120, check=True)
    return int(ended.stdout.split()[-1]) * 1024 / MIB


@pytest.mark.parametrize("query", ASKED)
def test_a_query_holds_a_few_row_groups(large, query):
    assert BITS > 280 * MIB
    assert _peak_mib(large, f"database.sql({query!r})") < ASKED[query]


def test_batches_hold_one_file(large):
    assert _peak_mib(large, "print(sum(len(b) for b in database.mask_batches()))") < 220


def test_a_large_answer_is_written_while_it_is_read(large, tmp_path):
    out = tmp_path / "all.parquet"
    line = ["query", "select * from masks", "--out", str(out), "--storage", large.uri]
    code = f"import sys, ticketsweep.cli\nsys.argv = {['ticketsweep', *line]!r}\n"
    code += "try:\n    ticketsweep.cli.main()\nexcept SystemExit:\n    pass"
    assert _peak_mib(large, code) < 600
    assert pq.read_metadata(out).num_rows == TRIALS * REPLICATES * len(LAYERS)
    assert pq.ParquetFile(out).num_row_groups > 5


def test_a_table_of_many_rows_counts_what_it_does_not_show(large):
    line = [sys.executable, "-c", SAVED, "query", "select * from range(3000000)"]
    ended = subprocess.run(
        [*line, "--storage", large.uri], capture_output=True, text=True, timeout=120, check=True
    )
    assert "(100 of 3,000,000 rows shown; --format csv or json has all)" in ended.stdout
