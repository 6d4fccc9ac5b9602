from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

from ticketsweep.analysis import permuted
from ticketsweep.errors import ModelError
from ticketsweep.symmetry import Permutable, Span
from ticketsweep.train.models import build_model
from ticketsweep.train.models.registry import FACTORIES
from ticketsweep.train.models.resnets import CifarBlock
from ticketsweep.train.models.symmetry import permutation_symmetry

SHAPE = (3, 16, 16)


def named(name: str, width: float = 0.1, activation: str = "relu") -> nn.Module:
    return build_model(name, input_shape=SHAPE, classes=10, width=width, activation=activation)


def own_chain() -> nn.Module:
    """Biases, norms without and behind flattened maps, slopes of one and of all units."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), nn.PReLU(4), nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(4, 5, 3), nn.PReLU(), nn.BatchNorm2d(5)),
        nn.Flatten(), nn.BatchNorm1d(125), nn.Linear(125, 6), nn.Tanh(), nn.Linear(6, 10),
    )  # fmt: skip


def blocks_on_inputs() -> nn.Module:
    """Channels of the images stay where they are; the last layer is a convolution."""
    return nn.Sequential(
        CifarBlock(3, 3, 1), CifarBlock(3, 8, 2), nn.Conv2d(8, 10, 3), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )  # fmt: skip


def torchvision_resnet() -> nn.Module:
    from torchvision.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)


def vit_with_stem() -> nn.Module:
    """A convolutional stem, and a hidden layer before the outputs."""
    from torchvision.models.vision_transformer import ConvStemConfig, VisionTransformer

    stem = [ConvStemConfig(6, 3, 4)]
    return VisionTransformer(
        16, 4, 2, 2, 8, 12, num_classes=10, representation_size=5, conv_stem_configs=stem
    )


def small_vit(norm: Callable[..., nn.Module]) -> nn.Module:
    from torchvision.models import VisionTransformer

    return VisionTransformer(16, 4, 1, 2, 8, 12, norm_layer=norm)


def small_swin(**parts: Callable[..., nn.Module]) -> nn.Module:
    from torchvision.models import SwinTransformer

    return SwinTransformer([2, 2], 4, [1, 1], [2, 2], [4, 4], **parts)


WIDTHS = {"resnet-20": 0.25, "lenet-5": 0.5}
MODELS: dict[str, Callable[[], nn.Module]] = {
    **{name: lambda name=name: named(name, WIDTHS.get(name, 0.1)) for name in FACTORIES},
    "resnet-20 prelu": lambda: named("resnet-20", 0.25, "prelu"),
    "own_chain": own_chain,
    "blocks_on_inputs": blocks_on_inputs,
    "torchvision_resnet": torchvision_resnet,
    "vit_with_stem": vit_with_stem,
}
OTHER_SYMMETRY = ("vit_b_16", "vit_tiny", "vit_with_stem", "swin_t", "blocks_on_inputs")


def random_state(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, all random; what is positive stays so, whole numbers stay."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: (
            torch.rand(value.shape, generator=generator, dtype=torch.float64) + 0.5
            if name.endswith("running_var")
            else torch.randn(value.shape, generator=generator, dtype=torch.float64)
            / max(1, value[0].numel() if value.dim() > 1 else 1) ** 0.5
        )
        if value.is_floating_point() and not name.endswith("mask")
        else value
        for name, value in model.state_dict().items()
    }


def logits(model: nn.Module, state: dict[str, Tensor]) -> Tensor:
    images = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        found: Tensor = functional_call(model.double().eval(), state, (images,))
    return found


def relabelled(state: dict[str, Tensor], symmetry: tuple[Permutable, ...]) -> dict[str, Tensor]:
    """Every unit in the place of another of its group: one random cycle."""
    rng = np.random.default_rng(0)
    orders = {}
    for group in symmetry:
        cycle = rng.permutation(group.units)
        orders[group.name] = np.empty_like(cycle)
        orders[group.name][cycle] = np.roll(cycle, 1)
    arrays = permuted({name: value.numpy() for name, value in state.items()}, orders, symmetry)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.mark.parametrize("name", list(MODELS))
def test_relabelling_hidden_units_changes_no_output(name: str) -> None:
    model = MODELS[name]()
    symmetry = permutation_symmetry(model, input_shape=SHAPE)
    state = random_state(model)
    other = relabelled(state, symmetry)
    expected = logits(model, state)
    torch.testing.assert_close(logits(model, other), expected)
    for group in symmetry:
        assert group.units == 1 or not torch.equal(other[group.name], state[group.name])
    widest = max(symmetry, key=lambda group: group.units).name
    rows_alone = state | {widest: other[widest]}  # the columns that read them stay behind
    assert not torch.allclose(logits(model, rows_alone), expected)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in OTHER_SYMMETRY])
def test_every_hidden_channel_belongs_to_one_group(name: str) -> None:
    model = MODELS[name]()
    owned: dict[tuple[str, int], list[int]] = {}
    for group in permutation_symmetry(model, input_shape=SHAPE):
        for span in group.spans:
            units = range(span.offset, span.offset + group.units * span.block)
            owned.setdefault((span.parameter, span.dim), []).extend(units)
    weights = [(key, value) for key, value in model.named_parameters() if value.dim() > 1]
    for at, (key, value) in enumerate(weights):
        for dim, fixed in ((0, len(weights) - 1), (1, 0)):  # outputs, inputs
            expected = [] if at == fixed else list(range(value.shape[dim]))
            assert sorted(owned.get((key, dim), [])) == expected


def test_channels_of_the_images_stay_where_they_are() -> None:
    symmetry = permutation_symmetry(blocks_on_inputs(), input_shape=SHAPE)
    assert [group.units for group in symmetry] == [3, 5, 8]
    assert Span("1.conv2.weight", 0, offset=3) in symmetry[1].spans


def test_a_padded_stream_keeps_its_first_channels_together() -> None:
    groups = {g.name: g for g in permutation_symmetry(named("resnet-20", 0.25), input_shape=SHAPE)}
    stream, wider = groups["conv1.weight"], groups["layer2.0.conv2.weight"]
    assert (stream.units, wider.units) == (4, 4)  # of 4, then 8 channels
    assert Span("fc.weight", 1) in stream.spans
    assert Span("fc.weight", 1, offset=4) in wider.spans
    assert Span("bn1.running_mean", 0) in stream.spans


def test_a_transformer_is_relabelled_along_its_embedding() -> None:
    embedding, heads, *_ = permutation_symmetry(named("vit_tiny", 0.1), input_shape=SHAPE)
    assert (embedding.name, embedding.units, heads.units) == ("conv_proj.weight", 18, 3)
    assert {Span("class_token", 2), Span("heads.head.weight", 1)} < set(embedding.spans)
    stages = permutation_symmetry(named("swin_t", 0.1), input_shape=SHAPE)[:4]
    assert [stage.units for stage in stages] == [9, 18, 36, 72]
    assert Span("features.2.reduction.weight", 1, offset=27) in stages[0].spans


def test_a_network_without_hidden_layer_has_no_symmetry() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
    assert permutation_symmetry(model, input_shape=SHAPE) == ()


def shared_slopes() -> nn.Module:
    slopes = nn.PReLU(4)
    return nn.Sequential(nn.Conv2d(3, 4, 3), slopes, nn.Conv2d(4, 4, 3), slopes)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.TransformerEncoderLayer(8, 2), "hidden units needs an nn.Sequential, or torchvision's"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softmax(1), nn.Conv2d(4, 9, 3)), "got 1 .Softmax"),
        (nn.Sequential(nn.Conv2d(3, 8, 3), CifarBlock(8, 4, 1)), "hand on every channel, got 1 "),
        (small_vit(nn.RMSNorm), r"needs layer norm, got encoder.layers.*ln_1 \(RMSNorm"),
        (
            small_swin(downsample_layer=PatchMergingV2),
            "PatchMerging between stages, got features.2",
        ),
        (
            small_swin(block=SwinTransformerBlockV2),
            "blocks whose units can be told apart, got Swin",
        ),
        (shared_slopes(), r"a number a unit to be used once, got 1 \(PReLU"),
    ],
)
def test_a_model_whose_symmetry_is_unknown_is_refused(model: nn.Module, message: str) -> None:
    with pytest.raises(ModelError, match=message) as refusal:
        permutation_symmetry(model, input_shape=SHAPE)
    assert "compare replicates of the same initial weights" in str(refusal.value)


def test_units_along_two_dimensions_of_an_array_are_refused() -> None:
    with pytest.raises(ValueError, match="one dimension of an array, got 0 and 1 of w"):
        Permutable("w", 3, (Span("w", 0), Span("w", 1)))
