from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from ticketsweep.config import EXECUTION_FIELDS, Retraining, TrialConfig
from ticketsweep.distributions import Choice, Integer, Label, Uniform
from ticketsweep.errors import ConfigError, SweepError
from ticketsweep.families import FAMILIES
from ticketsweep.names import CONTROLS, OBJECTIVES, TEST_FIGURES
from ticketsweep.space import SweepSpec, load_space, load_trial, parse_space, read_space
from ticketsweep.store.schema import REPLICATES

TEXT_VALUES = {
    "model": ["lenet-300-100", "fc-8", "fc-8-16", "resnet-20", "mynet:net"],
    "dataset": ["digits", "mnist", "parquet:some/folder", "mydata:load"],
    "data_root": ["elsewhere", None],
}


class Drawn:
    """Draws from `random`, and keeps what was asked for."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.asked: dict[str, Any] = {}

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        self.asked[name] = self._random.choice([low, high, self._random.uniform(low, high)])
        return self.asked[name]

    def integer(self, name: str, low: int, high: int) -> int:
        self.asked[name] = self._random.choice([low, high, self._random.randint(low, high)])
        return self.asked[name]

    def choice(self, name: str, labels: Sequence[Label]) -> int:
        index = self._random.randrange(len(labels))
        self.asked[name] = labels[index]
        return index


class Point:
    """Answers with one point of a grid, which it must use up."""

    def __init__(self, point: dict[str, Label]) -> None:
        self.left = dict(point)

    def number(self, name: str, low: float, high: float, *, log: bool) -> float:
        raise AssertionError(f"{name}: a grid has no ranges")

    def integer(self, name: str, low: int, high: int) -> int:
        return self.left.pop(name)

    def choice(self, name: str, labels: Sequence[Label]) -> int:
        return labels.index(self.left.pop(name))


def space(tree: dict[str, Any], **block: Any) -> SweepSpec:
    return parse_space(
        {**tree, "sweep": {"name": "test", "resources": {"gpus": 1}, **block}}, source="space.yaml"
    )


def faults_of(tree: dict[str, Any], **block: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        space(tree, **block)
    return [str(fault) for fault in caught.value.faults]


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "space.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


LISTS = {
    "controls": st.sets(st.sampled_from(list(CONTROLS))).map(
        lambda s: sorted(s, key=[*CONTROLS].index)
    ),
    "include": st.lists(st.sampled_from(["fc1.*", "*weight", "head"]), max_size=2),
    "exclude": st.lists(st.sampled_from(["fc1.*", "*weight", "head"]), max_size=2),
}


def bounds(field: Any, *, is_whole: bool) -> tuple[Any, Any]:
    # In `Annotated[float | None, Field(gt=0)]` the rules lie one level deeper.
    rules = [inner for rule in field.metadata for inner in getattr(rule, "metadata", [rule])]
    given_bounds = {
        name: getattr(rule, name)
        for rule in rules
        for name in ("gt", "ge", "lt", "le")
        if hasattr(rule, name)
    }
    step = 1 if is_whole else 1e-3
    low = given_bounds.get("ge", given_bounds.get("gt", 0) + step)
    high = given_bounds.get("le", given_bounds.get("lt", 0) - step)
    return low, high


def leaf(name: str, field: Any) -> st.SearchStrategy[Any]:
    """A value of a setting, or a distribution over its values."""
    if get_origin(field.annotation) is Literal or name in TEXT_VALUES:
        values = TEXT_VALUES.get(name) or list(get_args(field.annotation))
        one = st.sampled_from(values)
        ranges = st.nothing()
    elif field.annotation is bool:
        one, ranges = st.booleans(), st.nothing()
    elif name in LISTS:
        one, ranges = LISTS[name], st.nothing()
    else:
        kinds = get_args(field.annotation) or (field.annotation,)
        is_whole = int in kinds
        low, high = bounds(field, is_whole=is_whole)
        # Two distinct ends, well apart: a range of one value is refused.
        one = st.integers(low, high) if is_whole else st.floats(low, high)
        pair = st.lists(one, min_size=2, max_size=2, unique=True).map(sorted)
        ranges = pair.map(lambda ends: {"int" if is_whole else "uniform": ends})
        if not is_whole and low > 0:
            ranges |= pair.map(lambda ends: {"loguniform": ends})
        if type(None) in kinds:
            one |= st.none()
        if name == "image_size":  # images are loaded before the search begins
            ranges = st.nothing()
    options = st.lists(one, min_size=1, max_size=3, unique_by=json.dumps)
    return one | ranges | options.map(lambda o: {"choice": o})


def section(model: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    parts = {}
    for name, field in model.model_fields.items():
        if name == "family":  # a searched family allows only what all of them have
            continue
        is_block = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        if is_block or (model is TrialConfig and name == "gate"):
            inner = section(field.annotation) if is_block else GATES
            # The options of a conditional choice share their kinds of distribution: one is drawn.
            options = inner.map(lambda tree: {"choice": [tree, {}] if tree else [{}]})
            parts[name] = inner | options
        else:
            parts[name] = leaf(name, field)
    if model is Retraining:  # without steps it may not be set
        return st.just({}) | st.fixed_dictionaries({"steps": parts.pop("steps")}, optional=parts)
    return st.fixed_dictionaries({}, optional=parts)


def gate(family: str) -> st.SearchStrategy[dict[str, Any]]:
    named = section(FAMILIES[family]).map(lambda tree: {**tree, "family": family})
    return named | section(FAMILIES[family]) if family == "gaussian" else named


GATES = st.sampled_from(list(FAMILIES)).flatmap(gate)
SPACES = section(TrialConfig)
QUICK = settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)


def lies_in(value: Any, node: Any) -> bool:
    if isinstance(node, Choice):
        return any(lies_in(value, option) for option in node.options)
    if isinstance(node, (Uniform, Integer)):
        return value is not None and node.low <= value <= node.high
    if isinstance(node, dict):
        return all(key in value and lies_in(value[key], child) for key, child in node.items())
    return value == node


@given(SPACES, st.integers(0, 99))
@QUICK
def test_every_sampled_trial_lies_in_the_space(tree: dict[str, Any], seed: int):
    spec = space(tree)
    drawn = Drawn(seed)
    sampled = spec.sample(drawn).model_dump()
    assert lies_in(sampled, spec.tree)
    assert set(drawn.asked) <= set(spec.distributions())


@given(SPACES, st.integers(0, 99))
@QUICK
def test_a_space_written_down_is_the_same_space(tree: dict[str, Any], seed: int):
    spec = space(tree)
    again = space(json.loads(json.dumps(spec.as_plain())))
    assert again.as_plain() == spec.as_plain()
    assert again.distributions() == {
        key: node for key, node in spec.distributions().items() if key not in EXECUTION_FIELDS
    }
    here, there = spec.sample(Drawn(seed)), spec.sample(Drawn(seed))
    assert here == there
    again.refuse_if_different(
        json.dumps(spec.as_plain()), '{"val_accuracy": "max", "sparsity": "max"}'
    )


CONDITIONAL = {
    "gate": {
        "choice": [
            {"temperature": {"uniform": [0.1, 1]}, "temperature_schedule": "constant"},
            {"l0_strength": {"loguniform": [0.1, 10]}, "init": {"choice": [0.25, 0.75]}},
        ]
    },
    "rewind_step": {"int": [0, 2]},
}


def test_a_chosen_mapping_asks_for_its_own_distributions_alone():
    spec = space(CONDITIONAL)
    seen = set()
    for seed in range(30):
        drawn = Drawn(seed)
        config = spec.sample(drawn)
        names = frozenset(drawn.asked)
        seen.add(names)
        if "gate.temperature" in names:
            assert config.gate.temperature_schedule == "constant"
            assert config.gate.temperature == drawn.asked["gate.temperature"]
            assert config.gate.l0_strength == TrialConfig().gate.l0_strength
        else:
            assert config.gate.l0_strength == drawn.asked["gate.l0_strength"]
            assert config.gate.init in (0.25, 0.75)
    assert seen == {
        frozenset({"gate", "gate.temperature", "rewind_step"}),
        frozenset({"gate", "gate.l0_strength", "gate.init", "rewind_step"}),
    }


FAMILY_SEARCH = {
    "gate": {
        "choice": [
            {"l0_strength": {"loguniform": [0.1, 10]}},
            {"family": "hard_concrete", "l0_strength": {"loguniform": [0.1, 10]}},
            {"family": "edge_popup", "density": {"uniform": [0.05, 0.2]}},
            {"family": "magnitude", "rounds": {"int": [2, 5]}, "scope": "layer"},
            {"family": "random", "density": {"uniform": [0.05, 0.2]}},
        ]
    }
}


def test_a_search_over_families_asks_for_the_chosen_ones_settings_alone():
    spec = space(FAMILY_SEARCH)
    seen = {}
    for seed in range(60):
        drawn = Drawn(seed)
        gate = spec.sample(drawn).gate
        seen[gate.family] = set(drawn.asked)
        assert type(gate) is FAMILIES[gate.family]
    assert seen == {
        "gaussian": {"gate", "gate.l0_strength"},
        "hard_concrete": {"gate", "gate.l0_strength"},
        "edge_popup": {"gate", "gate.density"},
        "magnitude": {"gate", "gate.rounds"},
        "random": {"gate", "gate.density"},
    }


def test_a_family_can_be_searched_alone_with_what_all_of_its_options_have():
    families = {"family": {"choice": ["gaussian", "sigmoid"]}}
    spec = space({"gate": {**families, "l0_strength": {"loguniform": [0.1, 10]}}})
    assert {spec.sample(Drawn(seed)).gate.family for seed in range(9)} == {"gaussian", "sigmoid"}
    assert spec.as_plain()["gate"]["l0_strength"] == {"loguniform": [0.1, 10.0]}
    (fault,) = faults_of({"gate": {"family": {"choice": ["gaussian", "random"]}, "density": 0.5}})
    assert fault == (
        "gate.density is not a setting of this gate family "
        "(gaussian; edge_popup and random have it)"
    )


def test_a_space_is_written_down_with_the_defaults_of_its_family():
    assert space({"gate": {"family": "edge_popup"}}).as_plain()["gate"] == {
        "family": "edge_popup", "granularity": "weight", "density": 0.1, "ranked_by": "absolute",
    }  # fmt: skip
    assert space({}).as_plain()["gate"]["family"] == "gaussian"


def test_a_space_stored_before_a_field_was_added_goes_on():
    stored = space({}).as_plain()
    assert "l0_warmup" not in stored["gate"]
    space({"gate": {"l0_warmup": 0}}).refuse_if_different(json.dumps(stored), USUAL_OBJECTIVES)
    with pytest.raises(SweepError, match=r"gate\.l0_warmup: not set in the storage, 0\.1"):
        space({"gate": {"l0_warmup": 0.1}}).refuse_if_different(
            json.dumps(stored), USUAL_OBJECTIVES
        )


def test_a_block_that_was_added_is_of_no_effect_as_it_was_before():
    stored = space({}).as_plain()
    assert not {"retrain", "controls", "width"} & set(stored)
    same = {"retrain": {"steps": 0, "optimizer": "adam"}, "controls": [], "width": 1}
    space(same).refuse_if_different(json.dumps(stored), USUAL_OBJECTIVES)
    other = space(
        {"retrain": {"steps": {"int": [1, 9]}}, "controls": {"choice": [[], ["random_mask"]]}}
    )
    with pytest.raises(SweepError) as caught:
        other.refuse_if_different(json.dumps(stored), USUAL_OBJECTIVES)
    assert '  retrain.steps: not set in the storage, {"int": [1, 9]} in' in str(caught.value)
    assert '  controls: not set in the storage, {"choice": [[], ["random_mask"]]}' in str(
        caught.value
    )


def test_lists_are_chosen_as_wholes():
    lists = [[], ["random_mask"], ["shuffled_mask", "random_mask"]]
    spec = space({"controls": {"choice": lists}, "gate": {"include": {"choice": [["fc1.*"], []]}}})
    (label, *_) = spec.distributions()["controls"].labels
    assert label == "[]"
    found = {tuple(spec.sample(Drawn(seed)).controls) for seed in range(40)}
    assert found == set(map(tuple, lists))
    assert len(list(spec.grid())) == 6


def test_a_grid_holds_every_trial_once():
    tree = {
        "gate": {"choice": [{"init": {"choice": [0.25, 0.75]}}, {"l0_strength": 2}]},
        "rewind_step": {"int": [0, 2]},
        "train": {"optimizer": {"choice": ["adam", "sgd"]}},
    }
    spec = space(tree, sampler="grid")
    trials = []
    for point in spec.grid():
        suggest = Point(point)
        trials.append(spec.sample(suggest))
        assert suggest.left == {}
    found = {(t.gate.init, t.gate.l0_strength, t.rewind_step, t.train.optimizer) for t in trials}
    gates = [(0.25, 1.0), (0.75, 1.0), (0.5, 2.0)]
    assert found == {(*g, k, o) for g in gates for k in range(3) for o in ("adam", "sgd")}
    assert len(trials) == len(found) == 18


def test_the_values_of_a_top_level_setting():
    spec = space({"model": {"choice": ["fc-8", "fc-9"]}, "seed": 3})
    assert spec.values_of("model") == ["fc-8", "fc-9"]
    assert spec.values_of("seed") == [3]
    assert spec.values_of("dataset") == [TrialConfig().dataset]


USUAL_OBJECTIVES = '{"sparsity": "max", "val_accuracy": "max"}'


def test_the_same_space_goes_on():
    stored = json.dumps(space({"seed": {"int": [0, 9]}, "weight_scale": 1}).as_plain())
    same = {"weight_scale": 1.0, "seed": {"int": [0, 9]}, "data_root": "x", "device": "cpu"}
    space(same).refuse_if_different(stored, USUAL_OBJECTIVES)
    space({"seed": {"int": [0, 9]}, "validation": 0.1}).refuse_if_different(
        stored, USUAL_OBJECTIVES
    )


def test_another_space_is_refused_with_the_difference():
    old = space({"seed": 1, "gate": {"init": {"uniform": [0, 1]}, "temperature": 0.5}})
    new = space(
        {"gate": {"init": {"uniform": [0, 2]}}, "seed": {"choice": [1, 2]}},
        objectives={"loss": "min", "sparsity": "max"},
    )
    with pytest.raises(SweepError) as caught:
        new.refuse_if_different(json.dumps(old.as_plain()), USUAL_OBJECTIVES)
    assert str(caught.value).splitlines()[1:] == [
        '  gate.init: {"uniform": [0.0, 1.0]} in the storage, '
        '{"uniform": [0.0, 2.0]} in space.yaml',
        "  gate.temperature: 0.5 in the storage, 1.0 in space.yaml",
        '  seed: 1 in the storage, {"choice": [1, 2]} in space.yaml',
        '  sweep.objectives.loss: not set in the storage, "min" in space.yaml',
        '  sweep.objectives.val_accuracy: "max" in the storage, not set in space.yaml',
    ]
    assert "'test'" in str(caught.value)
    assert "--name" in str(caught.value)


BAD = """\
modl: lenet
dataset: mnst
seed: yes
rewind_step: 1e3
gate: {l0_strength: {uniform: [3, 1]}, temperature: {choice: []}, init: .nan, temprature: 1}
train: {steps: {uniform: [1, 100]}, lr: !!float 3, batch_size: null, lr: 4}
replicates: {init: 0, gate: true}
pretrain: &p {lr: {choice: [-1, -2]}, optimizer: *p}
2: 3
sweep:
  name: a/b
  samples: 0
  samples: 7
  objectives: {val_acuracy: max, strong_accuracy: max, loss: down}
  sampler: tree
  resources: {gpus: -1}
"""


def test_all_faults_of_a_file_are_reported_at_once_and_each_once(write):
    with pytest.raises(ConfigError) as caught:
        load_space(write(BAD))
    keys = [fault.key for fault in caught.value.faults]
    assert sorted(keys) == sorted([
        "modl", "dataset", "seed", "rewind_step", "gate.l0_strength", "gate.temperature",
        "gate.init", "gate.temprature", "train.steps", "train.lr", "train.batch_size",
        "replicates.init", "replicates.gate", "pretrain.lr", "pretrain.optimizer", "2",
        "sweep.name", "sweep.samples", "sweep.objectives.val_acuracy",
        "sweep.objectives.strong_accuracy", "sweep.objectives.loss", "sweep.sampler",
        "sweep.resources.gpus",
    ])  # fmt: skip
    message = str(caught.value)
    assert all(len(line) <= 80 for line in message.splitlines()[1:])
    assert "train.steps must be a whole number, got {uniform: [1.0, 100.0]} (use int)" in message
    assert "pretrain.lr must be > 0, got -1 (" in message


@pytest.mark.parametrize(
    ("tree", "block", "message"),
    [
        ({}, {"name": "a/b"}, "sweep.name must be letters, digits, '.', '_' or '-', at most 100"),
        ({}, {"name": ".."}, "sweep.name must be letters, digits"),
        ({}, {"name": "a" * 101}, "sweep.name must be letters, digits"),
        ({}, {"name": "a\n"}, "sweep.name must be letters, digits"),
        ({}, {"name": ""}, "sweep.name must not be empty"),
        ({}, {"name": 3}, "sweep.name must be text, got 3"),
        ({}, {"samples": 0}, "sweep.samples must be >= 1, got 0"),
        ({}, {"samples": {"int": [1, 2]}}, "sweep.samples must be a whole number, got {int"),
        ({}, {"smples": 1}, "sweep.smples is not a setting (did you mean 'samples'?)"),
        ({}, {"concurrency": 0}, "sweep.concurrency must be >= 1, got 0 (trials at once"),
        ({}, {"sampler": "tpee"}, "sweep.sampler must be tpe, nsga2, random or grid, got 'tpee' "
                                  "(did you mean 'tpe'?)"),
        ({}, {"resources": {"cpus": 0}}, "sweep.resources.cpus must be > 0, got 0"),
        ({}, {"resources": {"cpu": 1}}, "sweep.resources.cpu is not a setting (did you mean"),
        ({}, {"objectives": {}}, "sweep.objectives must not be empty"),
        ({}, {"objectives": ["loss"]}, "sweep.objectives must be a mapping, got ['loss']"),
        ({}, {"objectives": "stability"}, "sweep.objectives must be a mapping, got 'stability'"),
        ({}, {"objectives": {"loss": "up"}}, "sweep.objectives.loss must be max or min, got 'up'"),
        ({}, {"objectives": {"los": "min"}}, "sweep.objectives.los is not a trial metric "
                                             "(did you mean 'loss'?)"),
        ({}, {"objectives": {"strong_accuracy": "max"}},
         "sweep.objectives.strong_accuracy is a test figure; the search must not look at it "
         "(use val_accuracy)"),
        ({}, {"objectives": {"retrained_accuracy": "max"}},
         "sweep.objectives.retrained_accuracy is a test figure; the search must not look at it "
         "(use retrained_val_accuracy)"),
        ({}, {"objectives": {"joint_val_accuracy": "max"}},
         "weights must be joint where joint_val_accuracy is an objective, got 'frozen' "
         "(or use val_accuracy)"),
        ({"weights": {"choice": ["joint", "frozen"]}},
         {"objectives": {"joint_val_accuracy": "max"}}, "weights must be joint where"),
        ({}, {"objectives": {"retrained_val_accuracy": "max"}},
         "retrain.steps must be >= 1 where retrained_val_accuracy is an objective, got 0 "
         "(or use val_accuracy)"),
        ({"retrain": {"steps": {"int": [0, 9]}}}, {"objectives": {"retrained_val_accuracy": "max"}},
         "retrain.steps must be >= 1 where"),
        ({"retrain": {"choice": [{"steps": 9}, {}]}},
         {"objectives": {"retrained_val_accuracy": "max"}}, "retrain.steps must be >= 1 where"),
        ({"retrain": {"lr": 0.1}}, {"objectives": {"retrained_val_accuracy": "max"}},
         "retrain.steps is required where retrain is set"),
        ({"retrain": {"lr": {"loguniform": [0.1, 1]}}}, {}, "retrain.steps is required where"),
        ({"controls": {"choice": [[], ["random"]]}}, {},
         "controls.0 must be shuffled_mask, reinitialized or random_mask, got 'random' "
         "(did you mean 'random_mask'?)"),
        ({"gate": {"choice": [{}, {"include": [3]}]}}, {}, "gate.include.0 must be text, got 3"),
        ({"gate": {"inputs": {"int": [0, 1]}}}, {}, "gate.inputs must be true or false, got 0"),
        ({"gate": {"target_density": {"uniform": [0, 1]}}}, {},
         "gate.target_density must be > 0, got 0.0 (share of gates"),
        ({"gate": {"target_density": {"choice": [None, 2]}}}, {},
         "gate.target_density must be <= 1, got 2 (share of gates"),
        ({"replicates": {"data": 1}}, {"objectives": {"stability": "max"}},
         "replicates must share an init where stability is an objective, got {data: 1} "),
        ({"replicates": {"data": {"choice": [2, 1]}, "gate": {"int": [1, 2]}}},
         {"objectives": {"stability": "max"}}, "replicates must share an init"),
        ({"replicates": {"choice": [{}, {"data": 1}]}}, {"objectives": {"stability": "max"}},
         "replicates must share an init"),
        ({"gate": {"init": {"uniform": [0, 1]}}}, {"sampler": "grid"},
         "gate.init must be a choice or an int where sweep.sampler is grid, got {uniform: "),
        ({"gate": {"choice": [{"init": {"uniform": [0, 1]}}, {"init": {"int": [0, 1]}}]}}, {},
         "gate.init must be the same kind of distribution in every option that has it"),
        ({"gate": {"init": {"choice": []}}}, {}, "gate.init must be {choice: [option, …]} with"),
        ({"train": {"lr": {"uniform": [0, 1]}}}, {}, "train.lr must be > 0, got 0.0 (learning"),
        ({"train": {"steps": {"int": [-1, 0]}}}, {}, "train.steps must be >= 1, got -1"),
        ({"model": {"choice": ["fc-8", "fc-x"]}}, {}, "model must be a model this version has"),
        ({"gate": {"choice": [{}, {"temprature": 1}]}}, {}, "gate.temprature is not a setting "
                                                            "(did you mean 'temperature'?)"),
        ({"gate": {"choice": [{}, 3]}}, {}, "gate must be a mapping of settings, got 3"),
        ({1: 2}, {}, "1 is not a setting (a key must be text)"),
    ],
)  # fmt: skip
def test_a_bad_space_is_told_by_key_rule_value_and_remedy(
    tree: dict[Any, Any], block: dict[str, Any], message: str
):
    (fault,) = faults_of(tree, **block)
    assert fault.startswith(message)


@pytest.mark.parametrize(
    ("tree", "messages"),
    [
        ({"gate": {"l0_strenght": {"loguniform": [0, 10]}}},
         ["gate.l0_strenght must have low > 0, got {loguniform: [0, 10]}",
          "gate.l0_strenght is not a setting (did you mean 'l0_strength'?)"]),
        ({"sede": {"choice": []}},
         ["sede must be {choice: [option, …]} with at least one option, got {choice: []}",
          "sede is not a setting (did you mean 'seed'?)"]),
        ({"gate": {"choice": [{"init": {"uniform": [3, 1]}}, {"l0_strength": -1}]}},
         ["gate.init must have low < high, got {uniform: [3, 1]}",
          "gate.l0_strength must be >= 0, got -1 (weight of the mean gate probability in the loss; "
          "typical 0.1 to 10)"]),
        ({"replicates": {"choice": []}},
         ["replicates must be {choice: [option, …]} with at least one option, got {choice: []}"]),
        ({"gate": {"family": {"uniform": 3}}},
         ["gate.family must be {uniform: [low, high]} with two numbers, got {uniform: 3}"]),
    ],
)  # fmt: skip
def test_a_broken_distribution_hides_no_other_fault(tree: dict[str, Any], messages: list[str]):
    assert faults_of(tree, objectives={"stability": "max"}) == messages


@pytest.mark.parametrize("replicates", [3, {"choice": [3, {}]}, {"data": "x"}])
def test_replicates_of_a_wrong_form_are_one_fault_where_stability_is_searched(replicates: Any):
    (fault,) = faults_of({"replicates": replicates}, objectives={"stability": "max"})
    assert fault.startswith("replicates")


@pytest.mark.parametrize(
    ("tree", "is_advised"),
    [
        ({"gate": {"l0_strength": {"loguniform": [0, 10]}}}, True),
        ({"gate": {"init": {"int": [0.5, 2]}}}, True),
        ({"gate": {"l0_strength": {"loguniform": [-1, 10]}}}, False),
        ({"train": {"lr": {"loguniform": [0, 1]}}}, False),
        ({"train": {"steps": {"int": [0.5, 2]}}}, False),
        ({"rewind_step": {"loguniform": [0, 9]}}, False),
    ],
)
def test_uniform_is_advised_only_where_the_setting_would_take_it(
    tree: dict[str, Any], is_advised: bool
):
    (fault,) = faults_of(tree)
    assert fault.endswith("(or use uniform)") == is_advised


def test_enough_replicates_share_an_init():
    space({}, objectives={"stability": "max"})
    space({"replicates": {"data": 1, "gate": 2}}, objectives={"stability": "max"})
    space({"replicates": {"data": {"int": [2, 3]}}}, objectives={"stability": "max"})


def test_an_objective_that_every_trial_has_is_sound():
    space({"weights": "joint"}, objectives={"joint_val_accuracy": "max"})
    for steps in (1, {"int": [1, 9]}, {"choice": [5, 6]}):
        space({"retrain": {"steps": steps}}, objectives={"retrained_val_accuracy": "max"})


def test_every_figure_of_the_test_split_is_refused_with_an_objective_that_is_not():
    assert set(TEST_FIGURES.values()) <= set(OBJECTIVES)
    assert not set(TEST_FIGURES) & set(OBJECTIVES)
    test_columns = {name for name in REPLICATES.names if name.endswith("_accuracy")}
    assert test_columns - {"val_accuracy"} <= set(TEST_FIGURES)


@pytest.mark.parametrize("block", [3, "x", [1]])
def test_the_sweep_block_is_a_mapping(write, block: Any):
    path = write(json.dumps({"sweep": block}))
    with pytest.raises(ConfigError, match="sweep must be a mapping of settings"):
        load_space(path, name="n", samples=3)


def test_a_sweep_takes_its_name_from_its_file_unless_it_has_one(write):
    for text in ["", "sweep:\n", "sweep: {}\n", "sweep: {samples: 3}\n"]:
        assert read_space(write(text, "my-sweep.yaml")).settings.name == "my-sweep"
    assert read_space(write("sweep: {name: own}\n")).settings.name == "own"
    with pytest.raises(ConfigError, match=r"sweep\.name must be letters"):
        read_space(write("", "my sweep.yaml"))


@pytest.mark.parametrize("text", ["", "seed: 3\n", "sweep: {samples: 3}\n"])
def test_a_space_with_nothing_to_search_is_refused_with_both_remedies(write, text: str):
    path = write(text, "my space.yaml")
    with pytest.raises(ConfigError) as caught:
        load_space(path, name="n")
    (fault,) = caught.value.faults
    assert str(fault) == (
        "file holds no distribution, so there is nothing to search (run it with "
        f"`ticketsweep trial '{path}'`, or replace a value by {{choice: [...]}})"
    )
    assert load_space(path, name="n", settings=["seed={choice: [1]}"]).distributions()
    assert not read_space(path, name="n").distributions()


def test_the_command_line_has_the_last_word(write):
    path = write("seed: 1\ngate: {init: 0.1}\nsweep: {name: a, samples: 2}\n")
    spec = load_space(
        path, settings=["gate.init={int: [0, 1]}", "sweep.seed=4"], name="b", samples=5
    )
    assert spec.distributions() == {"gate.init": Integer(0, 1)}
    assert (spec.settings.name, spec.settings.samples, spec.settings.seed) == ("b", 5, 4)
    assert spec.source == str(path)
    with pytest.raises(ConfigError, match=r"sweep\.name must be letters"):
        load_space(path, name="a/b")


def test_a_single_trial_needs_neither_file_nor_sweep(write):
    assert load_trial(None) == TrialConfig()
    path = write("seed: 4\nweights: {choice: [frozen]}\nsweep: {name: 3}\n")
    assert load_trial(path, settings=["weights=frozen"]).seed == 4


def test_a_single_trial_with_a_distribution_left_is_refused_with_all_other_faults(write):
    path = write("seed: {int: [0, 9]}\nmodl: 3\ngate: {init: [], init: 3, l0_strength: -1}\n")
    with pytest.raises(ConfigError) as caught:
        load_trial(path)
    assert [str(fault).split(" (")[0] for fault in caught.value.faults] == [
        "gate.init must be given once",
        "gate.l0_strength must be >= 0, got -1",
        "modl is not a setting",
        "seed must be one value for a single trial, got {int: [0, 9]}",
    ]
    with pytest.raises(ConfigError, match="--set: 1 fault\n  seed must be a whole number"):
        load_trial(None, settings=["seed=x"])


WORDS = st.sampled_from(
    ["model", "gate", "train", "lr", "init", "sweep", "name", "samples", "objectives", "replicates",
     "uniform", "loguniform", "int", "choice", "loss", "stability", "zzz", "family", "seed",
     "controls", "retrain", "steps", "include", "retrained_val_accuracy", "joint_val_accuracy"]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=15,
)


@given(st.dictionaries(WORDS, VALUES, max_size=5))
@settings(max_examples=300, suppress_health_check=list(HealthCheck), deadline=None)
def test_any_mapping_is_a_space_or_a_config_error(write, raw: dict[str, Any]):
    path = write(json.dumps(raw).replace("NaN", ".nan").replace("Infinity", ".inf"))
    for load in (load_space, load_trial):
        with contextlib.suppress(ConfigError):
            load(path)


def test_every_published_space_is_sound():
    folder = Path(__file__).parents[1] / "search_spaces"
    for path in folder.glob("*.yaml"):
        read_space(path).sample(Drawn(0))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"device": "cuda"}, "device must be auto or cpu where sweep.resources.gpus is 0"),
        ({"sweep": {"resources": {"gpus": 1.5}}}, "must be at most 1 or a whole number"),
        ({"sweep": {"resources": {"gpus": 5}}}, "sweep.resources.gpus must be <= 4: no trial"),
        (
            {
                "train": {"steps": {"choice": [50, 100]}},
                "sweep": {"scheduler": {"asha": {"grace_steps": 50}}},
            },
            "sweep.scheduler.asha.grace_steps must be < train.steps, 50",
        ),
    ],
)
def test_settings_that_would_be_without_effect_are_refused(raw: dict[str, Any], message: str):
    searched = {"gate": {"l0_strength": {"uniform": [1.0, 2.0]}}, "sweep": {"name": "s"}}
    raw = searched | raw
    raw["sweep"] = {"name": "s"} | raw["sweep"]
    with pytest.raises(ConfigError) as caught:
        parse_space(raw, source="x.yaml")
    assert message in " ".join(str(caught.value).split())
