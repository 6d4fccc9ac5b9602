from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from ticketsweep.train.models import build_model, initial_parameters, prunable
from ticketsweep.train.pack import Layout, PackedModel, Weights, set_precision

SHAPE = (2, 6, 6)


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(48, 5, bias=False)
    )


def normalised() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.BatchNorm2d(3),
        nn.PReLU(),
        nn.Flatten(),
        nn.Linear(48, 6),
        nn.BatchNorm1d(6, affine=False),
        nn.LayerNorm(6),
        nn.Linear(6, 5),
    )


def fc() -> nn.Module:
    return build_model("fc-7-4", input_shape=SHAPE, classes=5)


BUILDS = [fc, convolutional, normalised]


def layouts(model: nn.Module) -> tuple[Layout, Layout]:
    names = prunable(model)
    rest = [name for name, _ in model.named_parameters() if name not in names]
    return Layout.of(model, names), Layout.of(model, rest)


def drawn(build: type, replicates: int) -> list[dict[str, torch.Tensor]]:
    names = prunable(build())
    return [
        {
            name: value + 0.01 * seed
            for name, value in initial_parameters(
                build, names, weight_init="uniform", weight_scale=1.0, seed=seed
            ).items()
        }
        for seed in range(replicates)
    ]


def pack(build: type, replicates: int) -> tuple[PackedModel, Weights, list[nn.Module]]:
    model, parameters = build(), drawn(build, replicates)
    gated, rest = layouts(model)
    singles = []
    for values in parameters:
        single = copy.deepcopy(model)
        single.load_state_dict(values, strict=False)
        singles.append(single.requires_grad_(False))
    weights = Weights(gated.flatten(parameters), rest.flatten(parameters))
    return PackedModel(model, gated, rest), weights, singles


def test_layers_are_views_of_the_flat_tensor_in_order() -> None:
    layout, _ = layouts(fc())
    parameters = drawn(fc, 3)
    flat = layout.flatten(parameters)
    assert flat.shape == (3, layout.size)
    for name, layer in zip(layout.names, layout.split(flat), strict=True):
        assert layer.untyped_storage().data_ptr() == flat.untyped_storage().data_ptr()
        for row, values in zip(layer, parameters, strict=True):
            assert torch.equal(row, values[name])


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("replicates", [1, 3])
def test_a_pack_computes_what_each_model_computes(build: type, replicates: int) -> None:
    packed, weights, singles = pack(build, replicates)
    images = torch.randn(replicates, 8, *SHAPE)
    own = packed(packed.split(weights), images)
    for row, single in enumerate(singles):
        torch.testing.assert_close(own[row], single.train()(images[row]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("replicates", [1, 3])
def test_an_evaluation_uses_the_mean_of_the_batch_statistics(build: type, replicates: int) -> None:
    """As batch norm itself gathers them with momentum=None, in a model that has seen nothing."""
    packed, weights, singles = pack(build, replicates)
    layers, batches = packed.split(weights), [torch.randn(8, *SHAPE) for _ in range(4)]
    packed(layers, torch.randn(replicates, 8, *SHAPE))  # training leaves no trace in them
    logits = packed.evaluate(layers, packed.estimate(layers, batches), batches[0])
    for row, single in enumerate(singles):
        for module in single.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.momentum = None
        for images in batches:
            single.train()(images)
        torch.testing.assert_close(logits[row], single.eval()(batches[0]), rtol=1e-4, atol=1e-5)
    assert packed.has_batch_norm == (build is normalised)


class Branching(nn.Module):
    """Looks at its activations, which vmap cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(72, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = images.flatten(1)
        return self.last(flat if flat.mean() > 0 else -flat)


def test_a_module_that_vmap_cannot_run_is_run_replicate_by_replicate() -> None:
    packed, weights, singles = pack(Branching, 3)
    images = torch.randn(3, 8, *SHAPE)
    own = packed(packed.split(weights), images)
    same = packed.evaluate(packed.split(weights), (), images[0])
    for row, single in enumerate(singles):
        torch.testing.assert_close(own[row], single(images[row]), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(same[row], single(images[0]), rtol=1e-4, atol=1e-5)


def test_autocast_is_close_to_float32_and_gives_float32() -> None:
    packed, weights, _ = pack(normalised, 2)
    coarse = PackedModel(normalised(), packed.gated, packed.rest, precision="bf16")
    images = torch.randn(2, 8, *SHAPE)
    exact, rounded = (p(p.split(weights), images) for p in (packed, coarse))
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(rounded, exact, rtol=0.1, atol=0.1)


def test_tf32_is_asked_for_and_taken_back() -> None:
    for precision, kind in (("tf32", "tf32"), ("float32", "ieee"), ("bf16", "ieee")):
        set_precision(precision)
        assert torch.backends.cuda.matmul.fp32_precision == kind


def test_weights_know_which_replicates_are_sound() -> None:
    gated, rest = torch.zeros(3, 4), torch.zeros(3, 2)
    gated[0, 1], rest[2, 0] = torch.nan, torch.inf
    assert Weights(gated, rest).finite() == [False, True, False]
