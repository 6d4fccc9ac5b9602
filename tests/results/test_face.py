"""What a notebook asks of a database."""

from __future__ import annotations

import pytest

from ticketsweep import results
from ticketsweep.errors import UserError
from ticketsweep.results.comparison import compare_by


def test_a_sweep_is_compared_as_on_the_command_line(database, store_trial):
    for trial_id, step in (("aa", 100), ("bb", 20)):
        store_trial(trial_id, rewind_step=step)
    found = results.compare(database, "s", by=["rewind_step"])
    rows = database.trials(sweep="s").to_pylist()
    assert found == compare_by(database, rows, keys=["rewind_step"], layer=None, warn=print)
    assert str(found).splitlines()[0].startswith("rewind_step 20: 1 trial, ")
    (one,) = results.compare(database, "s", trial="a").groups.values()
    assert one.trials == 1


def test_what_is_left_out_is_warned_of_and_what_is_not_there_refused(database, store_trial):
    store_trial("aa", model="fc-8")
    store_trial("bb", model="fc-9")
    with pytest.warns(UserWarning, match="more than one model"):
        results.compare(database, "s")
    with pytest.raises(UserError, match="no sweep 't'"):
        results.compare(database, "t")


def test_nothing_to_compare_is_said(database, storage):
    assert str(results.compare(database, "s")) == "no complete trial to compare"
