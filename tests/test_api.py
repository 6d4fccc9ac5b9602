"""Sweeps from Python, as a notebook makes them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from IPython.core.formatters import PlainTextFormatter

import ticketsweep
from ticketsweep.errors import ConfigError, TicketsweepError
from ticketsweep.planning import load_data
from ticketsweep.space import load_trial
from ticketsweep.store.paths import Storage
from ticketsweep.trial import run_trial

SPACE = {
    "model": "fc-8",
    "gate": {"l0_strength": {"choice": [0.5, 5.0]}},
    "train": {"steps": 20, "batch_size": 32},
    "sweep": {"name": "s", "samples": 2},
}


@pytest.fixture
def storage(tmp_path):
    """A storage with the space's trials, so that a sweep of them has nothing left to train."""
    opened = Storage.open(str(tmp_path / "st"), create=True)
    settings = ["model=fc-8", "train={steps: 20, batch_size: 32}"]
    for strength in (0.5, 5.0):
        config = load_trial(None, settings=[*settings, f"gate.l0_strength={strength}"])
        trial = run_trial(config, dataset=load_data(config), storage=opened, sweep="single")
        assert [*trial]
    return tmp_path / "st"


def test_a_sweep_is_run_from_values_and_its_result_reads_well(storage, capfd):
    found = ticketsweep.run(SPACE, storage=storage)
    assert found.trials.num_rows == 2
    assert set(found.trials["status"].to_pylist()) == {"complete"}
    assert str(found).startswith("s: 2 complete trials\nbest val_accuracy: trial ")
    (best,) = found.best(at_sparsity=[0.0]).records()
    assert best["val_accuracy"] == max(found.trials["val_accuracy"].to_pylist())
    assert found.stability().stability[()].score is not None
    assert ticketsweep.open(str(storage)).trials(sweep="s").num_rows == 2
    assert repr(found) == "Swept(name='s')"
    for shown in (found, found.best(at_sparsity=[0.0]), found.stability()):  # as in a notebook
        assert PlainTextFormatter()(shown) == str(shown)
    assert ticketsweep.run(SPACE, storage=storage, samples=1).trials.num_rows == 2
    assert capfd.readouterr().out == ""  # it is followed on stderr


def test_a_fault_is_an_error_with_every_fault_in_it(storage, tmp_path):
    with pytest.raises(ConfigError, match=r"(?s)the space: 2 faults.*modle is not"):
        ticketsweep.run({**SPACE, "modle": "fc-8", "seed": -1}, storage=storage)
    with pytest.raises(ConfigError, match=r"sweep\.name is required"):
        ticketsweep.run({"seed": {"choice": [0, 1]}}, storage=storage)
    with pytest.raises(TicketsweepError, match="cannot be read"):
        ticketsweep.run(tmp_path / "no.yaml", storage=storage)


SCRIPT = f"""
import ticketsweep
found = ticketsweep.run({json.dumps(SPACE)}, storage="st", settings=["train.steps=25"])
print(found)
"""


@pytest.mark.exhaustive
def test_a_script_needs_no_guard_for_its_workers(tmp_path):
    """Ray's workers do not import the script; a pool of Python's own would run it again in each."""
    (tmp_path / "script.py").write_text(SCRIPT)
    ended = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[0] == "s: 2 complete trials"
    assert "2 of 2 trials done" in ended.stderr
