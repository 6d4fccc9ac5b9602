"""What each seed decides: planted shares that must be recovered, and what cannot be told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ticketsweep.analysis.attribution import Attribution, FactorShare, attribute
from ticketsweep.analysis.layers import ALL_LAYERS, LayerBits, Seeds
from ticketsweep.analysis.overlap import pack
from ticketsweep.analysis.pairwise import FIGURES, PairFigures, pair_figures
from ticketsweep.analysis.stability import sweep_stability, trial_stability
from ticketsweep.seeds import replicate_plan

SHARES = {"common": 0.1, "init": 0.3, "data": 0.15, "gate": 0.05, "rest": 0.4}


REPETITIONS = 100


def crossed(init: int, data: int, gate: int, root: int = 0) -> Seeds:
    plan = replicate_plan(root, init=init, data=data, gate=gate)
    return Seeds(
        init=np.array([replicate.init_seed for replicate in plan]),
        data=np.array([replicate.data_seed for replicate in plan]),
        gate=np.array([replicate.gate_seed for replicate in plan]),
    )


def planted(
    rng: np.random.Generator, seeds: Seeds, shares: dict[str, float], gates: int = 4_000
) -> LayerBits:
    """Masks of which each seed decides its share of the gates, and the replicate the rest.

    Of the gates that a seed decides a fifth is kept, drawn anew for every seed, so all masks keep
    equally many.
    """
    masks = np.zeros((len(seeds.init), gates), dtype=bool)
    counts = [round(share * gates) for share in shares.values()]
    starts = np.cumsum([0, *counts])
    for of, start, count in zip(shares, starts, counts, strict=False):
        levels = {
            "common": np.zeros(len(masks), dtype=int),
            "rest": np.arange(len(masks)),
        }.get(of)
        if levels is None:
            levels = np.unique(getattr(seeds, of), return_inverse=True)[1]
        drawn = np.argsort(rng.random((levels.max() + 1, count)), axis=1) < count // 5
        masks[:, start : start + count] = drawn[levels]
    return LayerBits("fc1", (gates // 40, 40), pack(masks))


def attributed(layer: LayerBits, seeds: Seeds) -> Attribution:
    found = attribute(ALL_LAYERS, [pair_figures([layer], seeds)])
    assert found is not None
    return found


def factor(found: Attribution, name: str) -> FactorShare:
    return next(each for each in found.factors if each.factor == name)


def estimates(found: Attribution) -> dict[str, tuple[float, float, float]]:
    """Every share with its interval."""
    named = {"common": found.common, "rest": found.rest}
    for each in found.factors:
        named |= {each.factor: each.alone, f"{each.factor} total": each.total}
    shown = {}
    for name, estimate in named.items():
        assert estimate is not None
        interval = estimate.interval
        ends = (interval.low, interval.high) if interval else (np.nan, np.nan)
        shown[name] = (estimate.value, *ends)
    return shown


def truths(shares: dict[str, float]) -> dict[str, float]:
    return shares | {f"{of} total": shares[of] + shares["rest"] for of in ("init", "data", "gate")}


def coverage(
    design: tuple[int, int, int], shares: dict[str, float], repetitions: int
) -> dict[str, float]:
    """How often each interval holds the planted share."""
    rng = np.random.default_rng(5)
    seeds = crossed(*design)
    held: dict[str, list[bool]] = {}
    for _ in range(repetitions):
        found = estimates(attributed(planted(rng, seeds, shares), seeds))
        for name, truth in truths(shares).items():
            if name in found:
                held.setdefault(name, []).append(found[name][1] <= truth <= found[name][2])
    return {name: float(np.mean(each)) for name, each in held.items()}


def test_planted_shares_are_recovered() -> None:
    seeds = crossed(4, 4, 4)
    found = estimates(attributed(planted(np.random.default_rng(0), seeds, SHARES, 100_000), seeds))
    for name, truth in truths(SHARES).items():
        value, low, high = found[name]
        assert value == pytest.approx(truth, abs=0.01)
        assert low <= value <= high


@pytest.mark.parametrize("design", [(3, 3, 1), (3, 4, 2), (2, 1, 2), (1, 3, 3)])
def test_shares_add_up_to_one(design: tuple[int, int, int]) -> None:
    seeds = crossed(*design)
    found = attributed(planted(np.random.default_rng(1), seeds, SHARES), seeds)
    parts = [found.common, found.rest, *(each.alone for each in found.factors)]
    assert sum(part.value for part in parts if part is not None) == pytest.approx(1)


def test_what_is_lost_without_a_seed_is_what_pairs_differ_by_that_differ_in_it_alone() -> None:
    seeds = crossed(3, 3, 1)
    stability = trial_stability([planted(np.random.default_rng(2), seeds, SHARES)], seeds)
    (of_layer, pooled) = stability.attribution
    assert (of_layer.layer, pooled.layer) == ("fc1", ALL_LAYERS)
    rows = {row.differs: row for row in stability.rows if row.layer == ALL_LAYERS}
    for name in ("init", "data"):
        total = factor(pooled, name).total
        row = rows[name]
        assert total is not None
        assert total.interval is not None
        assert row.corrected is not None
        assert row.low is not None
        assert row.high is not None
        assert total.value == pytest.approx(1 - row.corrected)
        assert (total.interval.low, total.interval.high) == pytest.approx(
            (1 - row.high, 1 - row.low)
        )


def test_the_seed_that_decides_is_told_from_the_one_that_does_not() -> None:
    shares = {"common": 0.1, "init": 0.4, "rest": 0.5}
    seeds = crossed(4, 4, 1)
    found = attributed(planted(np.random.default_rng(3), seeds, shares), seeds)
    tests = {each.factor: each.test for each in found.factors}
    assert tests["init"] is not None
    assert tests["data"] is not None
    assert tests["init"].p < 0.01
    assert tests["data"].p > 0.05


def test_planted_shares_are_covered() -> None:
    covered = coverage((3, 3, 1), SHARES | {"gate": 0, "common": 0.15}, repetitions=REPETITIONS)
    assert set(covered) == {"common", "init", "data", "rest", "init total", "data total"}
    assert min(covered.values()) >= 0.93 - 2 * (0.93 * 0.07 / REPETITIONS) ** 0.5, covered


def with_overlaps(seeds: Seeds, overlap: NDArray[np.float64]) -> PairFigures:
    """Pairs whose overlaps are given, (M, M); nothing else about them is."""
    empty = LayerBits("fc1", (1,), np.zeros((len(seeds.init), 1), np.uint8))
    pairs = pair_figures([empty], seeds)
    figures = np.full((len(FIGURES), len(pairs.pairs)), np.nan)
    figures[FIGURES.index("corrected")] = overlap[pairs.pairs[:, 0], pairs.pairs[:, 1]]
    return replace(pairs, figures={ALL_LAYERS: figures})


@pytest.mark.parametrize("draw", ["normal", "uniform"])
@pytest.mark.parametrize("design", [(3, 3, 1), (4, 3, 1)])
def test_shares_of_seeds_that_fix_unlike_shares_are_covered(
    design: tuple[int, int, int], draw: str
) -> None:
    """Each init fixes a share of its own, each data order too, and pairs differ besides."""
    rng = np.random.default_rng(9)
    seeds = crossed(*design)
    held: dict[str, list[bool]] = {"init": [], "data": [], "rest": []}
    for _ in range(REPETITIONS):
        overlap = 0.1 + 0.02 * rng.normal(size=(len(seeds.init), len(seeds.init)))
        for of, share in ((seeds.init, 0.3), (seeds.data, 0.2)):
            level = np.unique(of, return_inverse=True)[1]
            spread = rng.normal if draw == "normal" else lambda size: rng.uniform(-1.7, 1.7, size)
            own = share + 0.08 * spread(size=level.max() + 1)
            overlap += np.where(of[:, None] == of, own[level], 0)
        found = attribute(ALL_LAYERS, [with_overlaps(seeds, overlap)])
        assert found is not None
        for name, (_, low, high) in estimates(found).items():
            truth = {"init": 0.3, "data": 0.2, "rest": 0.4}.get(name)
            if truth is not None:
                held[name].append(low <= truth <= high)
    covered = {name: float(np.mean(each)) for name, each in held.items()}
    assert min(covered.values()) >= 0.93 - 2 * (0.93 * 0.07 / REPETITIONS) ** 0.5, covered


def test_trials_of_the_same_seeds_are_averaged() -> None:
    rng = np.random.default_rng(4)
    seeds = crossed(3, 3, 1)
    layers = [planted(rng, seeds, SHARES) for _ in range(2)]
    alone = [estimates(attributed(layer, seeds)) for layer in layers]
    both = sweep_stability((0, [layer], seeds) for layer in layers)[0].attribution[-1]
    for name, (value, low, high) in estimates(both).items():
        assert value == pytest.approx((alone[0][name][0] + alone[1][name][0]) / 2)
        assert low <= value <= high
    assert factor(both, "init").test is not None


def test_trials_of_other_seeds_are_averaged_without_a_test() -> None:
    rng = np.random.default_rng(4)
    trials = [(0, [planted(rng, of, SHARES)], of) for of in (crossed(3, 3, 1), crossed(3, 3, 1, 1))]
    found = sweep_stability(trials)[0].attribution[-1]
    assert factor(found, "init").alone is not None
    assert factor(found, "init").test is None


@pytest.mark.parametrize(
    ("design", "cautions"),
    [
        ((4, 4, 3), []),
        ((3, 3, 1), ["one gate seed: what it decides is part of what is common to all"]),
        (
            (2, 2, 1),
            [
                "one gate seed: what it decides is part of what is common to all",
                "2 init and 2 data seeds allow no interval, 3 do",
                "too few seeds to test init (p is never below 0.5) and data (p is never below 0.5)",
            ],
        ),
        (
            (1, 3, 1),
            [
                "only the data seed varies, so what it decides cannot be told from what it "
                "decides together with the init or gate seed"
            ],
        ),
    ],
)
def test_what_the_seeds_cannot_tell_is_said(
    design: tuple[int, int, int], cautions: list[str]
) -> None:
    seeds = crossed(*design)
    found = attributed(planted(np.random.default_rng(5), seeds, SHARES), seeds)
    assert list(found.cautions) == cautions
    assert all(caution in str(found) for caution in cautions)


def test_of_one_seed_that_varies_only_the_loss_is_known() -> None:
    seeds = crossed(1, 3, 1)
    found = attributed(planted(np.random.default_rng(6), seeds, SHARES), seeds)
    (data,) = found.factors
    assert (data.alone, data.test) == (None, None)
    assert found.common is not None
    assert found.rest is not None
    assert data.total is not None
    assert found.common.value + found.rest.value == pytest.approx(1)
    assert data.total.value == pytest.approx(found.rest.value)


@pytest.mark.parametrize("share", [0, 1])
def test_masks_that_keep_nothing_or_everything_have_no_shares(share: int) -> None:
    seeds = crossed(2, 2, 1)
    found = attributed(LayerBits("fc1", (3, 3), pack(np.full((4, 9), share == 1))), seeds)
    assert (found.common, found.rest) == (None, None)
    assert all((f.alone, f.total, f.test) == (None, None, None) for f in found.factors)
    assert "unknown common to all" in str(found)


def test_a_replicate_that_diverged_leaves_shares_and_takes_the_test() -> None:
    seeds = crossed(3, 3, 1)
    layer = planted(np.random.default_rng(7), seeds, SHARES)
    left = LayerBits("fc1", layer.shape, layer.bits[1:])
    found = attributed(left, Seeds(seeds.init[1:], seeds.data[1:], seeds.gate[1:]))
    init = factor(found, "init")
    assert init.alone is not None
    assert init.test is None


def test_an_attribution_prints_its_shares_with_intervals_and_p() -> None:
    seeds = crossed(4, 4, 1)
    lines = str(attributed(planted(np.random.default_rng(8), seeds, SHARES), seeds)).splitlines()
    assert lines[0].startswith("all layers: 0.1")
    assert "] common to all" in lines[0]
    assert lines[1].startswith("  init: 0.3")
    assert "] lost where it alone differs, p = 0.0" in lines[1]
    assert lines[3].startswith("  0.4")
    assert lines[3].endswith("] interactions")
