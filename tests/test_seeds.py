from __future__ import annotations

import itertools
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from ticketsweep.seeds import Replicate, derive_seed, replicate_plan

COUNTS = st.integers(1, 6)


def test_seeds_never_change():
    assert derive_seed(0) == 5490101818100800
    assert derive_seed(0, "init", "0") == 3143856880067163
    assert derive_seed(2**53 - 1, "data", "größer", "") == 7702195408441968


def test_another_process_derives_the_same_seeds():
    code = "from ticketsweep.seeds import derive_seed; print(derive_seed(3, 'gate', '1'))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert int(printed) == derive_seed(3, "gate", "1")


@given(st.integers(0, 2**53 - 1), st.lists(st.text(max_size=5), max_size=4))
def test_a_seed_survives_a_double(root: int, labels: list[str]):
    seed = derive_seed(root, *labels)
    assert 0 <= seed < 2**53
    assert int(float(seed)) == seed


def test_labels_are_kept_apart():
    words = ["", "0", "1", "00", "init", "data", "gate", "a", "b", "ab", '","', "[", "\\"]
    labels = [t for n in range(4) for t in itertools.product(words, repeat=n)]
    seeds = {derive_seed(root, *t) for t in labels for root in (0, 1)}
    assert len(seeds) == 2 * len(labels)


def test_half_of_the_seeds_lie_in_the_upper_half():
    upper = sum(derive_seed(0, str(i)) >= 2**52 for i in range(4000))
    assert abs(upper - 2000) < 5 * 1000**0.5  # five standard deviations


@given(COUNTS, COUNTS, COUNTS, st.integers(0, 99))
def test_a_plan_is_the_product_of_three_lists_of_seeds(init: int, data: int, gate: int, root: int):
    plan = replicate_plan(root, init=init, data=data, gate=gate)
    assert [r.index for r in plan] == list(range(init * data * gate))
    triples = [(r.init_seed, r.data_seed, r.gate_seed) for r in plan]
    inits, datas, gates = (list(dict.fromkeys(column)) for column in zip(*triples, strict=True))
    assert (len(inits), len(datas), len(gates)) == (init, data, gate)
    assert triples == list(itertools.product(inits, datas, gates))
    assert len({*inits, *datas, *gates}) == init + data + gate  # the streams share no seed


@given(st.tuples(COUNTS, COUNTS, COUNTS), st.tuples(COUNTS, COUNTS, COUNTS))
def test_a_plan_is_contained_in_a_larger_one(a: tuple[int, ...], b: tuple[int, ...]):
    def triples(counts: tuple[int, ...]) -> set[tuple[int, int, int]]:
        plan = replicate_plan(5, init=counts[0], data=counts[1], gate=counts[2])
        return {(r.init_seed, r.data_seed, r.gate_seed) for r in plan}

    shared = tuple(map(min, a, b))
    assert triples(a) & triples(b) == triples(shared)


def test_the_first_replicate_is_the_same_in_every_plan():
    expected = Replicate(
        0, derive_seed(7, "init", "0"), derive_seed(7, "data", "0"), derive_seed(7, "gate", "0")
    )
    assert replicate_plan(7, init=1, data=1, gate=1) == (expected,)
    assert replicate_plan(7, init=3, data=2, gate=2)[0] == expected
