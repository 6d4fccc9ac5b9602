"""The command of a ticket, typed again, means the same trial."""

from __future__ import annotations

import shlex

import pytest

from ticketsweep.config import TrialConfig, trial_id
from ticketsweep.report.commands import export, run_again
from ticketsweep.space import load_trial

CONFIGS = [
    {},
    {"model": "fc-100-50", "gate": {"family": "edge_popup", "density": 0.1}, "seed": 3},
    {"gate": {"family": "magnitude", "rounds": 4, "share": 0.2, "scope": "layer"}},
    {"gate": {"family": "sigmoid", "l0_strength": 1e-05}, "retrain": {"steps": 10, "lr": 0.002}},
    {"gate": {"granularity": "neuron", "exclude": ["conv1.*", "fc 1"]}, "model": "lenet-5"},
    {"dataset": "parquet:/a folder/it's", "controls": ["random_mask"], "train": {"clip_norm": 1}},
    {"replicates": {"init": 5, "gate": 2}, "weight_init": "default", "rewind_step": 100},
]


@pytest.mark.parametrize("raw", CONFIGS)
def test_a_ticket_is_run_again_by_its_command(raw: dict) -> None:
    config = TrialConfig.model_validate(raw)
    line = run_again({"config": config.model_dump_json()}, storage="s3://b/a store")
    assert line is not None
    words = shlex.split(line)
    assert words[:2] == ["ticketsweep", "trial"]
    assert words[-2:] == ["--storage", "s3://b/a store"]
    settings = words[3:-2:2]
    again = load_trial(None, settings=settings)
    assert trial_id(again, data_digest="d") == trial_id(config, data_digest="d")


def test_an_imported_trial_has_no_command_but_its_masks() -> None:
    row = {"config": '{"imported": {}}', "trial_id": "0123456789abcdef"}
    assert run_again(row, storage=None) is None
    assert export(row, storage=None).split()[3] == "0123456789abcdef"
