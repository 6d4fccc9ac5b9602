"""Tickets of different initial weights: their masks on each other's weights, and matched units."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ticketsweep.analysis.alignment import Agreement, Ticket, aligned_overlap
from ticketsweep.analysis.matching import Matching, match_units, permuted
from ticketsweep.errors import ModelError
from ticketsweep.progress import StageProgress
from ticketsweep.revisit.jobs import DRAWS, RESTARTS
from ticketsweep.revisit.pairs import Work
from ticketsweep.revisit.predicting import Measures, accuracies
from ticketsweep.revisit.tickets import TicketPack, classes_of
from ticketsweep.seeds import Replicate
from ticketsweep.symmetry import Permutable
from ticketsweep.train.controls import SHUFFLED_MASK, control_mask
from ticketsweep.train.learning import UnitGating, WeightGating
from ticketsweep.train.models.symmetry import permutation_symmetry
from ticketsweep.train.pack import Layout, Weights
from ticketsweep.train.units import Units

Arrays = dict[str, NDArray[Any]]
Symmetry = tuple[Permutable, ...]
Row = tuple[int, int]  # of weights, and of masks


def transferred(pack: TicketPack, work: Work) -> Generator[StageProgress, None, Measures]:
    """Test accuracy of the first replicate's mask on the second's weights W_k.

    Beside it that of the first's mask with its units relabelled like the second's, by their weights
    W_k alone, so that nothing of the second's own ticket is used; of the first's gates shuffled
    within each layer; and of both replicates' own tickets. W_k hangs on the init seed alone, so a
    mask is scored once on the weights of each.
    """
    rows = [(_first_of_init(pack, second), pack.row_of(first)) for first, second in work.pairs]
    networks = list(dict.fromkeys(rows))
    own = accuracies(pack, pack.classes)
    plain = accuracies(pack, (yield from _classes(pack, pack.kept, networks, work)))
    shuffled = _shuffled(pack)
    control = accuracies(pack, (yield from _classes(pack, shuffled, networks, work)))
    symmetry = symmetry_of(pack)
    matched: list[float | None] = [None] * len(networks)
    if symmetry is not None:
        matched = yield from _matched_accuracies(pack, networks, symmetry, work)
    found: Measures = []
    for (_, second), row in zip(work.pairs, rows, strict=True):
        at = networks.index(row)
        found.append(
            {
                "accuracy": plain[at],
                "matched_accuracy": matched[at],
                "shuffled_accuracy": control[at],
                "own_accuracy": own[pack.row_of(second)],
                "source_accuracy": own[row[1]],
            }
        )
    return found


def aligned(pack: TicketPack, work: Work) -> Generator[StageProgress, None, Measures]:
    """Overlap of each pair's masks before and after their units are matched by the tickets.

    Each against what random masks share that keep as many gates of each layer and, as `inputs_`,
    as many of each input too; after matching, of random masks that are matched alike. Overlaps are
    shares of the smaller mask. No figures where the model's symmetry is not known.
    """
    symmetry = symmetry_of(pack)
    if symmetry is None:
        return [{} for _ in work.pairs]
    found: Measures = []
    for first, second in work.pairs:
        a, b = (_ticket(pack, pack.row_of(each)) for each in (first, second))
        measures: dict[str, float | None] = {}
        matching: Matching | None = None
        for chance, prefix in (("layers", ""), ("inputs", "inputs_")):
            alignment = aligned_overlap(
                a,
                b,
                symmetry,
                chance="inputs" if chance == "inputs" else "layers",
                draws=DRAWS,
                restarts=RESTARTS,
                matching=matching,
            )
            matching, overlap = alignment.matching, alignment.pooled
            for name, agreement in (("", overlap.before), ("matched_", overlap.after)):
                if not prefix:
                    measures[f"{name}overlap"] = _share(agreement, agreement.shared)
                measures[f"{prefix}{name}overlap_chance"] = _share(agreement, agreement.chance)
                measures[f"{prefix}{name}corrected"] = agreement.corrected
            measures[f"{prefix}matched_z"] = overlap.after.z
        found.append(measures)
        yield StageProgress(work.kind, len(found), len(work.pairs))
    return found


def symmetry_of(pack: TicketPack) -> Symmetry | None:
    """Which units of the model can change places; None where that is not known, or none can."""
    try:
        symmetry = permutation_symmetry(pack.bench.plan.build(), input_shape=pack.input_shape)
    except ModelError:
        return None
    return symmetry or None


def _matched_accuracies(
    pack: TicketPack, rows: Sequence[Row], symmetry: Symmetry, work: Work
) -> Generator[StageProgress, None, list[float | None]]:
    orders: dict[tuple[int, int], Mapping[str, NDArray[np.int64]]] = {}
    found: list[float | None] = []
    some = pack.bench.evaluator.networks_at_once
    for start in range(0, len(rows), some):
        masks: list[Weights] = []
        places: list[Row] = []
        for of, by in rows[start : start + some]:
            inits = of, _first_of_init(pack, pack.replicates[by])
            if inits not in orders:
                a, b = (_weights(pack, row) for row in inits)
                orders[inits] = match_units(a, b, symmetry, restarts=RESTARTS).permutations
            places.append((of, len(masks)))
            masks.append(_relabelled(pack, by, orders[inits], symmetry))
        found += accuracies(pack, (yield from _classes(pack, _stacked(masks), places, work)))
    return found


def _first_of_init(pack: TicketPack, replicate: Replicate) -> int:
    """The first row with the same weights W_k."""
    return [each.init_seed for each in pack.replicates].index(replicate.init_seed)


def _classes(
    pack: TicketPack, masks: Weights, rows: Sequence[Row], work: Work
) -> Generator[StageProgress, None, NDArray[np.int64]]:
    """What the pack's weights under these masks take the images for."""
    return classes_of(pack.bench, pack.weights, masks, rows, stage=work.kind)


def _relabelled(
    pack: TicketPack, row: int, orders: Mapping[str, NDArray[np.int64]], symmetry: Symmetry
) -> Weights:
    """What a ticket keeps, its units in other places: one row."""
    own = permuted(_by_name(pack, pack.kept, row), orders, symmetry)
    tensors = [{name: torch.from_numpy(mask) for name, mask in own.items()}]
    network, device = pack.bench.network, pack.kept.gated.device
    return Weights(
        network.gated.flatten(tensors).to(device), network.rest.flatten(tensors).to(device)
    )


def _shuffled(pack: TicketPack) -> Weights:
    """The masks of the control of that name, as the trial's own control has them."""
    network, packed = pack.bench.network, pack.bench.packed
    gating = (
        UnitGating(packed, Units(network.sites, network.gated, network.rest))
        if network.sites
        else WeightGating(packed, multiplies=False)
    )
    return control_mask(SHUFFLED_MASK, pack.gates, gating, network.gated, pack.replicates)


def _ticket(pack: TicketPack, row: int) -> Ticket:
    masks = _by_name(pack, pack.kept, row)
    return Ticket(
        {name: masks[name] for name in pack.bench.network.gated.names}, _weights(pack, row)
    )


def _weights(pack: TicketPack, row: int) -> Arrays:
    return _by_name(pack, pack.weights, row)


def _by_name(pack: TicketPack, weights: Weights, row: int) -> Arrays:
    """Every parameter of one replicate."""
    network = pack.bench.network
    return _named(network.gated, weights.gated[row]) | _named(network.rest, weights.rest[row])


def _named(layout: Layout, row: Tensor) -> Arrays:
    layers = layout.split(row.unsqueeze(0).cpu())
    return {name: layer[0].numpy() for name, layer in zip(layout.names, layers, strict=True)}


def _stacked(rows: list[Weights]) -> Weights:
    return Weights(torch.cat([r.gated for r in rows]), torch.cat([r.rest for r in rows]))


def _share(agreement: Agreement, shared: float) -> float:
    return shared / agreement.largest if agreement.largest else math.nan
