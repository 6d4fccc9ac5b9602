"""The unit structure of a model, written down as data: which parameters each unit owns.

A unit is a neuron, an output channel of a convolution, an attention head, or an input. What a unit
hands on is gated, `g * act(W h)`, by factors on parameters alone:

- on the columns of what reads it, where that is known: right for any activation;
- on the batch norm before a residual sum, or the convolution where there is none: then nothing
  but positively homogeneous functions, such as ReLU and pooling, may lie in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from ticketsweep.errors import ModelError
from ticketsweep.symmetry import Span
from ticketsweep.train.models.gating import selected
from ticketsweep.train.models.sizes import Shape
from ticketsweep.train.models.walk import (
    HOMOGENEOUS,
    LAYERS,
    NORMS,
    Purpose,
    branches,
    trunk_of,
)

INPUT = "input"  # the name of the input gates

_UNTOUCHED = (nn.Identity, nn.Dropout, nn.Flatten)  # inputs pass through these as they are
_PURPOSE = Purpose("gate.granularity neuron", "take gate.granularity weight")


@dataclass(frozen=True)
class Site:
    """Units that are gated together.

    Parameters
    ----------
    name: of the parameter that produces the units, or `input`.
    shape: `(n,)` for n units; `(C, H, W)` for the inputs.
    scaled: multiplied by the gate, so that what the unit hands on is g * act(W h).
    removed: everything that has no effect any more once the unit's gate is 0: its rows, biases and
        norms, and the columns that read it alone.
    """

    name: str
    shape: tuple[int, ...]
    scaled: tuple[Span, ...]
    removed: tuple[Span, ...]


def unit_sites(
    model: nn.Module,
    *,
    input_shape: Shape,
    gated: Sequence[str],
    inputs: bool,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> tuple[Site, ...]:
    """Where the units of a model are, in the order in which data passes them.

    Outputs of the classifier are no units. Channels of a residual stream belong to several layers:
    each of these has a site for what it adds to the stream, and columns that read the stream are
    removed with no unit, unless they read its first layer alone.

    Parameters
    ----------
    model: an `nn.Sequential` of layers and residual blocks (ours, torchvision's), a torchvision
        `ResNet`, `VisionTransformer` or `SwinTransformer`.
    gated: names of the gated parameters; units whose producing parameter is another have no site.
    inputs: whether the inputs are units too.
    include, exclude: patterns of names of sites, as in `prunable`.

    Raises
    ------
    ModelError: the model is of another kind or has a layer whose units cannot be told apart,
        inputs cannot be gated, a pattern matches nothing, or there is no unit.
    """
    trunk = trunk_of(model, _PURPOSE)
    names = {id(module): name for name, module in model.named_modules()}
    found = [_input_site(trunk, names, input_shape)] if inputs else []
    if trunk:
        found += [
            _site(passage, passage.layer, names)
            for passage in _passages(trunk, ends_in_sum=False)
            if passage.layer is not None
        ]
    else:
        found += transformer_sites(model)
    found = [site for site in found if site.name in {*gated, INPUT}]
    if not found:
        raise _PURPOSE.refusal("gated hidden units", f"{type(model).__name__} without any")
    chosen = selected([site.name for site in found], include, exclude, what="site of units")
    return tuple(site for site in found if site.name in chosen)


@dataclass(frozen=True)
class _Passage:
    """From one layer to what reads it.

    Parameters
    ----------
    layer: None: from the inputs, or from a residual stream.
    passed: the modules in between.
    readers: layers that read this one alone; none: it is added to a residual stream.
    is_summed: whether it is added to a residual stream, or starts one.
    """

    layer: nn.Module | None
    passed: tuple[nn.Module, ...]
    readers: tuple[nn.Module, ...]
    is_summed: bool


def _passages(modules: Sequence[nn.Module], *, ends_in_sum: bool) -> Iterator[_Passage]:
    layer: nn.Module | None = None
    passed: list[nn.Module] = []
    for module in modules:
        if isinstance(module, LAYERS):
            yield _Passage(layer, tuple(passed), (module,), is_summed=False)
            layer, passed = module, []
        elif (residual := branches(module)) is not None:
            body, projection = residual
            readers = (body[0], *projection[:1])
            yield _Passage(layer, tuple(passed), readers, is_summed=not projection)
            yield from _passages(body, ends_in_sum=True)
            yield from _passages(projection, ends_in_sum=True)
            layer, passed = None, []
        else:
            passed.append(module)
    if ends_in_sum:
        yield _Passage(layer, tuple(passed), (), is_summed=True)


def _site(passage: _Passage, layer: nn.Module, names: dict[int, str]) -> Site:
    units = _count(layer)
    norms = [module for module in passage.passed if isinstance(module, NORMS)]
    own = [_entries(module, names, units) for module in (layer, *norms)]
    columns = tuple(_columns(reader, names, units) for reader in passage.readers)
    scaled = _summed(passage, layer, names) if passage.is_summed else columns
    removed = (*(span for spans in own for span in spans), *columns)
    return Site(f"{names[id(layer)]}.weight", (units,), scaled, removed)


def _summed(passage: _Passage, layer: nn.Module, names: dict[int, str]) -> tuple[Span, ...]:
    """What scales the contribution of `layer` to a residual sum."""
    scaled, after = layer, passage.passed
    for at, module in enumerate(passage.passed):
        if isinstance(module, NORMS):
            scaled, after = module, passage.passed[at + 1 :]
    spans = _entries(scaled, names, _count(layer))
    curved = [module for module in after if not isinstance(module, HOMOGENEOUS)]
    if not spans or curved:
        what = curved[0] if curved else scaled
        rule = "ReLU-like activations" if curved else "affine batch norm"
        got = f"{names[id(what)]} ({type(what).__name__})"
        raise _PURPOSE.refusal(f"{rule} before a residual sum", got)
    return spans


def _count(layer: nn.Module) -> int:
    """Number of units that a layer produces."""
    return len(layer.get_parameter("weight"))


def _entries(module: nn.Module, names: dict[int, str], units: int) -> tuple[Span, ...]:
    """Each unit's rows of a layer, or entries of a norm; a norm of flattened maps has blocks."""
    return tuple(
        Span(f"{names[id(module)]}.{leaf}", 0, len(parameter) // units)
        for leaf, parameter in module.named_parameters(recurse=False)
    )


def _columns(reader: nn.Module, names: dict[int, str], units: int) -> Span:
    """The columns of a layer that read each unit: one, or a whole flattened map."""
    columns = reader.get_parameter("weight").shape[1]
    return Span(f"{names[id(reader)]}.weight", 1, columns // units)


def _input_site(trunk: Sequence[nn.Module], names: dict[int, str], input_shape: Shape) -> Site:
    first = next((part for part in trunk if not isinstance(part, _UNTOUCHED)), None)
    if not isinstance(first, nn.Linear):
        got = "a transformer" if first is None else f"{names[id(first)]} ({type(first).__name__})"
        raise ModelError(
            f"gate.inputs needs a model that begins with nn.Flatten and nn.Linear, got {got} "
            "(set gate.inputs to false, or take a fully connected model)"
        )
    columns = (Span(f"{names[id(first)]}.weight", 1),)
    return Site(INPUT, input_shape, columns, columns)


def transformer_sites(model: nn.Module) -> list[Site]:
    """Heads and MLP units of each block, in order."""
    from torchvision.models.swin_transformer import SwinTransformerBlock
    from torchvision.models.vision_transformer import EncoderBlock

    sites: list[Site] = []
    for name, block in model.named_modules():
        if type(block) is EncoderBlock:
            inputs, output = ("in_proj_weight", "in_proj_bias"), "out_proj.weight"
            attention, path = block.self_attention, f"{name}.self_attention"
        elif type(block) is SwinTransformerBlock:
            inputs, output = ("qkv.weight", "qkv.bias"), "proj.weight"
            attention, path = block.attn, f"{name}.attn"
        else:
            continue
        present = dict(attention.named_parameters())
        heads = attention.num_heads
        size = present[output].shape[1] // heads
        read = Span(f"{path}.{output}", 1, size)
        removed = [
            Span(f"{path}.{leaf}", 0, size, offset)
            for leaf in inputs
            if leaf in present
            for offset in (0, heads * size, 2 * heads * size)  # query, key, value
        ]
        if "relative_position_bias_table" in present:
            removed.append(Span(f"{path}.relative_position_bias_table", 1))
        sites.append(Site(f"{path}.{inputs[0]}", (heads,), (read,), (*removed, read)))
        sites.append(_hidden_units(f"{name}.mlp", block.mlp))
    return sites


def _hidden_units(path: str, mlp: nn.Module) -> Site:
    """The units between the two linear layers of a transformer block's MLP."""
    (first, before), (second, _) = (
        (f"{path}.{name}", layer)
        for name, layer in mlp.named_children()
        if isinstance(layer, nn.Linear)
    )
    read = Span(f"{second}.weight", 1)
    own = (Span(f"{first}.{leaf}", 0) for leaf, _ in before.named_parameters())
    return Site(f"{first}.weight", (before.out_features,), (read,), (*own, read))
