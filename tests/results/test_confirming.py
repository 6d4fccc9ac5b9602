"""What a confirming sweep asks for, by the real search, without running anything."""

from __future__ import annotations

import dataclasses
import json
import random
from datetime import UTC, datetime

import pytest

from ticketsweep.config import trial_id
from ticketsweep.errors import ConfigError, SweepError, UserError
from ticketsweep.results.confirming import (
    Confirmed,
    confirmed_so_far,
    confirming_spec,
    fresh_seed,
    replicates_of,
    wanted_of,
)
from ticketsweep.results.spread import Spread
from ticketsweep.results.sweeps import SweepView
from ticketsweep.space import parse_space
from ticketsweep.store.database import Database
from ticketsweep.store.paths import Storage
from ticketsweep.sweep.search import Search

SPACE = {
    "model": {"choice": ["fc-8", "fc-16"]},
    "gate": {
        "choice": [
            {"family": "gaussian", "l0_strength": {"loguniform": [0.1, 10.0]}},
            {"family": "hard_concrete", "l0_strength": {"loguniform": [0.1, 10.0]}},
            {"family": "edge_popup", "density": {"uniform": [0.05, 0.2]}},
        ]
    },
    "rewind_step": {"int": [0, 500]},
    "seed": {"choice": [0, 1]},
    "sweep": {"name": "s", "objectives": {"val_accuracy": "max", "stability": "max"}},
}


class Chance:
    """Settings drawn with Python's own generator."""

    def __init__(self, seed):
        self.draw = random.Random(seed)

    def number(self, name, low, high, *, log):
        return self.draw.uniform(low, high)

    def integer(self, name, low, high):
        return self.draw.randint(low, high)

    def choice(self, name, labels):
        return self.draw.randrange(len(labels))


def identify(config):
    return trial_id(config, data_digest="")


def row_of(config, **columns):
    return {
        "trial_id": identify(config),
        "status": "complete",
        "config": config.model_dump_json(),
        "started_at": datetime(2026, 1, 1, tzinfo=UTC),
        **columns,
    }


@pytest.fixture(scope="module")
def view():
    spec = parse_space(SPACE, source="space")
    configs = [spec.sample(Chance(seed)) for seed in range(12)]
    rows = [
        row_of(config, val_accuracy=0.5 + at / 100, stability=0.9 - at / 100, sparsity=at / 12)
        for at, config in enumerate(configs)
    ]
    stored = {
        "sweep": "s",
        "space": json.dumps(spec.as_plain()),
        "objectives": dict(spec.settings.objectives),
    }
    return SweepView("s", stored, rows)


def confirming(view, rows, stored=(), replicates=None, settings=()):
    return confirming_spec(
        view, rows, stored, name="again", replicates=replicates or {}, settings=settings
    )


def asked_for(spec, stored=()):
    """Every configuration that the search gives out, its samples being counted as a run does."""
    search = Search(spec, identify=identify, journal=None)
    search.restore(list(stored))
    lacking = spec.settings.samples - len(stored)
    return [search.ask().config for _ in range(lacking)]


def test_the_chosen_settings_are_asked_for_with_seeds_of_their_own_and_nothing_else(view):
    wanted = wanted_of(view, sparsities=[], by=None, top=4)
    spec = confirming(view, wanted.rows, replicates={"init": 5})
    (seed,) = {config.seed for config in asked_for(spec)}
    assert seed == fresh_seed(view)
    assert seed not in {json.loads(row["config"])["seed"] for row in view.trials}
    expected = []
    for row in wanted.rows:
        config = json.loads(row["config"])
        own = {"seed": seed, "replicates": {**config["replicates"], "init": 5}}
        expected.append(config | own)
    found = [config.model_dump(mode="json") for config in asked_for(spec)]
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_what_is_stored_is_not_asked_for_again_and_more_may_be_wanted_later(view):
    some = wanted_of(view, sparsities=[], by="val_accuracy", top=2).rows
    stored = [row_of(config) for config in asked_for(confirming(view, some))]
    assert asked_for(confirming(view, some, stored), stored) == []
    more = wanted_of(view, sparsities=[], by="val_accuracy", top=4).rows
    spec = confirming(view, more, stored)
    assert spec.settings.samples == 4
    fresh = asked_for(spec, stored)
    assert len({identify(config) for config in fresh} | {row["trial_id"] for row in stored}) == 4
    spec.refuse_if_different(
        json.dumps(confirming(view, some).as_plain()),
        json.dumps(dict(confirming(view, some).settings.objectives)),
    )


def test_the_best_at_each_sparsity_is_confirmed_once(view):
    wanted = wanted_of(view, sparsities=[0.0, 0.5, 0.99], by=None, top=1)
    (best,) = wanted.rows  # the last trial is the most accurate and the sparsest
    assert wanted.at == {best["trial_id"]: [0.0, 0.5]}
    assert wanted.metrics[:3] == ("val_accuracy", "strong_accuracy", "sparsity")


def test_stability_is_no_objective_where_no_two_tickets_share_an_init(view):
    rows = view.trials[:1]
    alone = confirming(view, rows, replicates={"data": 1, "gate": 1})
    assert dict(alone.settings.objectives) == {"val_accuracy": "max"}
    assert "stability" in confirming(view, rows).settings.objectives


def test_where_things_are_may_be_said_and_what_was_found_may_not_be_changed(view):
    rows = view.trials[:1]
    told = ["data_root=here", "sweep.resources.cpus=2", "device=cpu"]
    spec = confirming(view, rows, settings=told)
    assert (spec.settings.resources.cpus, spec.tree["data_root"]) == (2, "here")
    with pytest.raises(UserError, match="--set train would make other settings"):
        confirming(view, rows, settings=["train.steps=7"])


def test_what_cannot_be_confirmed_is_refused(view):
    with pytest.raises(SweepError, match="no complete trial with loss, so there is nothing"):
        wanted_of(view, sparsities=[], by="loss", top=1)
    with pytest.raises(SweepError, match=r"a sparsity >= 0\.999,"):
        wanted_of(view, sparsities=[0.999], by=None, top=1)
    config = json.dumps({"imported": {"files": []}})
    imported = SweepView("s", None, [{"status": "complete", "trial_id": "a", "config": config}])
    with pytest.raises(SweepError, match="holds imported masks"):
        wanted_of(imported, sparsities=[], by=None, top=1)
    single = SweepView("single", None, view.trials)
    with pytest.raises(SweepError, match="was not searched by `ticketsweep run`"):
        confirming(single, view.trials[:1])


def test_shrinkage_is_what_fresh_seeds_lack():
    before, after = {"a": Spread(0.9, 0.1, 4)}, {"a": Spread(0.85, None, 1)}
    assert Confirmed({}, {}, before, after).shrinkage("a") == pytest.approx(0.05)
    assert Confirmed({}, None, before, {}).shrinkage("a") is None


@pytest.mark.parametrize("text", ["", "init", "init=0", "init=-1", "seed=3", "init=2.5", "init=2;"])
def test_replicates_are_counts_of_seeds(text):
    assert replicates_of("init=4, data=1") == {"init": 4, "data": 1}
    with pytest.raises(ConfigError, match="must look like init=4,data=1,gate=1"):
        replicates_of(text)


@pytest.mark.parametrize("name", ["s", "s" * 95])  # the second leaves no room for its name
def test_what_has_never_been_confirmed_is_said_to_be_nothing(view, name, tmp_path):
    database = Database(Storage.open(str(tmp_path / "storage"), create=True))
    assert confirmed_so_far(database, dataclasses.replace(view, name=name)) == []
