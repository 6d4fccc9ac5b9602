"""The search spaces that are shipped can be run, and the small ones are small."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from ticketsweep.config import TrialConfig, parse_config
from ticketsweep.distributions import corners
from ticketsweep.planning import check_trial
from ticketsweep.space import SweepSpec, read_space
from ticketsweep.train.data import Dataset
from ticketsweep.train.models import build_model

FOLDER = Path(__file__).parents[1] / "search_spaces"
FILES = sorted(FOLDER.glob("*.yaml"))
SMALL = [path for path in FILES if path.stem.endswith("_small")]
SWEPT = [
    path
    for path in FILES
    if read_space(path).distributions() and path not in SMALL and path.stem != "quickstart"
]
SHAPES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "cifar10": (3, 32, 32)}


def configurations(spec: SweepSpec) -> list[TrialConfig]:
    """The space's corners: each option and end of each distribution, once."""
    return [parse_config(raw, source=spec.source) for raw in corners(spec.tree)]


def distinct(configurations: list[TrialConfig]) -> list[TrialConfig]:
    """One configuration of each model and way of gating it."""

    def kind(config: TrialConfig) -> str:
        gate = config.gate
        return repr((config.model, config.width, config.activation, gate.granularity, gate.inputs))

    return list({kind(config): config for config in configurations}.values())


def blank(name: str) -> Dataset:
    """A data set of the shape and classes of the one so named, with 60 black images a class."""
    labels = np.arange(600, dtype=np.int64) % 10
    images = np.zeros((600, *SHAPES[name]), dtype=np.uint8)
    return Dataset(name, images, labels, images, labels, classes=10, digest="")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_trial_of_a_space_fits_its_model_and_its_images(path: Path):
    for config in distinct(configurations(read_space(path))):
        check_trial(config, blank(config.dataset))


@pytest.mark.parametrize("path", SWEPT, ids=lambda path: path.name)
def test_an_experiment_has_a_small_variant_that_gates_alike(path: Path):
    small = FOLDER / f"{path.stem}_small.yaml"
    assert small in SMALL

    def ways(space: Path) -> set[tuple[str, ...]]:
        return {
            (c.gate.family, c.gate.granularity, str(c.gate.inputs), c.weights)
            for c in configurations(read_space(space))
        }

    assert ways(small) == ways(path)


@pytest.mark.parametrize("path", SMALL, ids=lambda path: path.name)
def test_a_small_variant_is_cheap(path: Path):
    spec = read_space(path)
    assert spec.settings.resources.gpus == 0
    for config in configurations(spec):
        replicates = math.prod(config.replicates.model_dump().values())
        steps = config.train.steps + config.rewind_step + config.retrain.steps
        assert spec.settings.samples * replicates * steps <= 60_000
        if config.dataset == "cifar10":
            assert steps <= 150
            assert replicates <= 2
    for config in distinct(configurations(spec)):
        shape = SHAPES[config.dataset]
        model = build_model(config.model, input_shape=shape, classes=10, width=config.width)
        assert sum(parameter.numel() for parameter in model.parameters()) <= 500_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_space_names_its_sweep_after_its_file(path: Path):
    spec = read_space(path)
    if spec.distributions():
        assert spec.settings.name == path.stem.replace("_", "-")
