from __future__ import annotations

import pytest
from torch import nn

from ticketsweep.errors import ModelError
from ticketsweep.train.models import build_model, prunable


def test_weights_of_linear_and_convolution_layers_are_prunable_alone() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 4))
    assert prunable(model) == ["0.weight", "3.weight"]
    with pytest.raises(ModelError, match="must have a prunable parameter"):
        prunable(nn.Sequential(nn.BatchNorm2d(2)))


@pytest.mark.parametrize("name", ["vit_tiny", "swin_t"])
def test_no_bias_norm_embedding_or_class_token_is_prunable(name: str) -> None:
    model = build_model(name, input_shape=(3, 32, 32), classes=10, width=0.25)
    shapes = dict(model.named_parameters())
    gated = prunable(model)
    assert all(shapes[key].ndim in {2, 4} for key in gated)
    assert not [key for key in gated if key.endswith(("token", "embedding", "bias", "table"))]
    total = sum(value.numel() for value in shapes.values())
    assert sum(shapes[key].numel() for key in gated) > 0.9 * total
    if name == "vit_tiny":
        block = "encoder.layers.encoder_layer_0."
        assert [key.removeprefix(block) for key in gated if key.startswith(block)] == [
            "self_attention.in_proj_weight",
            "self_attention.out_proj.weight",
            "mlp.0.weight",
            "mlp.3.weight",
        ]


def test_patterns_choose_what_is_gated() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 4))
    assert prunable(model, exclude=["0.*"]) == ["3.weight"]
    assert prunable(model, include=["*.bias"]) == ["0.bias", "1.bias", "3.bias"]
    assert prunable(model, include=["3.*", "0.*"], exclude=["*.bias"]) == ["0.weight", "3.weight"]
    for options, message in (
        ({"include": ["fc*"]}, r"gate.include must match a parameter, got 'fc\*' .*0.weight"),
        ({"exclude": ["1.weight"]}, "gate.exclude must match a parameter, got '1.weight'"),
        ({"exclude": ["*"]}, r"gate.exclude must leave a parameter, got '\*'"),
    ):
        with pytest.raises(ModelError, match=message):
            prunable(model, **options)
