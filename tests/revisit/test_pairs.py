"""Which pairs are compared: all up to a bound, then a balanced sample, always the same."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations, permutations

import pytest

from ticketsweep.results.function import ALIGN, CONNECTIVITY, KINDS, PREDICTIONS, TRANSFER
from ticketsweep.revisit.pairs import (
    MOST_ALIGNED,
    MOST_CONNECTED,
    MOST_TRANSFERS,
    differs,
    is_stored,
    pairs_of,
    replicates_of,
    why_none,
    work_of,
)
from ticketsweep.seeds import replicate_plan

SMALL = replicate_plan(0, init=2, data=2, gate=2)
LARGE = replicate_plan(0, init=5, data=3, gate=2)


def numbers(pairs) -> list[tuple[int, int]]:
    return [(a.index, b.index) for a, b in pairs]


def test_few_pairs_are_all_compared() -> None:
    unlike = {(a.index, b.index) for a, b in permutations(SMALL, 2) if a.init_seed != b.init_seed}
    every = {(a.index, b.index) for a, b in combinations(SMALL, 2)}
    wanted = {
        PREDICTIONS: every,
        TRANSFER: unlike,
        CONNECTIVITY: (every - unlike) | {(each.index, each.index) for each in SMALL},
        ALIGN: {(a, b) for a, b in unlike if a < b},
    }
    for kind in KINDS:
        pairs, possible = pairs_of(kind, SMALL)
        assert len(pairs) == len(set(numbers(pairs)))
        assert set(numbers(pairs)) == wanted[kind], kind
        assert possible == len(wanted[kind])


@pytest.mark.parametrize(("kind", "most"), [(TRANSFER, MOST_TRANSFERS), (ALIGN, MOST_ALIGNED)])
def test_a_sample_has_as_many_of_each_two_initial_weights_and_is_always_the_same(
    kind, most
) -> None:
    pairs, possible = pairs_of(kind, LARGE)
    assert (len(pairs), possible > most) == (most, True)
    counts = Counter((a.init_seed, b.init_seed) for a, b in pairs)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert len(counts) == (20 if kind == TRANSFER else 10)
    assert pairs_of(kind, LARGE) == (pairs, possible)


def test_connectivity_keeps_every_ticket_with_itself() -> None:
    pairs, possible = pairs_of(CONNECTIVITY, LARGE)
    own = [pair for pair in numbers(pairs) if pair[0] == pair[1]]
    assert own == [(n, n) for n in range(30)]
    assert (len(pairs), possible) == (30 + MOST_CONNECTED, 30 + 5 * 15)


def test_seeds_that_differ_are_named() -> None:
    assert [differs(SMALL[0], SMALL[n]) for n in (0, 1, 2, 3, 4, 7)] == [
        "", "gate", "data", "data+gate", "init", "init+data+gate",
    ]  # fmt: skip


def test_a_diverged_replicate_is_compared_with_nothing() -> None:
    rows = [
        {"replicate": r.index, "init_seed": r.init_seed, "data_seed": r.data_seed,
         "gate_seed": r.gate_seed, "metrics": {"diverged_at_step": 3.0} if r.index == 1 else {}}
        for r in SMALL
    ]  # fmt: skip
    assert [each.index for each in replicates_of(reversed(rows))] == [0, 2, 3, 4, 5, 6, 7]


def test_work_is_stored_when_all_its_pairs_are_there_with_the_same_settings() -> None:
    work = work_of(TRANSFER, SMALL, {"restarts": 3})
    rows = [
        {"first": a, "second": b, "settings": json.dumps({TRANSFER: dict(work.settings)})}
        for a, b in numbers(work.pairs)
    ]
    assert is_stored(work, rows)
    assert not is_stored(work, rows[1:])
    assert not is_stored(work_of(TRANSFER, SMALL, {"restarts": 4}), rows)


def test_why_there_is_nothing_to_compare_is_said() -> None:
    one_init = replicate_plan(0, init=1, data=2, gate=1)
    assert "same initial weights" in why_none(TRANSFER, one_init)
    assert "one ticket" in why_none(PREDICTIONS, one_init[:1])
    assert "no replicate" in why_none(CONNECTIVITY, [])
