from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, permutations, product

import numpy as np
import pytest
from numpy.typing import NDArray

from ticketsweep.analysis import Matching, match_units, permuted
from ticketsweep.symmetry import Permutable, Span
from ticketsweep.train.models import build_model
from ticketsweep.train.models.symmetry import permutation_symmetry

Arrays = dict[str, NDArray[np.float64]]


def chain(*widths: int) -> tuple[Permutable, ...]:
    """Symmetry of a fully connected network: inputs, hidden units, outputs; biases."""
    return tuple(
        Permutable(
            f"fc{at}", units, (Span(f"fc{at}", 0), Span(f"b{at}", 0), Span(f"fc{at + 1}", 1))
        )
        for at, units in enumerate(widths[1:-1], start=1)
    )


def network(widths: tuple[int, ...], rng: np.random.Generator) -> Arrays:
    arrays = {}
    for at, (reads, units) in enumerate(pairwise(widths), start=1):
        arrays[f"fc{at}"] = rng.standard_normal((units, reads))
        arrays[f"b{at}"] = rng.standard_normal(units)
    return arrays


def residual(rng: np.random.Generator) -> tuple[tuple[Permutable, ...], Arrays]:
    """ResNet-20 of 4 to 16 channels, its norms and running statistics included."""
    shape = (3, 16, 16)
    model = build_model("resnet-20", input_shape=shape, classes=10, width=0.5)
    arrays = {
        name: rng.standard_normal(tuple(value.shape))
        for name, value in model.state_dict().items()
        if value.dim()
    }
    return permutation_symmetry(model, input_shape=shape), arrays


def orders_of(
    symmetry: tuple[Permutable, ...], rng: np.random.Generator
) -> dict[str, NDArray[np.int64]]:
    return {group.name: rng.permutation(group.units) for group in symmetry}


def every_order(symmetry: tuple[Permutable, ...]) -> Iterator[dict[str, NDArray[np.int64]]]:
    names = [group.name for group in symmetry]
    for chosen in product(*(permutations(range(group.units)) for group in symmetry)):
        yield {name: np.array(order) for name, order in zip(names, chosen, strict=True)}


def likeness(a: Arrays, b: Arrays) -> float:
    return sum(float((a[name] * b[name]).sum()) for name in a)


def best_of_all(a: Arrays, b: Arrays, symmetry: tuple[Permutable, ...]) -> float:
    return max(likeness(a, permuted(b, orders, symmetry)) for orders in every_order(symmetry))


def same_orders(one: Matching, other: dict[str, NDArray[np.int64]]) -> bool:
    return all(np.array_equal(one.permutations[name], order) for name, order in other.items())


def test_one_hidden_layer_is_matched_as_well_as_by_trying_every_order() -> None:
    rng, widths = np.random.default_rng(0), (3, 5, 2)
    symmetry = chain(*widths)
    for _ in range(20):
        a, b = network(widths, rng), network(widths, rng)
        matching = match_units(a, b, symmetry, restarts=1)
        assert matching.objective == pytest.approx(best_of_all(a, b, symmetry))


def test_two_hidden_layers_are_matched_no_better_than_by_trying_every_order() -> None:
    rng, widths = np.random.default_rng(0), (4, 3, 4, 3)
    symmetry = chain(*widths)
    is_best = []
    for _ in range(20):
        a, b = network(widths, rng), network(widths, rng)
        objective, best = match_units(a, b, symmetry).objective, best_of_all(a, b, symmetry)
        assert objective <= best + 1e-9
        is_best.append(objective >= best - 1e-9)
    assert np.mean(is_best) >= 0.7  # a local optimum is not always the best


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["fully connected", "residual"])
def test_a_network_permuted_on_purpose_is_recovered(kind: str, noise: float) -> None:
    rng, widths = np.random.default_rng(0), (20, 30, 12, 10)
    if kind == "residual":
        symmetry, a = residual(rng)
    else:
        symmetry, a = chain(*widths), network(widths, rng)
    b = {name: array + noise * rng.standard_normal(array.shape) for name, array in a.items()}
    planted = orders_of(symmetry, rng)
    inverse = {name: np.argsort(order) for name, order in planted.items()}
    shuffled = permuted(b, inverse, symmetry)
    assert likeness(a, shuffled) < 0.3 * likeness(a, b)
    for restarts in (1, 3):
        matching = match_units(a, shuffled, symmetry, restarts=restarts)
        assert same_orders(matching, planted)
        assert matching.objective == pytest.approx(likeness(a, b))
    back = permuted(shuffled, matching.permutations, symmetry)
    assert all(np.array_equal(back[name], b[name]) for name in b)


def test_matching_knows_nothing_of_labels() -> None:
    rng, widths = np.random.default_rng(0), (6, 7, 5, 4, 3)
    symmetry = chain(*widths)
    for _ in range(10):
        a, b = network(widths, rng), network(widths, rng)
        of_a, of_b = orders_of(symmetry, rng), orders_of(symmetry, rng)
        plain = match_units(a, b, symmetry)
        other = match_units(permuted(a, of_a, symmetry), permuted(b, of_b, symmetry), symmetry)
        assert other.restarts == pytest.approx(plain.restarts)
        expected = {
            name: np.argsort(of_b[name])[order[of_a[name]]]
            for name, order in plain.permutations.items()
        }
        assert same_orders(other, expected)


def test_matching_is_symmetric() -> None:
    rng, widths = np.random.default_rng(0), (6, 7, 5, 4, 3)
    symmetry = chain(*widths)
    for _ in range(10):
        a, b = network(widths, rng), network(widths, rng)
        one, other = match_units(a, b, symmetry), match_units(b, a, symmetry)
        assert other.restarts == pytest.approx(one.restarts)
        assert same_orders(other, {k: np.argsort(order) for k, order in one.permutations.items()})
        assert one.objective == pytest.approx(likeness(a, permuted(b, one.permutations, symmetry)))
        assert one.unmatched == pytest.approx(likeness(a, b))


def test_the_seed_alone_decides() -> None:
    rng, widths = np.random.default_rng(0), (4, 9, 9, 9, 3)
    symmetry, a, b = chain(*widths), network(widths, rng), network(widths, rng)
    found = []
    for seed in (1, 1, 2, 3):
        np.random.seed(seed + len(found))  # noqa: NPY002 - the global generator is not looked at
        found.append(match_units(a, b, symmetry, seed=seed))
    assert found[0].restarts == found[1].restarts
    assert same_orders(found[0], found[1].permutations)
    assert found[0].restarts != found[2].restarts or found[0].restarts != found[3].restarts
    more = match_units(a, b, symmetry, seed=1, restarts=6)
    assert more.restarts[:3] == found[0].restarts
    assert more.objective == max(more.restarts) >= found[0].objective


def test_layers_between_groups_alone_can_be_matched() -> None:
    rng, widths = np.random.default_rng(0), (4, 5, 5, 3)
    symmetry = chain(*widths)
    inner = {"fc2": network(widths, rng)["fc2"]}
    matching = match_units(inner, inner, symmetry, restarts=20)
    assert matching.objective == pytest.approx(matching.norm)


def test_what_no_unit_owns_stays_as_it_is() -> None:
    symmetry = chain(2, 3, 2)
    arrays = {"fc1": np.arange(6).reshape(3, 2) % 4 == 0, "other": np.array([True, False])}
    changed = permuted(arrays, {"fc1": np.array([2, 0, 1])}, symmetry)
    assert changed["fc1"].dtype == np.bool_
    np.testing.assert_array_equal(changed["fc1"], arrays["fc1"][[2, 0, 1]])
    np.testing.assert_array_equal(changed["other"], arrays["other"])
    changed["other"][:] = False
    assert arrays["other"][0]


def test_a_matching_prints_in_a_line() -> None:
    rng, widths = np.random.default_rng(0), (2, 3, 2)
    a = network(widths, rng)
    matching = match_units(a, a, chain(*widths))
    assert str(matching) == "3 units matched in 1 group: cosine 1.000, unmatched 1.000"
    nothing = {name: np.zeros_like(array) for name, array in a.items()}
    assert "every order is as good" in str(match_units(a, nothing, chain(*widths)))
    assert match_units(a, a, ()).permutations == {}


def test_networks_that_do_not_fit_are_refused() -> None:
    rng, widths = np.random.default_rng(0), (2, 3, 2)
    symmetry, a = chain(*widths), network(widths, rng)
    with pytest.raises(ValueError, match="restarts must be >= 1, got 0"):
        match_units(a, a, symmetry, restarts=0)
    with pytest.raises(ValueError, match="same names and shapes, got differences in b2, fc1"):
        match_units(a, {**network((4, 3, 2), rng), "b2": np.ones(3)}, symmetry)
    with pytest.raises(ValueError, match="network b must be finite to be matched, got nan or inf"):
        match_units(a, a | {"b1": np.full(3, np.nan)}, symmetry)
    with pytest.raises(ValueError, match=r"fc1 must have 4 entries along dimension 0 .* of fc1"):
        match_units(a, a, chain(2, 4, 2))
    with pytest.raises(ValueError, match="the permutation of fc1 must hold 0 to 2 once each"):
        permuted(a, {"fc1": np.array([0, 0, 1])}, symmetry)
