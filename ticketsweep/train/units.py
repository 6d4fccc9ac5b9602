"""Structured gates: what a unit's gate does to a model's parameters.

A gate of a unit is a factor on parameters, so that the model itself stays untouched and can be
packed; which parameters is written down as data, the sites of a model's units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ticketsweep.symmetry import Span
from ticketsweep.train.models.structure import Site, unit_sites
from ticketsweep.train.pack import Layers, Layout

__all__ = ["Site", "Span", "Units", "unit_sites"]


class Units:
    """Turns gates of units into effective parameters, and kept units into kept parameters.

    Parameters
    ----------
    sites: of one model.
    gated, rest: where the model's gated and other parameters lie; together they hold every
        parameter that a site names.
    """

    def __init__(self, sites: Sequence[Site], gated: Layout, rest: Layout) -> None:
        shapes = tuple(site.shape for site in sites)
        names = tuple(site.name for site in sites)
        self.layout = Layout(names, shapes, tuple(map(math.prod, shapes)))
        self._sites = tuple(sites)
        self._gated = gated
        self._rest = rest

    def apply(self, z: Layers, gated: Layers, rest: Layers) -> tuple[Layers, Layers]:
        """Effective parameters; differentiable in the gates and in the parameters.

        Parameters
        ----------
        z: gates (R, *site.shape) in [0, 1], site by site.
        gated, rest: parameters (R, *shape).

        Returns
        -------
        The same parameters, those that a site scales multiplied by its gates, the others as given.
        """
        parameters = self._by_name(gated, rest)
        for site, gates in zip(self._sites, z, strict=True):
            for span in site.scaled:
                whole = parameters[span.parameter]
                parameters[span.parameter] = whole * _factor(span, gates, whole)
        return self._layers(parameters)

    def keep(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """What is left of every parameter, bool (R, G) and (R, O), of kept units, bool (R, U)."""
        rows = len(kept)
        flat = [
            torch.ones(rows, layout.size, dtype=torch.bool, device=kept.device)
            for layout in (self._gated, self._rest)
        ]
        parameters = self._by_name(self._gated.split(flat[0]), self._rest.split(flat[1]))
        for site, units in zip(self._sites, self.layout.split(kept), strict=True):
            for span in (*site.scaled, *site.removed):
                whole = parameters[span.parameter]
                whole &= _factor(span, units, whole)
        return flat[0], flat[1]

    def _by_name(self, gated: Layers, rest: Layers) -> dict[str, Tensor]:
        names = (*self._gated.names, *self._rest.names)
        return dict(zip(names, (*gated, *rest), strict=True))

    def _layers(self, parameters: dict[str, Tensor]) -> tuple[Layers, Layers]:
        gated = tuple(parameters[name] for name in self._gated.names)
        return gated, tuple(parameters[name] for name in self._rest.names)


def _factor(span: Span, units: Tensor, whole: Tensor) -> Tensor:
    """Gates (R, n) or (R, C, H, W) of a span's units, to be multiplied with `whole` (R, *shape)."""
    rows, length = len(units), whole.shape[span.dim + 1]
    along = units.reshape(rows, -1).repeat_interleave(span.block, dim=1)
    after = length - span.offset - along.shape[1]
    if span.offset or after:  # entries that belong to no unit of the site
        before = along.new_ones(rows, span.offset)
        along = torch.cat([before, along, along.new_ones(rows, after)], dim=1)
    trailing = whole.dim() - span.dim - 2
    return along.reshape(rows, *[1] * span.dim, length, *[1] * trailing)
