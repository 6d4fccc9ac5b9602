from __future__ import annotations

import numpy as np
import pytest

from ticketsweep.analysis.layers import ALL_LAYERS
from ticketsweep.errors import UserError
from ticketsweep.results.comparison import gates_of, stability_by, trial_named


def rows_by_kind(stability):
    return {(row.layer, row.differs): row for row in stability.rows}


def compare(database, *, keys=(), layer=None):
    warnings = []
    trials = database.trials(sweep="s").to_pylist()
    found = stability_by(database, trials, keys=keys, layer=layer, warn=warnings.append)
    return found, warnings


def test_stored_masks_are_compared_as_they_were_before_they_were_stored(database, store_trial):
    masks = store_trial("aa")
    (stability,) = compare(database)[0].values()
    for layer, each in masks.items():
        flat = each.reshape(4, -1)
        pairs = [(0, 1), (2, 3)]  # the same init seed, other data seeds
        jaccard = np.mean([(flat[a] & flat[b]).sum() / (flat[a] | flat[b]).sum() for a, b in pairs])
        row = rows_by_kind(stability)[layer, "data"]
        assert row.jaccard == pytest.approx(jaccard)
        assert row.pairs == 2


def test_a_replicate_that_diverged_is_left_out_of_the_comparison(database, store_trial):
    masks = store_trial("aa", diverged=frozenset({1}))
    found, warnings = compare(database)
    row = rows_by_kind(found[()])["fc1.weight", "data"]
    flat = masks["fc1.weight"].reshape(4, -1)
    assert row.jaccard == pytest.approx((flat[2] & flat[3]).sum() / (flat[2] | flat[3]).sum())
    assert row.pairs == 1  # replicates 2 and 3; 0 has lost the one it would be compared with
    assert warnings == []


def test_what_gates_stand_for_is_told_of_all_trials():
    weight, neuron = {"granularity": "weight"}, {"granularity": "neuron"}
    assert gates_of([weight, weight]) == gates_of([{}]) == "weights"
    assert gates_of([neuron]) == "units"
    assert gates_of([weight, neuron]) == "gates"


def test_trials_are_grouped_by_a_column_or_a_setting_and_ordered_by_its_value(
    database, store_trial
):
    for trial_id, step in (("aa", 100), ("bb", 20), ("cc", 100)):
        store_trial(trial_id, rewind_step=step)
    found, _ = compare(database, keys=["rewind_step", "gate.l0_strength"])
    assert list(found) == [(20, 0.5), (100, 0.5)]
    assert [stability.rows[0].trials for stability in found.values()] == [1, 2]


def test_one_layer_alone_has_the_figures_that_it_has_among_the_others(database, store_trial):
    store_trial("aa")
    (every,), (alone,) = (
        compare(database, layer=name)[0].values() for name in (None, "fc2.weight")
    )
    assert {row.layer for row in alone.rows} == {"fc2.weight"}
    expected = [row for row in every.rows if row.layer == "fc2.weight"]
    assert list(alone.rows) == expected
    assert any(row.layer == ALL_LAYERS for row in every.rows)


@pytest.mark.parametrize(
    ("keys", "layer", "message"),
    [
        (["rewind_stp"], None, "did you mean 'rewind_step'"),
        (["zzz"], None, "for example"),
        (["config"], None, "--by"),
        ([], "fc3", "known: fc1.weight, fc2.weight"),
    ],
)
def test_an_unknown_key_or_layer_is_refused_with_what_there_is(
    database, store_trial, keys, layer, message
):
    store_trial("aa")
    with pytest.raises(UserError, match=message):
        compare(database, keys=keys, layer=layer)


def test_a_trial_whose_masks_are_gone_is_named_and_the_others_are_compared(
    database, storage, store_trial
):
    store_trial("aa")
    store_trial("bb")
    path = storage.trial_file("masks", "s", "aa")
    storage.filesystem.open_output_stream(path).close()  # an empty file
    found, warnings = compare(database)
    assert found[()].rows[0].trials == 1
    assert any("trial aa is left out" in warning for warning in warnings)
    assert any("aa" in warning for warning in database.warnings)


def test_an_average_over_unlike_trials_is_named_unless_they_are_kept_apart(database, store_trial):
    store_trial("aa", dataset="digits", model="fc-4")
    store_trial("bb", dataset="digits", model="fc-8")
    rows = database.trials().to_pylist()
    said = []
    stability_by(database, rows, keys=[], layer=None, warn=said.append)
    (warning,) = said
    assert "more than one model (fc-4, fc-8)" in warning
    stability_by(database, rows, keys=["model"], layer=None, warn=pytest.fail)
    stability_by(database, rows[:1], keys=[], layer=None, warn=pytest.fail)


def test_a_trial_is_named_by_the_beginning_of_its_id():
    rows = [{"trial_id": "abc1"}, {"trial_id": "abd2"}]
    assert trial_named(rows, "abc") is rows[0]
    for prefix in ("ab", "x", ""):
        with pytest.raises(UserError, match="abc1, abd2"):
            trial_named(rows, prefix)
