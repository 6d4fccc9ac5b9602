from __future__ import annotations

import json
import statistics
from datetime import UTC, datetime

import pytest

from ticketsweep.display.records import document
from ticketsweep.errors import SweepError
from ticketsweep.results.summary import summarise
from ticketsweep.results.sweeps import sweep_named, sweep_views


def summary_of(database):
    (view,) = sweep_views(database.sweeps().to_pylist(), database.trials().to_pylist())
    return summarise(
        database,
        view.name,
        rows=view.trials,
        objectives=view.objectives,
        searched=view.searched,
        warn=pytest.fail,
    )


def test_a_spread_is_the_standard_deviation_over_replicates(database, store_trial):
    store_trial("aa")
    spread = summary_of(database).spread({"trial_id": "aa"}, "val_accuracy")
    values = [0.88, 0.90, 0.92, 0.94]
    assert spread.n == 4
    assert spread.mean == pytest.approx(0.91)
    assert spread.sd == pytest.approx(statistics.stdev(values))


def test_a_replicate_that_diverged_is_counted_and_in_no_figure(database, store_trial):
    store_trial("aa", diverged=frozenset({0, 2}))
    store_trial("bb")
    found = summary_of(database)
    assert found.diverged == {"aa": [300, 300]}
    spread = found.spread({"trial_id": "aa"}, "val_accuracy")
    assert (spread.n, spread.mean) == (2, pytest.approx(0.92))
    assert found.replicates is None  # not the same number in both


def test_a_figure_among_the_metrics_has_a_spread_and_differences_too(database, store_trial):
    store_trial("aa")
    found = summary_of(database)
    assert found.spread({"trial_id": "aa"}, "random_mask_val_accuracy").mean == pytest.approx(0.1)
    (trial,) = json.loads(document(found.as_plain()))["trials"]
    (difference,) = trial["differences"]
    assert (difference["of"], difference["less"]) == ("strong_accuracy", "random_mask_accuracy")
    assert difference["mean"] == pytest.approx(0.75)
    assert trial["diverged_at_step"] == []


def test_a_summary_is_plain_json_with_the_best_trial_first(database, store_trial):
    store_trial("aa", val_accuracy=0.7, sparsity=0.5)
    store_trial("bb", val_accuracy=0.8, sparsity=0.6)
    store_trial("cc", status="failed", error="diverged", val_accuracy=None, sparsity=None)
    read = json.loads(document(summary_of(database).as_plain()))
    assert [(t["trial_id"], t["rank"]) for t in read["trials"]] == [
        ("bb", 1),
        ("aa", 2),
        ("cc", None),
    ]
    assert read["trials"][0]["config"]["gate"] == {"l0_strength": 0.5}
    assert read["trials"][0]["metrics"] == {"loss": 0.3}
    assert read["trials"][0]["spread"]["val_accuracy"]["n"] == 4
    assert set(read["stability"]) == {"aa", "bb"}


def test_a_sweep_is_summarised_before_any_trial_has_finished(database):
    summary = summary_of(database)
    assert summary.best == []
    assert summary.as_plain()["trials"] == []


def test_a_sweep_in_the_storage_tells_what_it_searches_and_when_it_last_moved(
    database, store_trial
):
    store_trial("aa")
    (view,) = sweep_views(database.sweeps().to_pylist(), database.trials().to_pylist())
    assert view.searched == ["rewind_step", "gate.l0_strength"]
    assert view.last_activity == datetime(2026, 1, 2, 0, 1, tzinfo=UTC)
    assert (view.count("complete"), view.count("failed")) == (1, 0)


def test_trials_without_a_sweep_of_their_own_are_a_sweep_too():
    (view,) = sweep_views([], [{"sweep": "single", "status": "complete"}])
    assert (view.name, view.searched, list(view.objectives)) == (
        "single",
        [],
        ["val_accuracy", "sparsity"],
    )


def test_what_trials_without_a_sweep_differ_in_was_searched():
    def trial(**settings: object) -> dict[str, object]:
        config = {"model": "fc-8", "gate": {"family": "gaussian"}, "device": "cpu", **settings}
        return {"sweep": "single", "status": "complete", "config": json.dumps(config)}

    rows = [trial(rewind_step=0), trial(rewind_step=9, device="cuda", gate={"family": "random"})]
    (view,) = sweep_views([], rows)
    assert view.searched == ["gate.family", "rewind_step"]


def test_an_unknown_sweep_is_refused_with_those_there_are():
    views = sweep_views([{"sweep": "quickstart"}], [])
    assert sweep_named(views, "quickstart", storage="here").name == "quickstart"
    with pytest.raises(SweepError, match="did you mean 'quickstart'"):
        sweep_named(views, "quickstrat", storage="here")
    with pytest.raises(SweepError, match="no sweep yet"):
        sweep_named([], "quickstart", storage="here")
