"""The permutation test beside brute force, and how often it errs."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from numpy.typing import NDArray

from ticketsweep.analysis.layers import FACTORS
from ticketsweep.analysis.permutation import permutation_test

Floats = NDArray[np.float64]


def plan(init: int, data: int, gate: int) -> NDArray[np.int64]:
    return np.array(list(product(range(init), range(data), range(gate))))


def overlaps(rng: np.random.Generator, replicates: NDArray[np.int64]) -> Floats:
    drawn = rng.normal(size=(len(replicates), len(replicates)))
    symmetric: Floats = drawn + drawn.T
    return symmetric


def brute_force(overlap: Floats, replicates: NDArray[np.int64], own: int) -> float:
    """Hand the seeds out anew in every cell in every way, and compare means over pairs."""
    others = np.delete(replicates, own, axis=1)
    varying = [i for i in range(others.shape[1]) if len(set(others[:, i])) > 1]
    cells = [tuple(cell) for cell in np.unique(others, axis=0)]
    members = [[i for i in range(len(others)) if tuple(others[i]) == cell] for cell in cells]
    seeds = range(len(members[0]))

    def statistic(seed: dict[int, int]) -> float:
        apart = [
            (i, j)
            for i in range(len(others))
            for j in range(i)
            if all(others[i, v] != others[j, v] for v in varying)
        ]
        same = [overlap[i, j] for i, j in apart if seed[i] == seed[j]]
        return float(np.mean(same))

    orders = list(permutations(seeds))
    found = []
    for chosen in product(orders, repeat=len(cells)):
        seed = {
            i: s
            for row, order in zip(members, chosen, strict=True)
            for i, s in zip(row, order, strict=True)
        }
        found.append(statistic(seed))
    seen = statistic(
        {
            i: int(np.unique(replicates[:, own]).tolist().index(replicates[i, own]))
            for i in range(len(others))
        }
    )
    return float(np.mean(np.array(found) >= seen - 1e-9))


@pytest.mark.parametrize(
    ("design", "factor"),
    [((3, 3, 1), "init"), ((2, 4, 1), "init"), ((3, 2, 1), "data"), ((2, 2, 2), "gate"),
     ((1, 3, 2), "data"), ((2, 3, 2), "gate")],
)  # fmt: skip
def test_p_is_the_share_of_arrangements_that_agree_as_much(
    design: tuple[int, int, int], factor: str
) -> None:
    rng = np.random.default_rng(sum(design))
    replicates = plan(*design) * 7 + 3
    overlap = overlaps(rng, replicates)
    found = permutation_test(overlap, replicates, factor)
    assert found is not None
    assert found.p == pytest.approx(brute_force(overlap, replicates, FACTORS.index(factor)))


def test_the_order_of_the_replicates_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    replicates = plan(3, 3, 1)
    overlap = overlaps(rng, replicates)
    order = rng.permutation(9)
    assert permutation_test(overlap, replicates, "init") == permutation_test(
        overlap[np.ix_(order, order)], replicates[order], "init"
    )


def test_a_seed_that_decides_nothing_is_found_to_matter_as_often_as_it_should() -> None:
    """Of 5 inits and 4 data orders, only the data order has an effect."""
    rng = np.random.default_rng(1)
    replicates = plan(5, 4, 1)
    ps: dict[str, list[float]] = {"init": [], "data": []}
    for _ in range(150):
        overlap = overlaps(rng, replicates)
        overlap += 1.5 * (replicates[:, 1, None] == replicates[:, 1])
        for factor, found in ps.items():
            test = permutation_test(overlap, replicates, factor)
            assert test is not None
            found.append(test.p)
    assert np.mean(np.array(ps["init"]) <= 0.05) <= 0.05 + 3 * (0.05 * 0.95 / 150) ** 0.5
    assert 0.4 < np.mean(ps["init"]) < 0.6
    assert np.mean(np.array(ps["data"]) <= 0.05) > 0.9


@pytest.mark.parametrize(
    ("design", "factor", "smallest"),
    [((2, 2, 1), "init", 1 / 2), ((2, 3, 1), "data", 1 / 6), ((2, 3, 1), "init", 1 / 4),
     ((3, 3, 1), "init", 1 / 36), ((2, 2, 2), "gate", 1 / 4), ((5, 5, 1), "init", 1 / 2_000)],
)  # fmt: skip
def test_the_smallest_p_is_reached_where_a_seed_decides_everything(
    design: tuple[int, int, int], factor: str, smallest: float
) -> None:
    replicates = plan(*design)
    own = replicates[:, FACTORS.index(factor)]
    found = permutation_test((own[:, None] == own).astype(float), replicates, factor)
    assert found is not None
    assert found.smallest == pytest.approx(smallest)
    assert found.p == pytest.approx(smallest)


def test_without_crossed_seeds_or_with_an_undefined_overlap_there_is_no_test() -> None:
    replicates = plan(3, 3, 1)
    overlap = overlaps(np.random.default_rng(2), replicates)
    assert permutation_test(None, replicates, "init") is None
    assert permutation_test(overlap[1:, 1:], replicates[1:], "init") is None  # one has diverged
    assert permutation_test(overlap, np.tile(replicates[:1], (9, 1)), "init") is None
    assert (
        permutation_test(overlap[:3, :3], plan(3, 1, 1), "init") is None
    )  # nothing to compare with
    assert permutation_test(overlap, replicates, "gate") is None  # one gate seed
    overlap[0, 4] = overlap[4, 0] = np.nan
    assert permutation_test(overlap, replicates, "init") is None
