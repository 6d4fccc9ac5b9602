"""Run by test_atomicity.py: writes trials to a storage until it is killed.

    python endless_writer.py URI

The trials t0, t1, … get their final content (seed = number) after a failed and a stopped attempt.
"""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path

from ticketsweep.store.paths import Storage
from ticketsweep.store.writer import write_trial

spec = importlib.util.spec_from_file_location("conftest", Path(__file__).with_name("conftest.py"))
conftest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(conftest)

storage = Storage.open(sys.argv[1], create=True)
print("writing", flush=True)
for number in itertools.count():
    for status, seed in (("failed", 1000), ("stopped", 2000), ("complete", number)):
        write_trial(storage, "a", conftest.make_trial(f"t{number}", status=status, seed=seed))
