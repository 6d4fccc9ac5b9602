from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ticketsweep.config import (
    EXECUTION_FIELDS,
    TrialConfig,
    parse_config,
    trial_id,
    validate,
)
from ticketsweep.errors import ConfigError
from ticketsweep.families import FAMILIES, GateSection
from ticketsweep.names import CONTROLS, DATASETS, FACTORY, GATES, MODELS

GOLDEN = Path(__file__).parent / "golden" / "trial_ids.json"
# Another valid value of each setting whose type alone does not tell one.
OTHER_TEXT = {"model": "fc-64", "dataset": "mnist", "data_root": "elsewhere"}


def leaves(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, FieldInfo, Any]]:
    """Every setting as (dotted key, field, default)."""
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field, value


def others(key: str, field: FieldInfo, value: Any) -> list[Any]:
    """Other valid values of a setting."""
    if get_origin(field.annotation) is Literal:
        return [option for option in get_args(field.annotation) if option != value]
    if key in OTHER_TEXT:
        return [OTHER_TEXT[key]]
    if isinstance(value, list):
        (of,) = get_args(field.annotation)
        return [["fc1.*"]] if of is str else [[name] for name in get_args(of)]
    if isinstance(value, bool):
        return [not value]
    if int in get_args(field.annotation):
        return [8]
    if isinstance(value, int):
        return [value + 1]
    return [value * 0.5] if value else [0.25]


def nested(key: str, value: Any) -> dict[str, Any]:
    """The setting by itself, and with it what it cannot be without."""
    for part in reversed(key.split(".")):
        value = {part: value}
    if key.startswith("retrain.") and key != "retrain.steps":
        value["retrain"]["steps"] = 7
    return value


LEAVES = [(key, others(key, field, value)) for key, field, value in leaves(TrialConfig())]
GATE_LEAVES = [
    pytest.param({"family": family}, name, others(name, field, value), id=f"{family}.{name}")
    for family, section in FAMILIES.items()
    for name, field, value in leaves(section())
    if name != "family"
]


def identity(raw: dict[str, Any], data_digest: str = "d", model_digest: str | None = None) -> str:
    config = parse_config(raw, source="test")
    return trial_id(config, data_digest=data_digest, model_digest=model_digest)


def faults_of(raw: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_config(raw, source="test")
    return [str(fault) for fault in caught.value.faults]


def test_trial_ids_never_change():
    """A changed id means that no stored trial is found again.

    A field that is added must leave these ids alone while it has the value that reproduces the old
    behaviour. Only where the same configuration trains to another result (FINGERPRINT_FORMAT) are
    new ids in order.
    """
    for case in json.loads(GOLDEN.read_text()):
        found = identity(case["config"], case["data_digest"], case.get("model_digest"))
        assert found == case["id"], case


@pytest.mark.parametrize(("key", "values"), LEAVES, ids=[key for key, _ in LEAVES])
def test_the_id_differs_for_every_setting_that_decides_the_result(key: str, values: list[Any]):
    ids = {identity({}), *(identity(nested(key, value)) for value in values)}
    assert len(ids) == (1 if key in EXECUTION_FIELDS else 1 + len(values))


def test_what_changes_no_result_changes_no_id():
    off = {"steps": 0, "lr": 0.5}
    assert identity({"retrain": off}) == identity({})
    patterns = (["a*", "b*"], ["b*", "a*"], ["b*", "a*", "b*"])
    assert len({identity({"gate": {"exclude": written}}) for written in patterns}) == 1


@pytest.mark.parametrize(("gate", "name", "values"), GATE_LEAVES)
def test_the_id_differs_for_every_setting_of_a_gate_family(
    gate: dict[str, Any], name: str, values: list[Any]
):
    ids = {identity({"gate": gate}), *(identity({"gate": gate | {name: v}}) for v in values)}
    assert len(ids) == 1 + len(values)


def test_every_family_has_its_own_id():
    assert len({identity({"gate": {"family": family}}) for family in FAMILIES}) == len(FAMILIES)


def test_a_field_added_later_is_left_out_of_the_id_while_it_reproduces_the_old_behaviour():
    gate = parse_config({"gate": {"l0_warmup": 0}}, source="test").science()["gate"]
    assert "l0_warmup" not in gate
    assert gate == {
        "family": "gaussian", "granularity": "weight", "init": 0.5, "l0_strength": 1.0,
        "temperature": 1.0, "temperature_end": 0.05, "temperature_schedule": "exponential",
    }  # fmt: skip
    later = parse_config({"gate": {"l0_warmup": 0.1}}, source="test").science()
    assert later["gate"] == gate | {"l0_warmup": 0.1}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_configuration_survives_json(family: str):
    config = parse_config({"gate": {"family": family}}, source="test")
    assert TrialConfig.model_validate_json(config.model_dump_json()) == config
    assert type(config.gate) is FAMILIES[family]


def test_every_execution_field_is_a_setting():
    assert set(TrialConfig.model_fields) >= EXECUTION_FIELDS


def test_the_id_is_that_of_the_values_not_of_how_they_are_written():
    assert identity({"weight_scale": 1, "gate": {"init": 0}}) == identity(
        {"gate": {"init": -0.0}, "weight_scale": 1.0}
    )
    assert identity(TrialConfig().model_dump()) == identity({})


def test_a_folder_counts_by_its_content():
    here, there = {"dataset": "parquet:/here"}, {"dataset": "parquet:/there"}
    assert identity(here, "a") == identity(there, "a") != identity(here, "b")
    assert identity({"dataset": "mnist"}, "a") == identity({"dataset": "mnist"}, "b")


def test_ones_own_model_counts_by_its_name_and_its_source():
    own = {"model": "mynet:net"}
    ids = {identity(own, "d", digest) for digest in ("a", "b")}
    ids |= {identity({"model": "mynet:wide"}, "d", "a"), identity({})}
    assert len(ids) == 4


def test_ones_own_data_counts_by_its_content():
    here, there = {"dataset": "mydata:load"}, {"dataset": "moved.mydata:load"}
    assert identity(here, "a") == identity(there, "a") != identity(here, "b")
    assert identity(here, "a") != identity({"dataset": "parquet:mydata"}, "a")


def test_the_order_in_which_lists_of_names_are_written_is_of_no_effect():
    both = [["random_mask", "shuffled_mask"], ["shuffled_mask", "random_mask"]]
    assert len({identity({"controls": names}) for names in both}) == 1


def test_an_id_is_16_hexadecimal_digits():
    assert re.fullmatch(r"[0-9a-f]{16}", identity({}))


@pytest.mark.parametrize("name", ["lenet-300-100", "fc-1", "fc-500-500-500", "vit_tiny", "a.b:c"])
def test_known_models(name: str):
    assert parse_config({"model": name}, source="test").model == name


@pytest.mark.parametrize(
    "name", ["digits", "cifar100", "parquet:a/b", "parquet:C:x", "imagefolder:/a b", "a.b:c"]
)
def test_known_data_sets(name: str):
    assert parse_config({"dataset": name}, source="test").dataset == name


KNOWN_FAMILIES = "gaussian, hard_concrete, sigmoid, edge_popup, magnitude, random"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"modle": "x"}, "modle is not a setting (did you mean 'model'?)"),
        ({"swep": {}}, "swep is not a setting (did you mean 'sweep'?)"),
        ({"gate": {"L0_Strength": 1}}, "gate.L0_Strength is not a setting "
                                       "(did you mean 'l0_strength'?)"),
        ({"train": {"zzz": 1}}, "train.zzz is not a setting "
                                "(known: augment, batch_size, clip_norm, lr"),
        ({1: 2}, "1 is not a setting (known: activation, checkpoint_seconds"),
        ({"gate": {None: 2}}, "gate.None is not a setting (known: exclude, family"),
        ({"model": "resnet"}, "model must be a model this version has, got 'resnet' "
                              "(did you mean 'resnet50'?)"),
        ({"model": "zzz"}, "model must be a model this version has, got 'zzz' "
                           "(known: conv-2, conv-4, conv-6"),
        ({"model": "package.module:"}, "model must be a model this version has, got 'package.mod"),
        ({"model": "my net:f"}, "model must be a model this version has, got 'my net:f'"),
        ({"model": "fc-0"}, "model must be a model this version has, got 'fc-0' (known"),
        ({"model": "fc-H1-H2-…"}, "model must be a model this version has, got 'fc-H1-H2-…'"),
        ({"model": "fc-1\n"}, r"model must be a model this version has, got 'fc-1\n'"),
        ({"model": 3}, "model must be text, got 3"),
        ({"model": b"x"}, "model must be text, got b'x'"),
        ({"dataset": "mnits"}, "dataset must be a data set this version has, got 'mnits' "
                               "(did you mean 'mnist'?)"),
        ({"dataset": "parquet:"}, "dataset must be a data set this version has, got 'parquet:' "
                                  "(did you mean 'parquet:DIR'?)"),
        ({"dataset": {"parquet": None}}, "dataset must be text, got {parquet: null} "
                                         "(write parquet:DIR, without a space)"),
        ({"dataset": {"folder": "x"}}, "dataset must be text or a distribution, got {folder: 'x'}"),
        ({"seed": -1}, "seed must be >= 0, got -1 (root of every seed"),
        ({"dataset": "mnist:"}, "dataset must be a data set this version has, got 'mnist:'"),
        ({"dataset": "a b:c"}, "dataset must be a data set this version has, got 'a b:c'"),
        ({"dataset": {"imagefolder": "x"}}, "dataset must be text, got {imagefolder: 'x'} "
                                            "(write imagefolder:DIR, without a space)"),
        ({"controls": ["shufled_mask"]},
         "controls.0 must be shuffled_mask, reinitialized or random_mask, got 'shufled_mask' "
         "(did you mean 'shuffled_mask'?)"),
        ({"controls": ["random_mask", 3]}, "controls.1 must be shuffled_mask, reinitialized or "),
        ({"controls": ["random_mask", "random_mask"]}, "controls must name a control once, got ["),
        ({"controls": "random_mask"}, "controls must be a list, got 'random_mask' (shuffled_mask"),
        ({"controls": {"chioce": [[]]}}, "controls must be a list or a distribution, got {chioce: "
                                         "[[]]} (did you mean 'choice'?)"),
        ({"gate": {"include": [3]}}, "gate.include.0 must be text, got 3"),
        ({"gate": {"exclude": "fc1.*"}}, "gate.exclude must be a list, got 'fc1.*' (patterns of"),
        ({"gate": {"inputs": 1}}, "gate.inputs must be true or false, got 1 (gates on the inputs"),
        ({"gate": {"family": "magnitude", "granularity": "neuron"}},
         "gate.granularity must be weight, got 'neuron'"),
        ({"gate": {"target_density": 0}}, "gate.target_density must be > 0, got 0 (share of gates"),
        ({"image_size": 2.5}, "image_size must be a whole number, got 2.5 (pixels a side"),
        ({"train": {"clip_norm": "x"}}, "train.clip_norm must be a number, got 'x' (longest"),
        ({"retrain": {"lr": 0.1}}, "retrain.steps is required where retrain is set (of retraining"),
        ({"retrain": {"steps": -1}}, "retrain.steps must be >= 0, got -1 (of retraining; 0: none"),
        ({"data_root": ""}, "data_root must not be empty, got '' (folder of"),
        ({"validation": 0}, "validation must be > 0, got 0 (share of the training split"),
        ({"validation": 1}, "validation must be < 1, got 1 (share of the training split"),
        ({"rewind_step": 1e9 + 1}, "rewind_step must be a whole number, got 1000000001.0 "
                                   "(write 1000000001)"),
        ({"rewind_step": 10**9 + 1}, "rewind_step must be <= 1000000000, got 1000000001"),
        ({"seed": 2**53}, "seed must be < 9007199254740992, got 9007199254740992"),
        ({"seed": 1 << 9999}, "seed must be < 9007199254740992, got a whole number of 10000 bits"),
        ({"seed": True}, "seed must be a whole number, got true"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5 (root of"),
        ({"seed": None}, "seed must be a whole number, got null"),
        ({"seed": math.inf}, "seed must be a whole number, got inf"),
        ({"weight_scale": False}, "weight_scale must be a number, got false"),
        ({"weight_scale": math.nan}, "weight_scale must be a finite number, got nan"),
        ({"weight_scale": -math.inf}, "weight_scale must be a finite number, got -inf"),
        ({"weight_scale": 1 << 9999}, "weight_scale must be a number, got a whole number of"),
        ({"weight_scale": "1e-3"}, "weight_scale must be a number, got '1e-3' (multiplies"),
        ({"weight_scale": [1]}, "weight_scale must be a number, got [1]"),
        ({"gate": {"temperature": -0.5}}, "gate.temperature must be > 0, got -0.5 (sigma of"),
        ({"gate": {"temperature": {"unifrm": [1, 2]}}},
         "gate.temperature must be a number or a distribution, got {unifrm: [1, 2]} "
         "(did you mean 'uniform'?)"),
        ({"gate": []}, "gate must be a mapping of settings, got []"),
        ({"gate": None}, "gate must be a mapping of settings, got null"),
        ({"gate": 3}, "gate must be a mapping of settings, got 3"),
        ({"gate": {"family": "gausian"}}, f"gate.family must be one of {KNOWN_FAMILIES}, "
                                          "got 'gausian' (did you mean 'gaussian'?)"),
        ({"gate": {"family": "snip", "density": 3}}, f"gate.family must be one of "
                                                     f"{KNOWN_FAMILIES}, got 'snip'"),
        ({"gate": {"family": None}}, f"gate.family must be one of {KNOWN_FAMILIES}, got null"),
        ({"gate": {"family": ["random"]}}, f"gate.family must be one of {KNOWN_FAMILIES}, got ['r"),
        ({"gate": {"density": 0.1}}, "gate.density is not a setting of this gate family "
                                     "(gaussian; edge_popup and random have it)"),
        ({"gate": {"family": "random", "init": 1}},
         "gate.init is not a setting of this gate family "
         "(random; gaussian, hard_concrete and sigmoid have it)"),
        ({"gate": {"family": "random", "scope": "layer"}},
         "gate.scope is not a setting of this gate family (random; magnitude has it)"),
        ({"gate": {"family": "edge_popup", "densty": 0.1}},
         "gate.densty is not a setting (did you mean 'density'?)"),
        ({"gate": {"family": "edge_popup", "gaussian": {"init": 1}}},
         "gate.gaussian is not a setting (known: density, exclude, family, granularity, include, "),
        ({"gate": {"family": "edge_popup", "density": 0}}, "gate.density must be > 0, got 0 "
                                                           "(share of each layer's weights"),
        ({"gate": {"family": "random", "density": 1.5}}, "gate.density must be <= 1, got 1.5"),
        ({"gate": {"family": "random", "density": [1]}}, "gate.density must be a number, got [1]"),
        ({"gate": {"family": "magnitude", "rounds": 0}}, "gate.rounds must be >= 1, got 0 (of tr"),
        ({"gate": {"family": "magnitude", "share": 1}}, "gate.share must be < 1, got 1 (of the"),
        ({"gate": {"family": "magnitude", "scope": "layers"}},
         "gate.scope must be global or layer, got 'layers' (did you mean 'layer'?)"),
        ({"gate": {"family": "sigmoid", "temperature": {"unifrm": [1, 2]}}},
         "gate.temperature must be a number or a distribution, got {unifrm: [1, 2]} "),
        ({"train": {"optimizer": "lbfgs"}}, "train.optimizer must be adam or sgd, got 'lbfgs'"),
        ({"train": {"optimizer": ["adam"]}}, "train.optimizer must be adam or sgd, got ['adam']"),
        ({"train": {"optimizer": {}}}, "train.optimizer must be adam or sgd, got {}"),
        ({"device": "gpu"}, "device must be auto, cpu or cuda, got 'gpu'"),
        ({"replicates": {"init": 0}}, "replicates.init must be >= 1, got 0 (seeds of the initial"),
        ({"replicates": 3}, "replicates must be a mapping of settings, got 3"),
    ],
)  # fmt: skip
def test_a_bad_value_is_told_by_key_rule_value_and_remedy(raw: dict[str, Any], message: str):
    (fault,) = faults_of(raw)
    assert fault.startswith(message)
    assert len(fault) < 300


WRONG = [None, True, -1, 0, 2.5, math.nan, math.inf, 1 << 9999, "", "x" * 9999, "\ud800", b"\xff",
         [], [[]], {}, {"a": 1}, {1: {2: 3}}, {"uniform": [1, 2], "int": 3}, object()]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_every_setting_of_every_family_is_checked(family: str):
    for name, field in FAMILIES[family].model_fields.items():
        wrong = [value for value in (None, [], "\ud800", object()) if value != field.get_default()]
        for value in wrong:
            (fault,) = validate(TrialConfig, {"gate": {"family": family, name: value}})
            assert str(fault).startswith(f"gate.{name} must be ")


@pytest.mark.parametrize("key", [key for key, _ in LEAVES] + ["gate", "train", "zzz", "gate.zzz"])
def test_no_wording_of_a_library_reaches_the_user(key: str):
    ours = re.compile(" must be | must not be empty| is not a setting| is required")
    theirs = re.compile(r"\b(input|valid|value|error|instance|pydantic|https?)\b", re.IGNORECASE)
    refused = 0
    for value in WRONG:
        faults = validate(TrialConfig, nested(key, value))
        refused += bool(faults)
        for fault in map(str, faults):
            assert ours.search(fault), fault
            assert not theirs.search(fault), fault
    assert refused >= len(WRONG) - 4  # a number or two of them suit a setting, and {} a block


def test_all_faults_are_reported_at_once_and_each_once():
    raw = {"modl": 1, "seed": -1, "gate": {"init": "x", "lr": 1}, "replicates": {"init": 0}}
    faults = [fault.split()[0] for fault in faults_of(raw)]
    assert sorted(faults) == ["gate.init", "gate.lr", "modl", "replicates.init", "seed"]


def test_every_fault_of_a_gate_is_reported_whatever_its_family():
    raw = {"gate": {"family": "magnitude", "rounds": 0, "share": "x", "l0_strength": 1, "z": 0}}
    faults = [fault.split()[0] for fault in faults_of(raw)]
    assert sorted(faults) == ["gate.l0_strength", "gate.rounds", "gate.share", "gate.z"]


def test_a_configuration_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        TrialConfig().seed = 1  # type: ignore[misc]


def test_the_catalogues_agree_with_what_can_be_built():
    models = pytest.importorskip("ticketsweep.train.models")
    data = pytest.importorskip("ticketsweep.train.data")
    named = {name for name in MODELS if "…" not in name} - {FACTORY}
    assert named == set(models.FACTORIES)
    assert {name for name in DATASETS if ":" not in name} == set(data.LOADERS)
    controls = pytest.importorskip("ticketsweep.train.controls")
    assert list(CONTROLS) == list(controls.CONTROLS)
    gates = pytest.importorskip("ticketsweep.train.gates")
    assert list(GATES) == list(FAMILIES) == list(gates.FAMILIES)
    for family, section in FAMILIES.items():
        assert get_args(section.model_fields["family"].annotation) == (family,)
        fields = {field.name for field in dataclasses.fields(gates.FAMILIES[family])}
        assert fields == set(section.model_fields) - set(GateSection.model_fields) - {"family"}
