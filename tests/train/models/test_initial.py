from __future__ import annotations

import hashlib
import math

import pytest
import torch
from torch import Tensor, nn

from ticketsweep.errors import ModelError
from ticketsweep.train.models import WEIGHT_INITS, build_model, initial_parameters, prunable

INITS = ["default", *WEIGHT_INITS]
MODELS = ["fc-9", "lenet-5", "resnet-20", "resnet18", "vit_tiny", "swin_t"]
GOLDEN = {  # stored results hang on these bits: they were drawn by version 0.1
    ("lenet-300-100", "default"): "0995d3fd2de2ebf3",
    ("lenet-300-100", "uniform"): "680c49abd9dba9f3",
    ("lenet-300-100", "signed_constant"): "34c318a475046603",
    ("lenet-300-100", "kaiming_normal"): "8005adc179a45203",
    ("fc-100-50", "default"): "faac8d12d3036eef",
    ("fc-100-50", "uniform"): "617af0cff3aed810",
    ("fc-100-50", "signed_constant"): "1b3e7dd8c87d14a6",
    ("fc-100-50", "kaiming_normal"): "006040aeacb167fa",
}


def named(name: str) -> nn.Module:
    return build_model(name, input_shape=(1, 28, 28), classes=10, width=0.25)


def wide(name: str) -> nn.Module:
    return build_model(name, input_shape=(1, 28, 28), classes=10)


def biased() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4))


@pytest.mark.parametrize(("name", "weight_init"), list(GOLDEN))
def test_initial_weights_never_change(name: str, weight_init: str) -> None:
    digest = hashlib.blake2b(digest_size=8)
    values = initial_parameters(
        lambda: wide(name), prunable(wide(name)), weight_init=weight_init, weight_scale=1.5, seed=7
    )
    for key, value in values.items():
        digest.update(key.encode())
        digest.update(value.numpy().tobytes())
    assert digest.hexdigest() == GOLDEN[name, weight_init]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("weight_init", INITS)
def test_initial_parameters_are_a_function_of_the_seed(name: str, weight_init: str) -> None:
    gated = prunable(named(name))

    def draw(seed: int) -> dict[str, Tensor]:
        torch.rand(seed)  # wherever the global generator stands
        return initial_parameters(
            lambda: named(name), gated, weight_init=weight_init, weight_scale=1.0, seed=seed
        )

    first, again, other = draw(1), draw(1), draw(2)
    state = torch.get_rng_state()
    draw(0)
    assert torch.equal(state, torch.get_rng_state())
    assert list(first) == [key for key, _ in named(name).named_parameters()]
    for key, value in first.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, again[key])
        if key in gated and (weight_init != "default" or not key.startswith("heads.")):
            assert not torch.equal(value, other[key])


@pytest.mark.parametrize("weight_init", INITS)
def test_adding_a_layer_moves_no_other_weights(weight_init: str) -> None:
    short, long = (
        initial_parameters(
            lambda name=name: wide(name),  # type: ignore[misc]
            prunable(wide(name)),
            weight_init=weight_init,
            weight_scale=1.0,
            seed=3,
        )
        for name in ("fc-9-7", "fc-9-7-5")
    )
    assert torch.equal(short["fc1.weight"], long["fc1.weight"])
    assert torch.equal(short["fc2.weight"], long["fc2.weight"])


@pytest.mark.parametrize("weight_init", INITS)
def test_the_scale_multiplies_gated_weights_of_two_dimensions_alone(weight_init: str) -> None:
    once, thrice = (
        initial_parameters(
            biased,
            ["0.weight", "0.bias", "1.weight"],
            weight_init=weight_init,
            weight_scale=scale,
            seed=3,
        )
        for scale in (1.0, 3.0)
    )
    torch.testing.assert_close(once["0.weight"] * 3, thrice["0.weight"])
    for name in ("0.bias", "1.weight", "1.bias"):
        assert torch.equal(once[name], thrice[name])


def test_what_a_constructor_sets_is_kept() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token = nn.Parameter(torch.randn(3))
            self.linear = nn.Linear(2, 2)
            nn.init.constant_(self.linear.bias, 0.25)

    values = initial_parameters(
        Own, ["linear.weight"], weight_init="uniform", weight_scale=1.0, seed=5
    )
    assert values["linear.bias"].tolist() == [0.25, 0.25]
    assert values["token"].std() > 0
    chain = initial_parameters(
        lambda: nn.Sequential(Own().linear), [], weight_init="default", weight_scale=1.0, seed=5
    )
    assert chain["0.bias"].tolist() == [0.25, 0.25]


@pytest.mark.parametrize("weight_init", sorted(WEIGHT_INITS))
@pytest.mark.parametrize(
    ("layer", "name", "fan_in"),
    [
        (lambda: nn.Conv2d(20, 100, 3, bias=False), "weight", 180),
        (lambda: nn.MultiheadAttention(120, 2), "in_proj_weight", 120),
    ],
)
def test_every_distribution_has_variance_two_over_fan_in(
    weight_init: str, layer: type[nn.Module], name: str, fan_in: int
) -> None:
    weight = initial_parameters(layer, [name], weight_init=weight_init, weight_scale=1.0, seed=0)[
        name
    ]
    assert float(weight.mean()) == pytest.approx(0, abs=2e-3)
    assert float(weight.var()) == pytest.approx(2 / fan_in, rel=0.03)
    if weight_init == "signed_constant":
        assert weight.abs().unique().tolist() == pytest.approx([math.sqrt(2 / fan_in)])
    if weight_init == "uniform":
        assert float(weight.abs().max()) <= math.sqrt(6 / fan_in)


def test_an_unknown_init_is_refused() -> None:
    with pytest.raises(ModelError, match="did you mean 'uniform'"):
        initial_parameters(biased, [], weight_init="unifrom", weight_scale=1.0, seed=0)
