"""Laws of a trial's stability, and planted truth that it must recover."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import combinations
from time import process_time

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import hypergeom

from ticketsweep.analysis.layers import ALL_LAYERS, LayerBits, Seeds
from ticketsweep.analysis.overlap import pack
from ticketsweep.analysis.pairwise import FIGURES
from ticketsweep.analysis.stability import (
    OTHER_INIT,
    SAME_INIT,
    Stability,
    StabilityRow,
    sweep_stability,
    trial_stability,
)
from ticketsweep.seeds import replicate_plan

GATES, KEPT = 2_000, 400


def crossed(init: int, data: int, gate: int, root: int = 0) -> Seeds:
    plan = replicate_plan(root, init=init, data=data, gate=gate)
    return Seeds(
        init=np.array([replicate.init_seed for replicate in plan]),
        data=np.array([replicate.data_seed for replicate in plan]),
        gate=np.array([replicate.gate_seed for replicate in plan]),
    )


def layer(name: str, masks: NDArray[np.bool_]) -> LayerBits:
    return LayerBits(name, masks[0].shape, pack(masks))


def random_layers(replicates: int, seed: int = 0) -> list[LayerBits]:
    rng = np.random.default_rng(seed)
    return [
        layer("fc1", rng.random((replicates, 6, 50)) < 0.2),
        layer("fc2", rng.random((replicates, 77)) < 0.7),
    ]


def row(stability: Stability, differs: str, name: str = ALL_LAYERS) -> StabilityRow:
    return next(r for r in stability.rows if (r.layer, r.differs) == (name, differs))


def assert_alike(one: Stability, other: Stability) -> None:
    """Equal up to rounding."""
    for x, y in zip(one.rows, other.rows, strict=True):
        assert x.seeds == y.seeds
        flat = asdict(replace(y, seeds={})) | {"seeds": 0}
        assert asdict(replace(x, seeds={})) | {"seeds": 0} == pytest.approx(flat)


def test_pairs_are_told_apart_by_the_seeds_in_which_they_differ() -> None:
    stability = trial_stability(random_layers(12), crossed(2, 3, 2))
    pairs = {r.differs: r.pairs for r in stability.rows if r.layer == "fc1"}
    assert pairs == {
        "data": 2 * 3 * 2,
        "gate": 2 * 3 * 1,
        "data+gate": 2 * 3 * 2,
        "init": 1 * 3 * 2,
        "init+data": 2 * 3 * 2,
        "init+gate": 2 * 3,
        "init+data+gate": 2 * 6,
        SAME_INIT: 2 * 15,
        OTHER_INIT: 36,
    }
    assert row(stability, "data").seeds == {"init": 2, "data": 3, "gate": 2}
    assert [r.layer for r in stability.rows] == ["fc1"] * 9 + ["fc2"] * 9 + [ALL_LAYERS] * 9


def test_every_figure_equals_a_slow_count_over_pairs() -> None:
    seeds, layers = crossed(2, 2, 2), random_layers(8)
    stability = trial_stability(layers, seeds)
    masks = {
        each.layer: np.unpackbits(each.bits, axis=1, count=each.size, bitorder="little")
        for each in layers
    }
    wanted = [
        (x, y)
        for x, y in combinations(range(8), 2)
        if seeds.init[x] == seeds.init[y]
        and seeds.data[x] != seeds.data[y]
        and seeds.gate[x] == seeds.gate[y]
    ]
    assert len(wanted) == 4
    for name, parts in [("fc1", ["fc1"]), ("fc2", ["fc2"]), (ALL_LAYERS, ["fc1", "fc2"])]:
        jaccards, corrected, z, densities = [], [], [], []
        for x, y in wanted:
            inter = union = kept = gates = excess = headroom = variance = 0.0
            for part in parts:
                one, other = masks[part][x].astype(bool), masks[part][y].astype(bool)
                a, b, n = one.sum(), other.sum(), one.size
                inter += (one & other).sum()
                union += (one | other).sum()
                kept += a + b
                gates += n
                excess += (one & other).sum() - a * b / n
                headroom += min(a, b) - a * b / n
                variance += hypergeom.var(n, a, b)
            jaccards.append(inter / union)
            corrected.append(excess / headroom)
            z.append(excess / variance**0.5)
            densities.append(kept / gates / 2)
        found = row(stability, "data", name)
        assert found.jaccard == pytest.approx(np.mean(jaccards))
        assert found.corrected == pytest.approx(np.mean(corrected))
        assert found.z == pytest.approx(np.mean(z))
        assert found.density == pytest.approx(np.mean(densities))


def test_the_score_is_the_pooled_overlap_of_pairs_with_the_same_init() -> None:
    stability = trial_stability(random_layers(8), crossed(2, 2, 2))
    assert stability.score == row(stability, SAME_INIT).corrected


def test_one_replicate_per_init_has_no_score() -> None:
    stability = trial_stability(random_layers(4), crossed(4, 1, 1))
    assert stability.score is None
    assert {r.differs for r in stability.rows} == {"init", OTHER_INIT}


def test_one_replicate_is_nothing_to_compare() -> None:
    stability = trial_stability(random_layers(1), crossed(1, 1, 1))
    assert (stability.rows, stability.score, stability.attribution) == ((), None, ())
    assert str(stability) == "nothing to compare: no two replicates differ in a seed"


def test_replicates_with_all_seeds_equal_are_not_a_pair() -> None:
    seed = np.array([5, 5, 5])
    stability = trial_stability(random_layers(3), Seeds(seed, np.array([1, 1, 2]), seed))
    assert {(r.differs, r.pairs) for r in stability.rows} == {("data", 2), (SAME_INIT, 2)}


def test_equal_masks_have_overlap_one_and_an_interval_without_width() -> None:
    mask = np.random.default_rng(0).random((1, 500)) < 0.1
    found = row(
        trial_stability([layer("fc1", np.repeat(mask, 3, axis=0))], crossed(1, 3, 1)), "data"
    )
    assert (found.corrected, found.low, found.high) == pytest.approx((1, 1, 1))


def test_no_interval_ends_above_one() -> None:
    masks = np.random.default_rng(0).random((1, 500)) < np.full((3, 1), 0.1)
    masks[1, :20] ^= True
    found = row(trial_stability([layer("fc1", masks)], crossed(1, 3, 1)), "data")
    assert found.corrected is not None
    assert found.high == 1
    assert found.low is not None
    assert found.low < found.corrected - (1 - found.corrected)


@pytest.mark.parametrize("design", [(2, 2, 1), (1, 2, 1), (2, 3, 1), (5, 2, 2)])
def test_two_seeds_of_a_factor_that_varies_allow_no_interval(design: tuple[int, int, int]) -> None:
    replicates = int(np.prod(design))
    found = row(trial_stability(random_layers(replicates), crossed(*design)), "data")
    assert found.corrected is not None
    assert found.low is None
    assert found.high is None


def test_a_factor_with_one_seed_is_named_as_a_condition() -> None:
    found = row(trial_stability(random_layers(3), crossed(1, 3, 1)), "data")
    assert found.conditional_on == ("init", "gate")
    assert found.low is not None
    assert "given one init and one gate seed" in str(found)


def test_a_row_prints_its_overlap_with_interval_and_n() -> None:
    shown = StabilityRow(
        layer="fc1",
        differs="data+gate",
        pairs=36,
        undefined=0,
        trials=2,
        seeds={"init": 1, "data": 8, "gate": 3},
        jaccard=0.25,
        expected_jaccard=0.055,
        corrected=0.41,
        low=0.3812,
        high=0.44,
        z=30.0,
        density=0.1,
        **dict.fromkeys(FIGURES[5:]),
    )
    assert shown.overlap == "0.41 [0.38, 0.44], 8 data x 3 gate seeds"
    assert str(shown) == (
        "fc1, data and gate differ: 0.41 [0.38, 0.44], 8 data x 3 gate seeds, 36 pairs, "
        "mean of 2 trials, Jaccard 0.25 (chance 0.06), given one init seed"
    )


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_masks_that_keep_nothing_or_everything_give_a_sentence_and_no_nan(share: float) -> None:
    stability = trial_stability([layer("fc1", np.full((4, 9), share == 1))], crossed(2, 2, 1))
    found = row(stability, "data")
    assert stability.score is None
    assert (found.corrected, found.z, found.undefined, found.pairs) == (None, None, 2, 2)
    assert found.density == share
    assert "undefined: a mask of every pair keeps all gates or none" in str(found)
    json.dumps([asdict(r) for r in stability.rows], allow_nan=False)


def test_a_pair_without_overlap_is_left_out_of_the_mean_and_counted() -> None:
    masks = np.random.default_rng(0).random((3, 100)) < 0.3
    masks[2] = False
    found = row(trial_stability([layer("fc1", masks)], crossed(1, 3, 1)), "data")
    alone = row(trial_stability([layer("fc1", masks[:2])], crossed(1, 2, 1)), "data")
    assert found.corrected == pytest.approx(alone.corrected)
    assert (found.pairs, found.undefined, found.low) == (3, 2, None)
    assert "2 of them undefined" in str(found)


def test_renaming_seeds_and_reordering_gates_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    masks = rng.random((9, 300)) < 0.2
    one = trial_stability([layer("fc1", masks)], crossed(3, 3, 1))
    other = trial_stability(
        [layer("fc1", masks[:, rng.permutation(300)])], crossed(3, 3, 1, root=8)
    )
    assert_alike(one, other)


def test_reordering_replicates_changes_nothing() -> None:
    order = np.random.default_rng(4).permutation(9)
    layers, seeds = random_layers(9), crossed(3, 3, 1)
    mixed = [LayerBits(each.layer, each.shape, each.bits[order]) for each in layers]
    one = trial_stability(layers, seeds)
    other = trial_stability(mixed, Seeds(seeds.init[order], seeds.data[order], seeds.gate[order]))
    assert_alike(one, other)


def test_layers_that_do_not_fit_together_are_refused() -> None:
    one, other = random_layers(4)
    seeds = crossed(2, 2, 1)
    with pytest.raises(ValueError, match="at least one layer"):
        trial_stability([], seeds)
    with pytest.raises(ValueError, match="each named once"):
        trial_stability([one, one], seeds)
    with pytest.raises(ValueError, match="none 'all layers'"):
        trial_stability([LayerBits(ALL_LAYERS, one.shape, one.bits)], seeds)
    with pytest.raises(ValueError, match="masks of the 4 replicates"):
        trial_stability([one, LayerBits("fc2", other.shape, other.bits[:3])], seeds)


def test_a_sweep_of_one_trial_is_that_trial() -> None:
    layers, seeds = random_layers(9), crossed(3, 3, 1)
    assert sweep_stability([("a", layers, seeds)]) == {"a": trial_stability(layers, seeds)}


def test_a_trial_repeated_with_the_same_seeds_tells_nothing_new() -> None:
    """An interval over pairs, or one that took the trials for independent, would shrink."""
    layers, seeds = random_layers(9), crossed(3, 3, 1)
    once = trial_stability(layers, seeds)
    thrice = sweep_stability([("a", layers, seeds)] * 3)["a"]
    for x, y in zip(once.rows, thrice.rows, strict=True):
        assert y.trials == 3
        assert y.pairs == 3 * x.pairs
        assert (y.corrected, y.low, y.high) == pytest.approx((x.corrected, x.low, x.high))


def test_trials_weigh_the_same_whatever_their_number_of_pairs() -> None:
    small, large = random_layers(4, seed=1), random_layers(16, seed=2)
    scores = [
        trial_stability(small, crossed(2, 2, 1)).score,
        trial_stability(large, crossed(4, 4, 1)).score,
    ]
    both = sweep_stability(
        [("a", small, crossed(2, 2, 1)), ("a", large, crossed(4, 4, 1, root=1))]
    )["a"]
    assert both.score == pytest.approx(np.mean(np.array(scores, dtype=float)))


def test_trials_are_gathered_by_key_and_their_layers_by_name() -> None:
    one, other = random_layers(4)
    seeds = crossed(2, 2, 1)
    swept = sweep_stability(
        [(("mlp", 1.0), [one], seeds), (("mlp", 2.0), [one], seeds), (("mlp", 1.0), [other], seeds)]
    )
    assert list(swept) == [("mlp", 1.0), ("mlp", 2.0)]
    trials = {r.layer: r.trials for r in swept["mlp", 1.0].rows}
    assert trials == {"fc1": 1, "fc2": 1, ALL_LAYERS: 2}


def planted(
    rng: np.random.Generator, seeds: Seeds, spread: dict[str, float], *, by_init: bool
) -> LayerBits:
    """Masks of `KEPT` gates, of which a replicate takes some from a template, the rest elsewhere.

    How many it takes from it is 250 plus an effect of each of its seeds, normal with the given
    standard deviation ("rest": of the replicate itself). Each init has its own template, or all
    share one.
    """
    taken = np.full(len(seeds.init), 250.0) + rng.normal(0, spread["rest"], len(seeds.init))
    for factor in ("init", "data", "gate"):
        levels, index = np.unique(getattr(seeds, factor), return_inverse=True)
        taken += rng.normal(0, spread[factor], len(levels))[index]
    inits, init = np.unique(seeds.init, return_inverse=True)
    templates = [rng.permutation(GATES) for _ in range(len(inits) if by_init else 1)]
    masks = np.zeros((len(seeds.init), GATES), dtype=bool)
    for mask, count, i in zip(masks, taken, init, strict=True):
        template = templates[i if by_init else 0]
        inside = int(np.clip(round(count), 0, KEPT))
        mask[rng.permutation(template[:KEPT])[:inside]] = True
        mask[rng.permutation(template[KEPT:])[: KEPT - inside]] = True
    return layer("fc1", masks)


def planted_overlap(shared_variance: float) -> float:
    """Expected corrected overlap of two replicates with one template.

    For taken counts x and y it is linear in xy, whose expectation is 250 squared plus the variance
    of the effects that the two replicates share.
    """
    products = 250**2 + shared_variance
    outside = (KEPT**2 - 2 * KEPT * 250 + products) / (GATES - KEPT)
    chance = KEPT**2 / GATES
    return (products / KEPT + outside - chance) / (KEPT - chance)


def planted_truth(
    stability: Stability, spread: dict[str, float], *, by_init: bool
) -> dict[str, float]:
    """Expected overlap of each group of pairs; of a summary group, the mean over its pairs."""
    truth: dict[str, float] = {}
    pairs = {r.differs: r.pairs for r in stability.rows if r.layer == ALL_LAYERS}
    summaries = {SAME_INIT: False, OTHER_INIT: True}
    for differs in pairs.keys() - summaries.keys():
        differing = differs.split("+")
        same = [factor for factor in ("init", "data", "gate") if factor not in differing]
        independent = by_init and "init" in differing
        overlap = planted_overlap(sum(spread[factor] ** 2 for factor in same))
        truth[differs] = 0.0 if independent else overlap
    for summary, init_differs in summaries.items():
        parts = [each for each in truth if ("init" in each.split("+")) == init_differs]
        if summary in pairs:
            truth[summary] = float(
                np.average([truth[each] for each in parts], weights=[pairs[each] for each in parts])
            )
    return truth


def coverage(
    design: tuple[int, int, int],
    spread: dict[str, float],
    *,
    by_init: bool,
    repetitions: int,
) -> dict[str, float]:
    """Share of the repetitions whose interval holds the planted overlap, by group of pairs.

    A group is left out where a factor that has an effect has but one seed: its interval is
    conditional on that seed, and the planted overlap is not.
    """
    rng = np.random.default_rng(7)
    seeds = crossed(*design)
    held: dict[str, list[bool]] = {}
    for _ in range(repetitions):
        stability = trial_stability([planted(rng, seeds, spread, by_init=by_init)], seeds)
        truth = planted_truth(stability, spread, by_init=by_init)
        for found in stability.rows:
            conditioned = any(spread[factor] for factor in found.conditional_on)
            if found.layer == ALL_LAYERS and not conditioned:
                assert found.low is not None
                assert found.high is not None
                hit = found.low <= truth[found.differs] <= found.high
                held.setdefault(found.differs, []).append(hit)
    return {differs: float(np.mean(hits)) for differs, hits in held.items()}


def effects(init: float = 0, data: float = 0, gate: float = 0, rest: float = 0) -> dict[str, float]:
    return {"init": init, "data": data, "gate": gate, "rest": rest}


def test_planted_overlap_is_covered_from_three_seeds_up() -> None:
    covered = coverage((1, 3, 1), effects(data=25), by_init=True, repetitions=300)
    assert covered["data"] >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize(
    ("design", "spread", "by_init"),
    [
        ((1, 3, 1), effects(), True),
        ((3, 1, 1), effects(init=25), False),
        ((1, 8, 1), effects(data=25), True),
        ((3, 3, 1), effects(init=25), True),
        ((3, 3, 1), effects(init=25, data=25), False),
        ((5, 3, 1), effects(init=15, data=25, rest=10), True),
        ((3, 3, 3), effects(data=20, gate=20), True),
    ],
    ids=[
        "no effect",
        "init alone",
        "eight seeds",
        "an idle factor",
        "two factors, one template",
        "two factors and an interaction",
        "three factors",
    ],
)
def test_planted_overlap_is_covered_in_crossed_designs(
    design: tuple[int, int, int], spread: dict[str, float], by_init: bool
) -> None:
    covered = coverage(design, spread, by_init=by_init, repetitions=300)
    assert covered
    assert min(covered.values()) >= 0.93, covered


def test_the_replicates_of_a_trial_are_compared_in_a_tenth_of_a_second() -> None:
    rng = np.random.default_rng(0)
    layers = [
        layer(f"fc{i}", rng.random((9, size)) < 0.1)
        for i, size in enumerate((235_200, 30_000, 1_000))
    ]
    seeds = crossed(3, 3, 1)
    taken = []
    for _ in range(5):
        start = process_time()  # of a processor: others may be using it too
        trial_stability(layers, seeds)
        taken.append(process_time() - start)
    assert min(taken) < 0.1
