from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from ticketsweep.errors import ModelError
from ticketsweep.train.models import build_model, prunable
from ticketsweep.train.models.resnets import CifarBlock
from ticketsweep.train.pack import Layout
from ticketsweep.train.units import Site, Units, unit_sites

SHAPE = (3, 16, 16)
R = 2


def own_chain() -> nn.Module:
    """Biases, batch norm on both sides of activations, nesting, and flattened maps."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(4, 5, 3), nn.Sigmoid(), nn.BatchNorm2d(5)),
        nn.Flatten(),
        nn.BatchNorm1d(125),
        nn.Sequential(nn.Linear(125, 6), nn.Tanh()),
        nn.Linear(6, 10),
    )


def own_residual() -> nn.Module:
    """Without batch norm before the first sum."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.LeakyReLU(), nn.MaxPool2d(2), CifarBlock(4, 6, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10),
    )  # fmt: skip


def torchvision_resnet() -> nn.Module:
    from torchvision.models.resnet import BasicBlock, ResNet

    return ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)


def named(name: str, width: float, activation: str = "relu") -> Callable[[], nn.Module]:
    return lambda: build_model(
        name, input_shape=SHAPE, classes=10, width=width, activation=activation
    )


MODELS: dict[str, Callable[[], nn.Module]] = {
    "fc-6-5": named("fc-6-5", 1),
    "fc-6-5 prelu": named("fc-6-5", 1, "prelu"),
    "lenet-5": named("lenet-5", 0.5),
    "conv-4": named("conv-4", 0.05),
    "resnet-20": named("resnet-20", 0.25),
    "resnet-20 prelu": named("resnet-20", 0.25, "prelu"),
    "resnet18": named("resnet18", 0.05),
    "resnet50": named("resnet50", 0.05),
    "vit_tiny": named("vit_tiny", 0.1),
    "swin_t": named("swin_t", 0.1),
    "own_chain": own_chain,
    "own_residual": own_residual,
    "torchvision_resnet": torchvision_resnet,
}
FULLY_CONNECTED = {name for name in MODELS if name.startswith("fc")}


class Case:
    """A model with random parameters of R replicates, its units, and images."""

    def __init__(self, model: nn.Module, *, inputs: bool = False, exclude: str = "") -> None:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.track_running_stats = False  # as while training
        self.model = model.double()
        generator = torch.Generator().manual_seed(0)
        names = [name for name, _ in model.named_parameters()]
        gated = prunable(model, exclude=[exclude] if exclude else [])
        shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
        self.layouts = [
            Layout(tuple(keys), tuple(shapes[key] for key in keys), tuple(sizes))
            for keys in (gated, [name for name in names if name not in gated])
            for sizes in [[model.get_parameter(key).numel() for key in keys]]
        ]
        flat = [
            torch.randn(R, layout.size, generator=generator, dtype=torch.float64) * 0.3
            for layout in self.layouts
        ]
        self.gated, self.rest = flat
        self.sites = unit_sites(model, input_shape=SHAPE, gated=gated, inputs=inputs)
        self.units = Units(self.sites, *self.layouts)
        total = self.units.layout.size
        self.z = torch.rand(R, total, generator=generator, dtype=torch.float64)
        self.kept = torch.rand(R, total, generator=generator) < 0.6
        self.images = torch.rand(R, 4, *SHAPE, generator=generator, dtype=torch.float64)

    def named(self, gated: Tensor, rest: Tensor) -> dict[str, Tensor]:
        layers = [
            layout.split(flat) for layout, flat in zip(self.layouts, (gated, rest), strict=True)
        ]
        return self.by_name(*layers)

    def by_name(self, gated: tuple[Tensor, ...], rest: tuple[Tensor, ...]) -> dict[str, Tensor]:
        names = [name for layout in self.layouts for name in layout.names]
        return dict(zip(names, [*gated, *rest], strict=True))

    def effective(self, z: Tensor, gated: Tensor, rest: Tensor) -> dict[str, Tensor]:
        split = [
            layout.split(flat) for layout, flat in zip(self.layouts, (gated, rest), strict=True)
        ]
        return self.by_name(*self.units.apply(self.units.layout.split(z), *split))

    def outputs(self, parameters: dict[str, Tensor]) -> Tensor:
        def logits(row: dict[str, Tensor], batch: Tensor) -> Tensor:
            result: Tensor = functional_call(self.model, row, (batch,))
            return result

        with torch.no_grad():
            return vmap(logits)(parameters, self.images)


def gate(z: Tensor, of: Tensor) -> Tensor:
    return of * z.view(1, -1, *[1] * (of.dim() - 2))


def activation_after(model: nn.Module, layer: str) -> nn.Module:
    """The activation of a layer of a chain: where g * act(W h) is defined."""
    kinds = (nn.ReLU, nn.PReLU, nn.LeakyReLU, nn.GELU, nn.Sigmoid, nn.Tanh)
    modules = dict(model.named_modules())
    later = list(modules)[list(modules).index(layer) + 1 :]
    return next(modules[name] for name in later if isinstance(modules[name], kinds))


def brute_force(case: Case, row: int) -> Tensor:
    """Logits of one replicate, its units' outputs multiplied by hooks while data pass."""
    model = case.model
    parameters = {name: value[row] for name, value in case.named(case.gated, case.rest).items()}
    images = case.images[row]
    gates = {
        site.name: z[row]
        for site, z in zip(case.sites, case.units.layout.split(case.z), strict=True)
    }
    with ExitStack() as stack, torch.no_grad():
        for name, z in gates.items():
            if name == "input":
                images = images * z
                continue
            owner, _, leaf = name.removesuffix(".weight").rpartition(".")
            parent = model.get_submodule(owner)
            if leaf in {"in_proj_weight", "qkv"}:  # a head's output is linear in its values
                for key in (name, name.replace("weight", "bias")):
                    whole = parameters[key].clone()
                    width = len(whole) // 3
                    whole[2 * width :] *= z.repeat_interleave(width // len(z)).view(
                        -1, *[1] * (whole.dim() - 1)
                    )
                    parameters[key] = whole
                continue
            convs = [key for key, _ in parent.named_children() if key.startswith("conv")]
            if owner.endswith("mlp"):
                reader = parent.get_submodule("3")
                hook = reader.register_forward_pre_hook(
                    lambda _, args, z=z: (args[0] * z,)  # units lie last
                )
            elif owner and leaf in convs[:-1]:
                reader = parent.get_submodule(f"conv{int(leaf[-1]) + 1}")
                hook = reader.register_forward_pre_hook(lambda _, args, z=z: (gate(z, args[0]),))
            elif owner and leaf.startswith("conv"):
                norm = parent.get_submodule(f"bn{leaf[-1]}")
                hook = norm.register_forward_hook(lambda _, __, out, z=z: gate(z, out))
            elif owner.endswith("downsample"):
                norm = parent.get_submodule("1")
                hook = norm.register_forward_hook(lambda _, __, out, z=z: gate(z, out))
            elif owner == "1":  # own_chain: flattened maps pass a batch norm before they are read
                norm = model.get_submodule("3")
                hook = norm.register_forward_hook(
                    lambda _, __, out, z=z: out * z.repeat_interleave(25)
                )
            else:
                act = activation_after(model, name.removesuffix(".weight"))
                hook = act.register_forward_hook(lambda _, __, out, z=z: gate(z, out))
            stack.callback(hook.remove)
        logits: Tensor = functional_call(model, parameters, (images,))
        return logits


@pytest.mark.parametrize("name", list(MODELS))
def test_a_gate_multiplies_what_its_unit_hands_on(name: str) -> None:
    case = Case(MODELS[name](), inputs=name in FULLY_CONNECTED)
    packed = case.outputs(case.effective(case.z, case.gated, case.rest))
    slow = torch.stack([brute_force(case, row) for row in range(R)])
    ungated = case.outputs(case.named(case.gated, case.rest))
    assert not torch.allclose(packed, ungated, rtol=1e-3)
    torch.testing.assert_close(packed, slow)


@pytest.mark.parametrize("name", list(MODELS))
def test_removed_parameters_have_no_effect(name: str) -> None:
    case = Case(MODELS[name](), inputs=name in FULLY_CONNECTED)
    keep = case.units.keep(case.kept)
    assert [part.shape for part in keep] == [case.gated.shape, case.rest.shape]
    z = case.kept.double()
    hard = case.outputs(case.effective(z, case.gated, case.rest))
    zeroed = case.outputs(case.named(case.gated * keep[0], case.rest * keep[1]))
    torch.testing.assert_close(zeroed, hard)
    other = [
        torch.where(kept, flat, torch.randn_like(flat))
        for kept, flat in zip(keep, (case.gated, case.rest), strict=True)
    ]
    torch.testing.assert_close(case.outputs(case.effective(z, *other)), hard)


def test_whatever_is_kept_has_an_effect() -> None:
    case = Case(own_chain())
    keep = case.units.keep(case.kept)
    flat = [
        (values * kept).requires_grad_()
        for values, kept in zip((case.gated, case.rest), keep, strict=True)
    ]
    parameters = case.effective(case.kept.double(), *flat)
    for row in range(R):
        logits = functional_call(
            case.model, {key: value[row] for key, value in parameters.items()}, (case.images[row],)
        )
        (gradient,) = torch.autograd.grad((logits**2).sum(), flat[0], retain_graph=True)
        assert torch.equal(gradient[row] != 0, keep[0][row])


def test_kept_weights_of_a_fully_connected_network_join_kept_units() -> None:
    case = Case(named("fc-6-5", 1)(), inputs=True)
    inputs, first, second = case.units.layout.split(case.kept)
    keep = case.layouts[0].split(case.units.keep(case.kept)[0])
    assert torch.equal(keep[0], first[:, :, None] & inputs.flatten(1)[:, None])
    assert torch.equal(keep[1], second[:, :, None] & first[:, None])
    assert torch.equal(keep[2], second[:, None].expand(R, 10, 5))


@pytest.mark.parametrize("name", ["fc-6-5", "resnet-20", "vit_tiny"])
def test_open_gates_change_nothing(name: str) -> None:
    case = Case(MODELS[name]())
    effective = case.effective(torch.ones_like(case.z), case.gated, case.rest)
    for key, value in case.named(case.gated, case.rest).items():
        assert torch.equal(effective[key], value)
    assert all(part.all() for part in case.units.keep(torch.ones_like(case.kept)))


def test_effective_parameters_are_differentiable() -> None:
    case = Case(nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), CifarBlock(2, 3, 2)))
    z, *flat = (value.clone().requires_grad_() for value in (case.z, case.gated, case.rest))
    assert torch.autograd.gradcheck(
        lambda *values: tuple(case.effective(*values).values()), (z, *flat), fast_mode=True
    )


def test_a_parameter_that_is_not_gated_is_still_scaled() -> None:
    model = named("fc-6-5", 1)()
    case = Case(model, exclude="fc2.weight")
    assert case.layouts[1].names == ("fc2.weight",)
    assert [site.name for site in case.sites] == ["fc1.weight"]
    packed = case.outputs(case.effective(case.z, case.gated, case.rest))
    torch.testing.assert_close(packed[0], brute_force(case, 0))


def sites_of(model: nn.Module, **options: object) -> tuple[Site, ...]:
    settings = {"input_shape": SHAPE, "gated": prunable(model), "inputs": False} | options
    return unit_sites(model, **settings)  # type: ignore[arg-type]


def test_sites_are_named_by_the_parameters_that_produce_units() -> None:
    assert [(site.name, site.shape) for site in sites_of(named("fc-6-5", 1)(), inputs=True)] == [
        ("input", SHAPE), ("fc1.weight", (6,)), ("fc2.weight", (5,))
    ]  # fmt: skip
    names = [site.name for site in sites_of(named("resnet18", 0.05)())]
    assert names[:3] == ["conv1.weight", "layer1.0.conv1.weight", "layer1.0.conv2.weight"]
    assert "layer2.0.downsample.0.weight" in names
    assert "fc.weight" not in names
    vit = sites_of(named("vit_tiny", 1)())
    block = "encoder.layers.encoder_layer_0."
    assert [(site.name.removeprefix(block), site.shape) for site in vit[:2]] == [
        ("self_attention.in_proj_weight", (3,)), ("mlp.0.weight", (768,))
    ]  # fmt: skip
    assert len(vit) == 18


def test_patterns_choose_sites() -> None:
    model = named("resnet-20", 0.25)()
    chosen = sites_of(model, include=["layer1.*", "layer2.*"], exclude=["*.conv2.weight"])
    assert [site.name for site in chosen] == [
        f"layer{stage}.{block}.conv1.weight" for stage in (1, 2) for block in range(3)
    ]
    with pytest.raises(ModelError, match=r"gate.include must match a site of units, got 'fc.\*'"):
        sites_of(model, include=["fc.*"])


@pytest.mark.parametrize("name", ["resnet-20", "vit_tiny", "lenet-5"])
def test_inputs_have_gates_before_linear_layers_alone(name: str) -> None:
    with pytest.raises(ModelError, match=r"gate.inputs needs a model that begins with nn.Flatten"):
        sites_of(MODELS[name](), inputs=True)


def shared() -> nn.Module:
    layer = nn.Linear(6, 6)
    return nn.Sequential(nn.Flatten(), nn.Linear(768, 6), layer, nn.ReLU(), layer)


def headed(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(9, 10))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.TransformerEncoderLayer(8, 2), "needs an nn.Sequential, or torchvision's ResNet"),
        (headed(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)), r"can be told apart, got 1 \(GroupNorm"),
        (headed(nn.Conv2d(3, 6, 3, groups=3)), "convolutions of one group"),
        (headed(nn.Linear(16, 9), nn.ReLU()), "nn.Flatten before linear layers, got 0"),
        (headed(nn.Conv2d(3, 9, 3), nn.Flatten(2)), "flatten everything but the batch, got 1"),
        (shared(), "every layer to be used once, got 2"),
        (headed(nn.Conv2d(3, 4, 3), nn.GELU(), CifarBlock(4, 4, 1)), "ReLU-like .* got 1 .GELU"),
        (
            headed(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False), CifarBlock(4, 4, 1)),
            "affine batch norm before a residual sum, got 1",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(768, 10)), "needs gated hidden units"),
    ],
)
def test_a_model_whose_units_cannot_be_told_apart_is_refused(
    model: nn.Module, message: str
) -> None:
    with pytest.raises(ModelError, match=message) as refusal:
        sites_of(model)
    assert "take gate.granularity weight" in str(refusal.value)
