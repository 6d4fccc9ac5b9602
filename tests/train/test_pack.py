from __future__ import annotations

import pytest
import torch
from torch import nn

from ticketsweep.errors import ModelError
from ticketsweep.train.models import build_model, initial_weights
from ticketsweep.train.pack import Layout, PackedModel

SHAPE = (2, 6, 6)


def drawn(model: nn.Module, replicates: int) -> list[dict[str, torch.Tensor]]:
    return [
        initial_weights(model, weight_init="uniform", weight_scale=1.0, seed=seed)
        for seed in range(replicates)
    ]


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5, bias=False)
    )


def fc() -> nn.Module:
    return build_model("fc-7-4", input_shape=SHAPE, classes=5)


def test_layers_are_views_of_the_flat_tensor_in_order() -> None:
    model = fc()
    layout, weights = Layout.of(model), drawn(model, 3)
    flat = layout.flatten(weights)
    assert flat.shape == (3, layout.size)
    for name, layer in zip(layout.names, layout.split(flat), strict=True):
        assert layer.untyped_storage().data_ptr() == flat.untyped_storage().data_ptr()
        for row, weight in zip(layer, weights, strict=True):
            assert torch.equal(row, weight[name])


@pytest.mark.parametrize("build", [fc, convolutional])
@pytest.mark.parametrize("replicates", [1, 3])
def test_a_pack_computes_what_each_model_computes(build: type, replicates: int) -> None:
    model = build()
    layout, weights = Layout.of(model), drawn(model, replicates)
    layers, packed = layout.split(layout.flatten(weights)), PackedModel(model, layout)
    images = torch.randn(replicates, 8, *SHAPE)
    own, same = packed(layers, images), packed.on_same_images(layers, images[0])
    for row, weight in enumerate(weights):
        model.load_state_dict(weight)
        torch.testing.assert_close(own[row], model(images[row]).detach(), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(same[row], model(images[0]).detach(), rtol=1e-5, atol=1e-5)


def test_a_model_with_parameters_that_a_pack_does_not_hold_is_refused() -> None:
    with pytest.raises(ModelError, match=r"got also 0\.bias"):
        Layout.of(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(ModelError, match="running_mean"):
        Layout.of(nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2, affine=False)))
