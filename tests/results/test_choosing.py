from __future__ import annotations

import numpy as np
import pytest

from ticketsweep.config import TrialConfig
from ticketsweep.errors import UserError
from ticketsweep.results.best import best_of
from ticketsweep.results.choosing import (
    best_at,
    best_settings,
    chosen_by,
    settings_key,
    sparsities_of,
    told_figures,
)
from ticketsweep.results.rows import config_of
from ticketsweep.results.sweeps import sweep_views

BY = {"val_accuracy": "max"}


def trial(number, *, seed=0, rewind_step=None, **figures):
    config = TrialConfig(seed=seed, rewind_step=number if rewind_step is None else rewind_step)
    return {
        "trial_id": f"{number:04x}",
        "status": "complete",
        "config": config.model_dump_json(),
        **figures,
    }


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    figures = [{"val_accuracy": v, "sparsity": s} for v, s in rng.random((40, 2)).round(2)]
    return [trial(number, **each) for number, each in enumerate(figures)]


@pytest.mark.parametrize("top", [1, 3])
def test_the_best_at_a_sparsity_is_the_first_of_those_that_are_so_sparse(rows, top):
    shares = [0.0, 0.3, 0.8, 0.95, 0.999]
    for least, found in zip(shares, (best_at(rows, [s], BY, top=top) for s in shares), strict=True):
        enough = [row for row in rows if row["sparsity"] >= least]
        ordered = sorted(enough, key=lambda row: -row["val_accuracy"])
        assert [row for _, row in found] == (ordered[:top] or [None])
        assert {share for share, _ in found} == {least}


def test_trials_that_differ_in_their_seeds_alone_are_one_setting(rows):
    first, second = best_settings(rows, BY, top=2)
    config = TrialConfig(seed=5, device="cpu", rewind_step=config_of(first)["rewind_step"])
    lower = first["val_accuracy"] - 1e-9
    twin = {**first, "config": config.model_dump_json(), "val_accuracy": lower}
    assert settings_key(twin) == settings_key(first)
    assert best_settings([*rows, twin], BY, top=2) == [first, second]
    assert best_settings(rows, BY, top=1) == [first]
    both = {"val_accuracy": "max", "sparsity": "max"}
    assert len(best_settings(rows, both, top=3)) == 3


def test_a_test_figure_is_refused_and_what_is_told_beside_a_choice_is_its_counterpart():
    objectives = {"retrained_val_accuracy": "max", "sparsity": "max", "loss": "max"}
    assert chosen_by(None, objectives) == objectives
    assert chosen_by("loss", objectives) == {"loss": "max"}
    assert chosen_by("loss", BY) == {"loss": "min"}
    told = told_figures(objectives)
    assert told == ["retrained_val_accuracy", "retrained_accuracy", "sparsity", "loss"]
    assert told_figures({"stability": "max"})[:2] == ["val_accuracy", "strong_accuracy"]
    with pytest.raises(UserError, match=r"is a test figure.*use val_accuracy"):
        chosen_by("strong_accuracy", BY)
    with pytest.raises(UserError, match="did you mean 'val_accuracy'"):
        chosen_by("val_acuracy", BY)


@pytest.mark.parametrize("text", ["", "0.9,", "90", "1", "-0.1", "nan", "0.9;0.8"])
def test_sparsities_are_shares_below_1(text):
    assert sparsities_of("0.95, 0.5,0.5") == [0.5, 0.95]
    with pytest.raises(UserError, match=f"--at-sparsity .* got '{text}'"):
        sparsities_of(text)


def test_the_best_are_told_with_the_spread_of_their_replicates(database, store_trial):
    for number, (value, share) in enumerate([(0.9, 0.55), (0.8, 0.85)]):
        config = TrialConfig(rewind_step=number).model_dump_json()
        store_trial(f"a{number}", config=config, val_accuracy=value, sparsity=share)
    (view,) = sweep_views(database.sweeps().to_pylist(), database.trials().to_pylist())
    found = best_of(database, view, None, by=None, top=1)
    assert [each.least for each in found.trials] == [0.5, 0.8]
    assert found.sparsest == 0.85
    first, second = found.records()
    assert (first["trial_id"], second["trial_id"]) == ("a0", "a1")
    assert first["val_accuracy"] == pytest.approx(np.mean([0.88, 0.9, 0.92, 0.94]))
    assert first["val_accuracy_sd"] == pytest.approx(np.std([0.88, 0.9, 0.92, 0.94], ddof=1))
    assert (first["val_accuracy_n"], first["rewind_step"]) == (4, 0)
    assert str(found).startswith("sparsity >= 50 %: trial a0, val_accuracy 91.00 ± 2.58 %, ")
    assert found.as_arrow().column_names == list(first)
    by_loss = best_of(database, view, [0.8], by="loss", top=1)
    assert str(by_loss).endswith(", sparsity 60.00 ± 0.00 %, loss 0.3")
    (none,) = best_of(database, view, [0.99], by="sparsity", top=2).trials
    assert none.row is None
