"""Tables beside that of pairs: what each seed decides, and what inputs, units and all masks say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from rich.console import Console, RenderableType
from rich.console import Group as Lines

from ticketsweep.analysis.attribution import Attribution, Estimate, FactorShare
from ticketsweep.analysis.consensus import LayerConsensus
from ticketsweep.analysis.layers import ALL_LAYERS
from ticketsweep.analysis.stability import OTHER_INIT, SAME_INIT, Stability
from ticketsweep.display.figures import NONE
from ticketsweep.display.terminal import Column, paragraph, tables

Group = tuple[object, ...]
KeyColumns = Callable[[Sequence[Group]], list[Column]]

SEEDS_NOTE = (
    "shares of the ticket beyond chance ({layer}), taken apart as in an analysis of variance: "
    "those of the first column add up to 1; p: of a permutation test that the seed fixes nothing."
)
LAYERS_NOTE = (
    "given inputs (units): overlap beyond a chance that keeps how much of each input (unit) is "
    "kept, so without what agrees only because all masks prefer the same inputs (units). "
    "Chance of the core and Nogueira's stability take all replicates for independent."
)


def seeds_table(
    console: Console, groups: Mapping[Group, Stability], *, key_columns: KeyColumns
) -> RenderableType | None:
    """What each seed decides, over all layers (or in the one there is), and what cannot be told.

    None where nothing can be said; a sentence alone where only one kind of seed varies.
    """
    found = {group: each.attribution[-1] for group, each in groups.items() if each.attribution}
    cautions = list(dict.fromkeys(each for of in found.values() for each in of.cautions))
    said = paragraph("; ".join(cautions)) if cautions else None
    lines = [
        (group, *line)
        for group, attribution in found.items()
        if len(attribution.factors) > 1
        for line in _seed_lines(attribution)
    ]
    if not lines:
        return said
    columns = [
        Column("seed", [seed for _, seed, _, _ in lines], right=False),
        Column("share that it\nfixes alone", [_share(alone) for _, _, alone, _ in lines], False),
        Column("share lost where\nonly it differs", [_total(of) for _, _, _, of in lines], False),
        Column("p", [_p(of) for _, _, _, of in lines]),
    ]
    drawn = tables(console, key_columns([group for group, *_ in lines]), columns)
    layer = next(iter(found.values())).layer
    note = paragraph(SEEDS_NOTE.format(layer=layer))
    return Lines(drawn, "", note, *([said] if said else []))


def layers_table(
    console: Console, groups: Mapping[Group, Stability], *, key_columns: KeyColumns
) -> RenderableType | None:
    """Layer by layer: inputs and units in use, what agrees beyond them, and what all masks keep.

    Of the pairs that differ most: with other initial weights where there are such. None where there
    is nothing to say.
    """
    lines = []
    for group, stability in groups.items():
        consensus = {each.layer: each for each in stability.consensus}
        for row in stability.rows:
            if row.differs == _widest(stability):
                lines.append((group, row, consensus.get(row.layer)))
    if not lines:
        return None
    rows = [row for _, row, _ in lines]
    beyond = {row.differs for row in rows}
    which = beyond.pop() if len(beyond) == 1 else "widest"
    columns = [
        Column("inputs\nused %", [_percent(row.inputs_alive) for row in rows]),
        Column("units\nused %", [_percent(row.units_alive) for row in rows]),
        Column(f"{which}\noverlap", [_figure(row.corrected) for row in rows]),
        Column("given\ninputs", [_figure(row.inputs_given) for row in rows]),
        Column("given\nunits", [_figure(row.units_given) for row in rows]),
        Column("core %\n(chance)", [_core(of) for _, _, of in lines]),
        Column("Nogueira's\nstability", [_figure(of.nogueira if of else None) for *_, of in lines]),
    ]
    key = key_columns([group for group, *_ in lines])
    key.append(Column("layer", [row.layer for row in rows], right=False, wrap=True))
    styles = ["bold" if row.layer == ALL_LAYERS else "" for row in rows]
    masks = {of.masks for _, _, of in lines if of}
    core = f"core: gates that all {masks.pop()} replicates keep; " if len(masks) == 1 else ""
    return Lines(
        tables(console, key, columns, styles=styles), "", paragraph(f"{core}{LAYERS_NOTE}")
    )


def seeds_records(attribution: Attribution) -> list[dict[str, object]]:
    """One flat record a seed, and one each for what is common and for the interactions."""
    parts: list[tuple[str, FactorShare | None, Estimate | None]] = [
        ("common", None, attribution.common),
        *((factor.factor, factor, factor.alone) for factor in attribution.factors),
        ("interactions", None, attribution.rest),
    ]
    return [
        {
            "layer": attribution.layer,
            "part": part,
            "seeds": factor.seeds if factor else None,
            **_flat("share", share),
            **_flat("lost", factor.total if factor else None),
            "p": factor.test.p if factor and factor.test else None,
            "smallest_p": factor.test.smallest if factor and factor.test else None,
            "cautions": list(attribution.cautions),
        }
        for part, factor, share in parts
    ]


def layer_record(consensus: LayerConsensus) -> dict[str, object]:
    """Everything that is known of all masks of a layer, as plain values."""
    return {**asdict(consensus), "core": consensus.core, "union": consensus.union}


def _seed_lines(
    attribution: Attribution,
) -> list[tuple[str, Estimate | None, FactorShare | None]]:
    """Name, share and factor of each line, in the order in which they add up."""
    return [
        *((factor.factor, factor.alone, factor) for factor in attribution.factors),
        ("(interactions)", attribution.rest, None),
        ("(common to all)", attribution.common, None),
    ]


def _widest(stability: Stability) -> str:
    kinds = {row.differs for row in stability.rows}
    return OTHER_INIT if OTHER_INIT in kinds else SAME_INIT


def _share(estimate: Estimate | None) -> str:
    return str(estimate or NONE)


def _total(factor: FactorShare | None) -> str:
    return "" if factor is None else _share(factor.total)


def _p(factor: FactorShare | None) -> str:
    if factor is None:
        return ""
    return f"{factor.test.p:.2g}" if factor.test else NONE


def _figure(value: float | None) -> str:
    return NONE if value is None else f"{value:z.2f}"


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.0f}"


def _core(consensus: LayerConsensus | None) -> str:
    if consensus is None:
        return NONE
    return f"{100 * consensus.core:.1f} ({100 * consensus.by_chance[-1]:.1f})"


def _flat(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    interval = estimate.interval if estimate else None
    return {
        name: estimate.value if estimate else None,
        f"{name}_low": interval.low if interval else None,
        f"{name}_high": interval.high if interval else None,
    }
