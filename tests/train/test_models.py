from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ticketsweep.errors import ModelError
from ticketsweep.train.models import (
    FACTORIES,
    WEIGHT_INITS,
    build_model,
    initial_weights,
    prunable,
)

SHAPE = (1, 8, 8)
INITS = ["default", *WEIGHT_INITS]


def fc(name: str) -> nn.Module:
    return build_model(name, input_shape=SHAPE, classes=10)


@pytest.mark.parametrize("name", [*FACTORIES, "fc-5", "fc-100-50"])
def test_a_model_maps_images_to_logits(name: str) -> None:
    assert fc(name)(torch.zeros(3, *SHAPE)).shape == (3, 10)


def test_lenet_has_its_266200_weights() -> None:
    model = build_model("lenet-300-100", input_shape=(1, 28, 28), classes=10)
    assert prunable(model) == ["fc1.weight", "fc2.weight", "fc3.weight"]
    assert sum(p.numel() for p in model.parameters()) == 266_200


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lenet-300-10", "did you mean 'lenet-300-100'"),
        ("fc-", "must be a known name"),
        ("fc-10-0", "hidden widths must be >= 1"),
        ("nothing", "known: fc-H1-H2-…, lenet-300-100"),
    ],
)
def test_an_unknown_model_is_refused_with_a_hint(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        fc(name)


def test_weights_of_convolutions_and_linear_layers_are_prunable_alone() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 4))
    assert prunable(model) == ["0.weight", "3.weight"]
    with pytest.raises(ModelError, match="must have a prunable parameter"):
        prunable(nn.Sequential(nn.BatchNorm2d(2)))


@pytest.mark.parametrize("weight_init", INITS)
def test_initial_weights_are_a_function_of_the_seed(weight_init: str) -> None:
    model = fc("fc-9")

    def draw(seed: int) -> dict[str, torch.Tensor]:
        return initial_weights(model, weight_init=weight_init, weight_scale=1.0, seed=seed)

    state = torch.get_rng_state()
    first, again, other = draw(1), draw(1), draw(2)
    assert torch.equal(state, torch.get_rng_state())
    for name, weight in first.items():
        assert torch.equal(weight, again[name])
        assert not torch.equal(weight, other[name])


@pytest.mark.parametrize("weight_init", INITS)
def test_adding_a_layer_moves_no_other_weights(weight_init: str) -> None:
    short, long = (
        initial_weights(fc(name), weight_init=weight_init, weight_scale=1.0, seed=3)
        for name in ("fc-9-7", "fc-9-7-5")
    )
    assert torch.equal(short["fc1.weight"], long["fc1.weight"])
    assert torch.equal(short["fc2.weight"], long["fc2.weight"])


@pytest.mark.parametrize("weight_init", INITS)
def test_the_scale_multiplies_prunable_weights_alone(weight_init: str) -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4))
    once, thrice = (
        initial_weights(model, weight_init=weight_init, weight_scale=scale, seed=3)
        for scale in (1.0, 3.0)
    )
    torch.testing.assert_close(once["0.weight"] * 3, thrice["0.weight"])
    for name in ("0.bias", "1.weight", "1.bias"):
        assert torch.equal(once[name], thrice[name])


@pytest.mark.parametrize("weight_init", sorted(WEIGHT_INITS))
def test_every_distribution_has_variance_two_over_fan_in(weight_init: str) -> None:
    model = nn.Sequential(nn.Conv2d(20, 100, 3, bias=False))
    weight = initial_weights(model, weight_init=weight_init, weight_scale=1.0, seed=0)["0.weight"]
    assert float(weight.mean()) == pytest.approx(0, abs=1e-3)
    assert float(weight.var()) == pytest.approx(2 / 180, rel=0.03)
    if weight_init == "signed_constant":
        assert weight.abs().unique().tolist() == pytest.approx([math.sqrt(2 / 180)])
    if weight_init == "uniform":
        assert float(weight.abs().max()) <= math.sqrt(6 / 180)


def test_an_unknown_init_is_refused() -> None:
    with pytest.raises(ModelError, match="did you mean 'uniform'"):
        initial_weights(fc("fc-3"), weight_init="unifrom", weight_scale=1.0, seed=0)
