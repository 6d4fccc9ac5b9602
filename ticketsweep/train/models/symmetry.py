"""The permutation symmetry of a model: groups of hidden units that can be relabelled freely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from ticketsweep.symmetry import Permutable, Span
from ticketsweep.train.models.embeddings import embedding_symmetry
from ticketsweep.train.models.sizes import Shape
from ticketsweep.train.models.structure import transformer_sites
from ticketsweep.train.models.walk import LAYERS, Purpose, branches, trunk_of

_PURPOSE = Purpose(
    "matching of hidden units", "compare replicates of the same initial weights, unmatched"
)


def permutation_symmetry(model: nn.Module, *, input_shape: Shape) -> tuple[Permutable, ...]:
    """Groups of hidden units whose order does not matter, in the order in which data pass them.

    The channels of a residual stream are one group for every layer that writes to it or reads it.
    Where a shortcut without parameters pads it with zeros (`CifarBlock`), the channels before are
    one group up to the end of the network and those that come in are another: what a shortcut hands
    on keeps its place. Inputs and outputs are never permuted.

    Of transformers: the embedding, heads, and the hidden units of each block's MLP. The dimensions
    of a head keep their order.

    Parameters
    ----------
    model: of a kind that `structure.unit_sites` knows.
    input_shape: channels, height, width.

    Returns
    -------
    No group where a model has no hidden layer.

    Raises
    ------
    ModelError: the model is of another kind, or has a layer whose units cannot be told apart.
    """
    trunk = trunk_of(model, _PURPOSE)
    if trunk:
        walk = _Walk({id(module): name for name, module in model.named_modules()})
        outputs = walk.through(trunk, _Channels([(None, input_shape[0])]))
        visible = [id(group) for group, _ in outputs.parts]
        hidden = [group for group in walk.groups if id(group) not in visible]
        return tuple(Permutable(group.name, group.units, tuple(group.spans)) for group in hidden)
    sites = transformer_sites(model)
    if not sites:
        raise _PURPOSE.refusal("blocks whose units can be told apart", type(model).__name__)
    groups = [Permutable(site.name, site.shape[0], site.removed) for site in sites]
    return (*embedding_symmetry(model, sites, _PURPOSE), *groups)


@dataclass
class _Group:
    name: str
    units: int
    spans: list[Span] = field(default_factory=list)


@dataclass
class _Channels:
    """What data consist of between two layers: groups in a row, and None for what is fixed."""

    parts: list[tuple[_Group | None, int]]

    @property
    def count(self) -> int:
        return sum(units for _, units in self.parts)

    def claim(self, parameter: str, dim: int, length: int) -> None:
        """Note that an array of this length along `dim` holds entries of every channel."""
        block, offset = length // self.count, 0  # of flattened maps: a block a channel
        for group, units in self.parts:
            if group is not None:
                group.spans.append(Span(parameter, dim, block, offset))
            offset += units * block


class _Walk:
    """Collects groups while data pass through modules."""

    def __init__(self, names: dict[int, str]) -> None:
        self.groups: list[_Group] = []
        self._names = names
        self._claimed: set[int] = set()

    def through(
        self, modules: Sequence[nn.Module], channels: _Channels, summed: _Channels | None = None
    ) -> _Channels:
        """The channels behind the modules; those of the last layer are `summed`, if given."""
        last = max((at for at, part in enumerate(modules) if isinstance(part, LAYERS)), default=-1)
        for at, module in enumerate(modules):
            if isinstance(module, LAYERS):
                weight = module.get_parameter("weight")
                channels.claim(self._path(module, "weight"), 1, weight.shape[1])
                known = summed if at == last else None
                channels = known or _Channels([self._fresh(module, len(weight))])
                self._claim_entries(module, channels)
            elif (residual := branches(module)) is not None:
                body, projection = residual
                after = self._after(channels, body, projection)
                self.through(body, channels, after)
                self.through(projection, channels, after)
                channels = after
            else:
                self._claim_entries(module, channels)
        return channels

    def _after(
        self, before: _Channels, body: Sequence[nn.Module], projection: Sequence[nn.Module]
    ) -> _Channels:
        """The residual stream behind a block: another one, or the one before, padded."""
        last = [module for module in body if isinstance(module, LAYERS)][-1]
        units = len(last.get_parameter("weight"))
        if any(isinstance(module, LAYERS) for module in projection):
            return _Channels([self._fresh(last, units)])
        missing = units - before.count
        if missing < 0:
            where = self._names[id(last)].rpartition(".")[0]
            raise _PURPOSE.refusal("shortcuts that hand on every channel", where)
        return _Channels([*before.parts, self._fresh(last, missing)] if missing else before.parts)

    def _fresh(self, layer: nn.Module, units: int) -> tuple[_Group, int]:
        self.groups.append(_Group(self._path(layer, "weight"), units))
        return self.groups[-1], units

    def _claim_entries(self, module: nn.Module, channels: _Channels) -> None:
        """Rows of a layer; entries of a norm or of slopes, running statistics included."""
        entries: dict[str, Tensor] = {**dict(module.named_parameters(recurse=False))}
        entries |= dict(module.named_buffers(recurse=False))
        for leaf, value in entries.items():
            if not value.dim() or len(value) < channels.count:  # one for all: a slope, a counter
                continue
            if id(value) in self._claimed:  # in several places, whose units need not match
                got = f"{self._names[id(module)]} ({type(module).__name__})"
                raise _PURPOSE.refusal("every module with a number a unit to be used once", got)
            self._claimed.add(id(value))
            channels.claim(self._path(module, leaf), 0, len(value))

    def _path(self, module: nn.Module, leaf: str) -> str:
        return f"{self._names[id(module)]}.{leaf}"
