"""The embedding of a transformer: a residual stream whose channels can be relabelled together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import nn

from ticketsweep.symmetry import Permutable, Span
from ticketsweep.train.models.structure import Site
from ticketsweep.train.models.walk import Purpose


def embedding_symmetry(
    model: nn.Module, sites: Sequence[Site], purpose: Purpose
) -> tuple[Permutable, ...]:
    """The channels of a ViT's embedding, or of each stage's of a Swin.

    Layer norm treats channels alike, so their order is free.

    Parameters
    ----------
    model: torchvision's `VisionTransformer` or `SwinTransformer`.
    sites: its heads and MLP units; what produces them reads the embedding, what reads them writes
        to it.

    Raises
    ------
    ModelError: the model normalises otherwise, or merges patches otherwise.
    """
    from torchvision.models import SwinTransformer

    for name, module in model.named_modules():
        if name.rpartition(".")[2].startswith(("ln", "norm")) and type(module) is not nn.LayerNorm:
            raise purpose.refusal("layer norm", f"{name} ({type(module).__name__})")
    if isinstance(model, SwinTransformer):
        return _of_swin(model, sites, purpose)
    return (_of_vit(model, sites),)


def _of_vit(model: nn.Module, sites: Sequence[Site]) -> Permutable:
    stem = _paths(model, "conv_proj", nn.Conv2d)[-1]
    head = _paths(model, "heads", nn.Linear)[0]
    tokens = [Span("class_token", 2), Span("encoder.pos_embedding", 2)]
    spans = [
        *tokens,
        *_entries(model, [stem]),
        *_stream(model, sites, "encoder"),
        Span(f"{head}.weight", 1),
    ]
    return _group(model, stem, spans)


def _of_swin(model: nn.Module, sites: Sequence[Site], purpose: Purpose) -> tuple[Permutable, ...]:
    from torchvision.models.swin_transformer import PatchMerging

    groups = []
    writer, spans = "features.0.0", _entries(model, ["features.0.0", "features.0.2"])
    stages = list(model.get_submodule("features").named_children())[1:]
    for at, stage in stages:
        path = f"features.{at}"
        if isinstance(stage, nn.Sequential):
            spans += _stream(model, sites, path)
            continue
        if type(stage) is not PatchMerging:
            raise purpose.refusal("PatchMerging between stages", f"{path} ({type(stage).__name__})")
        channels = len(model.get_parameter(f"{writer}.weight"))
        for neighbour in range(4):  # their channels one after the other
            offset = neighbour * channels
            spans.append(Span(f"{path}.reduction.weight", 1, offset=offset))
            merged = _entries(model, [f"{path}.norm"])
            spans += [replace(span, offset=offset) for span in merged]
        groups.append(_group(model, writer, spans))
        writer = f"{path}.reduction"
        spans = _entries(model, [writer])
    spans += [*_entries(model, ["norm"]), Span("head.weight", 1)]
    return (*groups, _group(model, writer, spans))


def _stream(model: nn.Module, sites: Sequence[Site], path: str) -> list[Span]:
    """What the blocks and norms below `path` have of each channel."""
    inside = [site for site in sites if site.name.startswith(f"{path}.")]
    reads = [Span(site.name, 1) for site in inside]
    outputs = [site.scaled[0].parameter.removesuffix(".weight") for site in inside]
    norms = _paths(model, path, nn.LayerNorm)
    return [*reads, *_entries(model, [*outputs, *norms])]


def _paths(model: nn.Module, path: str, kind: type[nn.Module]) -> list[str]:
    """Modules of this kind at or below `path`."""
    below = model.get_submodule(path).named_modules(prefix=path)
    return [name for name, module in below if isinstance(module, kind)]


def _entries(model: nn.Module, paths: Iterable[str]) -> list[Span]:
    """Rows of layers, entries of norms."""
    return [
        Span(f"{path}.{leaf}", 0)
        for path in paths
        for leaf, _ in model.get_submodule(path).named_parameters(recurse=False)
    ]


def _group(model: nn.Module, writer: str, spans: Sequence[Span]) -> Permutable:
    name = f"{writer}.weight"
    return Permutable(name, len(model.get_parameter(name)), tuple(spans))
