from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from ticketsweep.errors import ModelError
from ticketsweep.train.models import FACTORIES, build_model, prunable

TOLERANCE = 1e-4  # of logits of order 1: packed and single products add in another order


def small(name: str, **options: object) -> nn.Module:
    """For 32x32 colour images, narrow, with batch statistics as while training."""
    settings = {"input_shape": (3, 32, 32), "classes": 10, "width": 0.25} | options
    torch.manual_seed(0)
    model = build_model(name, **settings)  # type: ignore[arg-type]
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.track_running_stats = False
    return model


def drawn(model: nn.Module, seed: int) -> dict[str, Tensor]:
    """Parameters near the model's own, so that none is zero as a ViT's head is."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: value.detach() + 0.05 * torch.randn(value.shape, generator=generator)
        for name, value in model.named_parameters()
    }


@pytest.mark.parametrize("name", [*FACTORIES, "fc-50-40"])
def test_a_replicate_does_not_depend_on_its_pack(name: str) -> None:
    model = small(name)
    parameters = [drawn(model, seed) for seed in (0, 1)]
    stacked = {key: torch.stack([row[key] for row in parameters]) for key in parameters[0]}
    images = torch.rand((2, 4, 3, 32, 32), generator=torch.Generator().manual_seed(0))

    def logits(row: dict[str, Tensor], batch: Tensor) -> Tensor:
        result: Tensor = functional_call(model, row, (batch,))
        return result

    with torch.no_grad():
        packed = vmap(logits)(stacked, images)
        alone = torch.stack(list(map(logits, parameters, images)))
        again = torch.stack(list(map(logits, parameters, images)))
    assert packed.shape == (2, 4, 10)
    assert packed.std() > 0
    torch.testing.assert_close(packed, alone, rtol=TOLERANCE, atol=TOLERANCE)
    assert torch.equal(alone, again), "random in training mode"


@pytest.mark.parametrize(
    ("name", "activation"),
    [(name, activation) for name in ("conv-2", "resnet-20") for activation in ("relu", "prelu")]
    + [("vit_tiny", "relu"), ("swin_t", "relu")],
)
def test_a_pack_runs_under_autocast(name: str, activation: str) -> None:
    model = small(name, width=0.125, activation=activation)
    parameters = {
        key: torch.stack([drawn(model, at)[key] for at in (0, 1)]) for key in drawn(model, 0)
    }
    images = torch.rand((2, 4, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    packed = vmap(lambda row, batch: functional_call(model, row, (batch,)))
    with torch.no_grad():
        exact = packed(parameters, images)
        with torch.autocast("cpu", torch.bfloat16):
            halved = packed(parameters, images)
    assert float((halved.float() - exact).abs().max()) < 0.1 * float(exact.abs().max())


@pytest.mark.parametrize("name", ["conv-2", "resnet-20", "vit_tiny", "swin_t"])
def test_a_packed_step_has_the_gradients_of_single_steps(name: str) -> None:
    model = small(name, width=0.125)
    parameters = [drawn(model, seed) for seed in (0, 1)]
    images = torch.rand((2, 4, 3, 32, 32), generator=torch.Generator().manual_seed(0))

    def gradients(row: dict[str, Tensor], batch: Tensor, packed: bool) -> list[Tensor]:
        leaves = {key: value.clone().requires_grad_() for key, value in row.items()}

        def loss(row: dict[str, Tensor], batch: Tensor) -> Tensor:
            return functional_call(model, row, (batch,)).log_softmax(-1)[..., 0].sum()

        total = vmap(loss)(leaves, batch).sum() if packed else loss(leaves, batch)
        return list(torch.autograd.grad(total, list(leaves.values())))

    stacked = {key: torch.stack([row[key] for row in parameters]) for key in parameters[0]}
    packed = gradients(stacked, images, packed=True)
    alone = [gradients(*pair, packed=False) for pair in zip(parameters, images, strict=True)]
    for at, (whole, *rows) in enumerate(zip(packed, *alone, strict=True)):
        scale = float(whole.abs().max())
        assert torch.allclose(whole, torch.stack(rows), rtol=1e-3, atol=1e-3 * scale), at


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("lenet-300-100", (1, 28, 28), 266_200),
        ("lenet-5", (1, 28, 28), 61_706 - 236),  # as published, but for 236 biases
        ("conv-2", (3, 32, 32), 4_300_992),
        ("conv-4", (3, 32, 32), 2_425_024),
        ("conv-6", (3, 32, 32), 2_261_184),
        ("resnet-20", (3, 32, 32), 269_722),
        ("resnet-56", (3, 32, 32), 853_018),
        ("resnet18", (3, 224, 224), 11_181_642),
        ("resnet50", (3, 224, 224), 23_528_522),
        ("swin_t", (3, 224, 224), 27_527_044),
    ],
)
def test_a_model_has_its_published_size(
    name: str, shape: tuple[int, int, int], parameters: int
) -> None:
    model = build_model(name, input_shape=shape, classes=10)
    assert sum(value.numel() for value in model.parameters()) == parameters


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2", "vit_b_16", "swin_t"])
def test_a_model_of_torchvision_is_torchvisions(name: str) -> None:
    import torchvision

    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)(num_classes=10)
        ours = build_model(name, input_shape=(3, 224, 224), classes=10)
    shapes = [
        {key: value.shape for key, value in model.state_dict().items()} for model in (ours, theirs)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_residual_network_computes_what_torchvisions_does(name: str) -> None:
    import torchvision

    theirs = getattr(torchvision.models, name)(num_classes=10).eval()
    ours = build_model(name, input_shape=(3, 65, 65), classes=10).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(1, 3, 65, 65)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images))


@pytest.mark.parametrize("name", sorted({*FACTORIES} - {"lenet-5", "conv-8", "swin_t"}))
def test_a_model_takes_grey_images_of_digits(name: str) -> None:
    model = build_model(name, input_shape=(1, 8, 8), classes=3, width=0.1)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


@pytest.mark.parametrize("size", [12, 27, 28, 32, 40])
def test_lenet_5_takes_images_from_12_pixels(size: int) -> None:
    model = build_model("lenet-5", input_shape=(1, size, size + 1), classes=10)
    assert model(torch.zeros(2, 1, size, size + 1)).shape == (2, 10)


@pytest.mark.parametrize(("name", "size"), [("vit_b_16", 96), ("swin_t", 66), ("swin_t", 28)])
def test_transformers_take_larger_and_smaller_images(name: str, size: int) -> None:
    size -= size % 4
    model = build_model(name, input_shape=(1, size, size), classes=10, width=0.1)
    with torch.no_grad():
        assert model(torch.zeros(1, 1, size, size)).shape == (1, 10)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("lenet-300-10", (1, 8, 8), "did you mean 'lenet-300-100'"),
        ("fc-", (1, 8, 8), "must be a known name"),
        ("fc-10-0", (1, 8, 8), "hidden widths must be >= 1"),
        ("nothing", (1, 8, 8), "known: conv-2, .*fc-H1-H2-…, lenet-300-100"),
        ("lenet-5", (1, 8, 8), "lenet-5 needs images of at least 12x12 pixels, got 8x8"),
        ("conv-8", (1, 8, 9), "conv-8 needs images of at least 16x16 pixels, got 8x9"),
        ("resnet-20", (3, 4, 4), "resnet-20 needs images of at least 8x8"),
        ("wide_resnet50_2", (3, 4, 4), "wide_resnet50_2 needs images of at least 8x8"),
        ("vit_tiny", (3, 30, 30), "sides divisible by 4 .* got 30x30"),
        ("vit_b_16", (3, 224, 192), "square images with sides divisible by 16 .* got 224x192"),
        ("swin_t", (3, 9, 9), "swin_t needs square images with sides divisible by 2"),
    ],
)
def test_an_unknown_model_or_a_wrong_size_is_refused_in_one_line(
    name: str, shape: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(ModelError, match=message) as refusal:
        build_model(name, input_shape=shape, classes=10)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", [*FACTORIES, "fc-40"])
def test_width_multiplies_hidden_units(name: str) -> None:
    with torch.device("meta"):
        plain, wide = (
            dict(build_model(name, input_shape=(3, 32, 32), classes=10, width=w).named_parameters())
            for w in (1.0, 2.0)
        )
    hidden = [key for key in plain if key.endswith(".weight")][:-1]  # all but the classifier's
    assert all(wide[key].shape[0] == 2 * plain[key].shape[0] for key in hidden)
    last = list(plain)[-1]
    assert wide[last].shape[0] == plain[last].shape[0] == 10


def test_the_narrowest_model_still_has_units() -> None:
    for name in FACTORIES:
        model = build_model(name, input_shape=(1, 32, 32), classes=2, width=1e-6)
        assert model(torch.zeros(2, 1, 32, 32)).shape == (2, 2)


@pytest.mark.parametrize("name", ["lenet-300-100", "conv-2", "resnet-20", "resnet18"])
def test_prelu_takes_the_place_of_every_relu(name: str) -> None:
    plain, model = small(name), small(name, activation="prelu")
    assert not [module for module in model.modules() if isinstance(module, nn.ReLU)]
    relus = [module for module in plain.modules() if isinstance(module, nn.ReLU)]
    assert len([module for module in model.modules() if isinstance(module, nn.PReLU)]) == len(relus)
    assert prunable(model) == prunable(plain)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 10)


def test_an_activation_that_cannot_be_is_refused() -> None:
    with pytest.raises(ModelError, match=r"needs a model with nn.ReLU modules, got vit_tiny"):
        small("vit_tiny", activation="prelu")
    with pytest.raises(ModelError, match="activation must be a known name, got 'gelu'"):
        small("fc-3", activation="gelu")


def test_building_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)  # as `small` does before it builds
    state = torch.get_rng_state()
    for name in ("fc-3", "resnet-20", "vit_tiny"):
        small(name)
    assert torch.equal(state, torch.get_rng_state())


def test_models_of_one_family_differ_as_their_names_say() -> None:
    for convolutions in (2, 4, 6, 8):
        model = small(f"conv-{convolutions}")
        kinds = [type(module) for module in model.modules()]
        assert kinds.count(nn.Conv2d) == convolutions
        assert kinds.count(nn.MaxPool2d) == convolutions // 2
        assert kinds.count(nn.Linear) == 3
    for depth in (20, 32, 56):
        kinds = [type(module) for module in small(f"resnet-{depth}").modules()]
        assert kinds.count(nn.Conv2d) + kinds.count(nn.Linear) == depth
