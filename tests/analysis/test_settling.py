from __future__ import annotations

import numpy as np
import pytest

from ticketsweep.analysis.layers import LayerBits, Seeds
from ticketsweep.analysis.overlap import pack
from ticketsweep.analysis.settling import mean_between, trial_settling

SHAPES = {"fc1": (9, 7), "fc2": (5, 9)}
TRIPLES = [(init, data, 0) for init in (1, 2) for data in (3, 4, 5)]
SEEDS = Seeds(*np.array(TRIPLES).T)


def bits(masks):
    return [LayerBits(name, SHAPES[name], pack(masks[name])) for name in SHAPES]


def drawn(rng, density=0.4, replicates=6):
    return {name: rng.random((replicates, *shape)) < density for name, shape in SHAPES.items()}


def flat(masks):
    return {name: each.reshape(len(each), -1) for name, each in masks.items()}


def corrected(one, other):
    """Chance-corrected overlap of two masks over all layers, from its definition."""
    top = bottom = 0.0
    for name in SHAPES:
        a, b = one[name], other[name]
        chance = a.sum() * b.sum() / a.size
        top += (a & b).sum() - chance
        bottom += min(a.sum(), b.sum()) - chance
    return top / bottom


def test_every_figure_is_what_its_definition_says():
    rng = np.random.default_rng(0)
    way = {step: drawn(rng, density) for step, density in ((5, 0.7), (10, 0.5), (20, 0.3))}
    found = trial_settling({step: bits(masks) for step, masks in way.items()}, SEEDS)
    assert found.steps.tolist() == [5, 10, 20]
    final = flat(way[20])
    pairs = [(i, j) for i in range(6) for j in range(i + 1, 6) if TRIPLES[i][0] == TRIPLES[j][0]]
    for at, step in enumerate(way):
        masks = flat(way[step])
        for r in range(6):
            own = {name: each[r] for name, each in masks.items()}
            to = {name: each[r] for name, each in final.items()}
            whole, ticket = (np.concatenate(list(each.values())) for each in (own, to))
            both = (whole & ticket).sum()
            assert found.hamming[at, r] == pytest.approx((whole ^ ticket).mean())
            assert found.density[at, r] == pytest.approx(whole.mean())
            assert found.in_common[at, r] == pytest.approx(both / max(whole.sum(), ticket.sum()))
            assert found.overlap[at, r] == pytest.approx(corrected(own, to))
        between = [
            corrected(*({name: each[r] for name, each in masks.items()} for r in pair))
            for pair in pairs
        ]
        assert found.between[at] == pytest.approx(between)
        assert mean_between([found], at=at).value == pytest.approx(np.mean(between))
    assert found.hamming[-1].tolist() == [0.0] * 6
    assert found.in_common[-1] == pytest.approx(1)
    assert found.seeds[:, 0].tolist() == [[TRIPLES[i][0], TRIPLES[j][0]] for i, j in pairs]


def test_a_mask_has_settled_where_it_stays_and_not_where_it_only_passes_by():
    rng = np.random.default_rng(1)
    final = drawn(rng, 0.5, replicates=2)
    other = drawn(rng, 0.5, replicates=2)
    # Replicate 0 is there at step 1, leaves again and comes back at 3; replicate 1 comes at 2.
    order = {1: (final, other), 2: (other, final), 3: (final, final), 4: (final, final)}
    way = {
        step: {name: np.stack([a[name][0], b[name][1]]) for name in SHAPES}
        for step, (a, b) in order.items()
    }
    seeds = Seeds(np.array([1, 1]), np.array([3, 4]), np.array([0, 0]))
    found = trial_settling({step: bits(masks) for step, masks in way.items()}, seeds)
    assert found.settled_at.tolist() == [3.0, 2.0]


def test_gates_that_begin_open_hold_the_ticket_and_have_not_settled():
    rng = np.random.default_rng(2)
    final = drawn(rng, 0.2)
    nearly = {name: mask | (rng.random(mask.shape) < 0.9) for name, mask in final.items()}
    found = trial_settling({1: bits(nearly), 2: bits(final)}, SEEDS)
    assert found.overlap[0] == pytest.approx(1)
    assert (found.in_common[0] < 0.5).all()
    assert (found.settled_at == 2).all()


@pytest.mark.parametrize("share", [0, 1])
def test_empty_and_full_masks_have_no_overlap_and_an_empty_ticket_never_settles(share):
    same = {name: np.full((6, *shape), share == 1) for name, shape in SHAPES.items()}
    found = trial_settling({1: bits(same), 2: bits(same)}, SEEDS)
    assert np.isnan(found.overlap).all()
    assert mean_between([found], at=1) is None
    assert (found.hamming == 0).all()
    assert np.isnan(found.settled_at).all() == (share == 0)


def test_one_replicate_of_each_init_parts_from_none():
    rng = np.random.default_rng(3)
    seeds = Seeds(np.array([1, 2]), np.array([3, 3]), np.array([0, 0]))
    found = trial_settling({s: bits(drawn(rng, replicates=2)) for s in (1, 2)}, seeds)
    assert found.between.shape == (2, 0)
    assert mean_between([found, found], at=0) is None


def test_layers_that_differ_between_steps_are_refused():
    rng = np.random.default_rng(4)
    whole = bits(drawn(rng))
    with pytest.raises(ValueError, match="same layers"):
        trial_settling({1: whole[:1], 2: whole}, SEEDS)
