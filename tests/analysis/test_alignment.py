from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from ticketsweep.analysis import (
    AlignedOverlap,
    Ticket,
    aligned_overlap,
    chance_corrected_overlap,
    permuted,
    z_score,
)
from ticketsweep.symmetry import Permutable, Span

SHAPES = {"fc1": (16, 20), "fc2": (12, 16), "fc3": (6, 12)}
SYMMETRY = tuple(
    Permutable(f"fc{at}", SHAPES[f"fc{at}"][0], (Span(f"fc{at}", 0), Span(f"fc{at + 1}", 1)))
    for at in (1, 2)
)


def weights(rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    return {layer: rng.standard_normal(shape) for layer, shape in SHAPES.items()}


def ticket(rng: np.random.Generator, density: float = 0.4) -> Ticket:
    """A random mask with fixed counts, on random weights."""
    masks = {}
    for layer, shape in SHAPES.items():
        size = math.prod(shape)
        masks[layer] = rng.permutation(size).reshape(shape) < round(density * size)
    return Ticket(masks, weights(rng))


def relabelled(of: Ticket, rng: np.random.Generator) -> Ticket:
    orders = {group.name: rng.permutation(group.units) for group in SYMMETRY}
    return Ticket(permuted(of.masks, orders, SYMMETRY), permuted(of.weights, orders, SYMMETRY))


def redrawn(mask: NDArray[np.bool_], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """This share of the gates, whether kept or not, dealt out anew among themselves."""
    flat = mask.reshape(-1).copy()
    at = rng.permutation(flat.size)[: round(share * flat.size)]
    flat[at] = rng.permutation(flat[at])
    return flat.reshape(mask.shape)


def coverage(hits: list[bool]) -> float:
    return float(np.mean(hits))


def test_the_overlap_of_independent_tickets_covers_zero_in_a_thousand_repetitions() -> None:
    rng, found = np.random.default_rng(0), []
    for at in range(1000):
        options = {"chance": ("layers", "inputs")[at % 2], "dealt": ("masks", "tickets")[at // 500]}
        a, b = ticket(rng), ticket(rng)
        found.append(aligned_overlap(a, b, SYMMETRY, **options, draws=4, restarts=1))
    for of in zip(*((overlap.pooled, *overlap.layers) for overlap in found), strict=True):
        for agreements in ([one.before for one in of], [one.after for one in of]):
            hits = [one.interval.low <= 0 <= one.interval.high for one in agreements]
            assert 0.93 <= coverage(hits) <= 0.985
            values = np.array([one.corrected for one in agreements])
            assert abs(values.mean()) < 3.5 * values.std() / math.sqrt(len(values))
    raised = [of.pooled.after.shared - of.pooled.before.shared for of in found]
    assert np.mean(raised) > 0.03 * found[0].pooled.kept[0]  # matching finds likeness in anything


@pytest.mark.parametrize("matched_by", ["ticket", "weights"])
def test_a_planted_overlap_is_recovered_from_relabelled_tickets(matched_by: str) -> None:
    rng, share = np.random.default_rng(0), 0.3
    hits, exact = [], []
    for _ in range(120):
        a = ticket(rng)
        masks = {layer: redrawn(mask, share, rng) for layer, mask in a.masks.items()}
        noisy = {name: w + 0.3 * rng.standard_normal(w.shape) for name, w in a.weights.items()}
        b = relabelled(Ticket(masks, noisy), rng)
        overlap = aligned_overlap(a, b, SYMMETRY, matched_by=matched_by, draws=8, restarts=2).pooled
        after = overlap.after
        # A dealt gate is kept as often as any other: of the rest, all is shared.
        planted = sum(m.sum() * (1 - share * (1 - m.mean())) for m in a.masks.values())
        expected = (planted - after.chance) / (after.largest - after.chance)
        hits.append(after.interval.low <= expected <= after.interval.high)
        exact.append(sum(int((a.masks[k] & masks[k]).sum()) for k in masks) == after.shared)
        assert overlap.before.corrected < after.corrected
    assert coverage(hits) >= 0.93
    assert coverage(exact) >= 0.95


def test_a_relabelled_ticket_is_the_same_ticket() -> None:
    rng = np.random.default_rng(0)
    a = ticket(rng)
    overlap = aligned_overlap(a, relabelled(a, rng), SYMMETRY)
    assert abs(overlap.pooled.before.corrected) < 0.3
    for of in (overlap.pooled, *overlap.layers):
        assert of.after.corrected == 1
        assert of.after.z > 2
    assert overlap.pooled.after.interval.high == 1
    masks = aligned_overlap(a, relabelled(a, rng), SYMMETRY, matched_by="masks", restarts=10)
    assert masks.pooled.after.corrected == 1


def test_labels_do_not_matter_and_neither_does_which_is_first() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        a, b = ticket(rng, 0.8), ticket(rng, 0.8)  # so full that no two orders are as good
        plain = aligned_overlap(a, b, SYMMETRY)
        for one, other in ((relabelled(a, rng), relabelled(b, rng)), (b, a)):
            again = aligned_overlap(one, other, SYMMETRY)
            assert [of.after.shared for of in again.layers] == [
                of.after.shared for of in plain.layers
            ]
            assert again.pooled.after.chance == pytest.approx(plain.pooled.after.chance, rel=0.1)


def test_chance_before_matching_is_hypergeometric() -> None:
    rng = np.random.default_rng(0)
    a, b = ticket(rng, 0.3), ticket(rng, 0.6)
    overlap = aligned_overlap(a, b, SYMMETRY, matched_by="weights")
    for of in overlap.layers:
        law = stats.hypergeom(of.gates, *of.kept)
        for agreement in (of.before, of.after):  # matched without a look at the masks
            assert agreement.chance == pytest.approx(law.mean())
            assert agreement.sd == pytest.approx(law.std())
    layers = np.array([[of.before.shared, *of.kept, of.gates] for of in overlap.layers]).T
    before = overlap.pooled.before
    assert before.corrected == pytest.approx(chance_corrected_overlap(*layers, layer_axis=0))
    assert before.z == pytest.approx(z_score(*layers, layer_axis=0))
    by_column = aligned_overlap(a, b, SYMMETRY, matched_by="weights", chance="inputs").layers
    moments = []
    for one, other in zip(a.masks["fc1"].T, b.masks["fc1"].T, strict=True):
        counts = np.arange(len(one) + 1)
        law = stats.hypergeom(len(one), one.sum(), other.sum()).pmf(counts)
        moments.append((law @ counts, law @ counts**2 - (law @ counts) ** 2))
    mean, variance = np.sum(moments, axis=0)
    assert by_column[0].after.chance == pytest.approx(mean)
    assert by_column[0].after.sd == pytest.approx(math.sqrt(variance))
    assert by_column[1:] == overlap.layers[1:]


def test_what_both_owe_to_the_inputs_is_agreement_only_against_layers() -> None:
    rng = np.random.default_rng(0)

    def pixels() -> Ticket:
        """Half of the inputs are dark: almost nothing reads them."""
        of = ticket(rng)
        bright = np.where(np.arange(20) < 10, 0.9, 0.05)
        return Ticket({**of.masks, "fc1": rng.random(SHAPES["fc1"]) < bright}, of.weights)

    found = {
        chance: [
            aligned_overlap(pixels(), pixels(), SYMMETRY, chance=chance, draws=8, restarts=1)
            for _ in range(40)
        ]
        for chance in ("layers", "inputs")
    }
    first = {
        chance: np.array([of.layers[0].after.corrected for of in overlaps])
        for chance, overlaps in found.items()
    }
    assert first["layers"].mean() > 0.5
    assert abs(first["inputs"].mean()) < 3.5 * first["inputs"].std() / math.sqrt(40)


def test_masks_that_follow_their_weights_agree_only_against_masks() -> None:
    rng = np.random.default_rng(0)

    def positive() -> Ticket:
        """The large positive weights of a random network: a rule, but no structure."""
        of = weights(rng)
        return Ticket({layer: value > 0.5 for layer, value in of.items()}, of)

    for matched_by in ("ticket", "weights"):
        for dealt, is_agreement in (("masks", True), ("tickets", False)):
            found = [
                aligned_overlap(
                    positive(), positive(), SYMMETRY,
                    matched_by=matched_by, dealt=dealt, draws=5, restarts=1,
                ).pooled.after.corrected
                for _ in range(40)
            ]  # fmt: skip
            error = np.std(found) / math.sqrt(len(found))
            assert (np.mean(found) > 5 * error) == is_agreement
            assert is_agreement or abs(np.mean(found)) < 3.5 * error


def test_the_same_arguments_give_the_same_result() -> None:
    rng = np.random.default_rng(0)
    a, b = ticket(rng), ticket(rng)

    def figures(of: AlignedOverlap) -> tuple[object, ...]:
        return of.layers, of.pooled, of.matching.restarts

    plain = aligned_overlap(a, b, SYMMETRY, seed=3)
    assert figures(aligned_overlap(a, b, SYMMETRY, seed=3)) == figures(plain)
    assert aligned_overlap(a, b, SYMMETRY, seed=4).pooled.after.chance != plain.pooled.after.chance


def test_a_known_matching_gives_what_looking_for_it_gives() -> None:
    rng = np.random.default_rng(0)
    a, b = ticket(rng), ticket(rng)
    known = aligned_overlap(a, b, SYMMETRY, draws=4).matching
    anew = aligned_overlap(a, b, SYMMETRY, chance="inputs", draws=4)
    again = aligned_overlap(a, b, SYMMETRY, chance="inputs", draws=4, matching=known)
    assert again.matching is known
    assert (again.pooled, again.layers) == (anew.pooled, anew.layers)


def with_masks(of: Ticket, **kept: bool) -> Ticket:
    """The same, with everything or nothing of some layers kept."""
    full = {layer: np.full(SHAPES[layer], is_kept) for layer, is_kept in kept.items()}
    return Ticket({**of.masks, **full}, of.weights)


def test_masks_that_keep_nothing_or_everything_are_told_in_words() -> None:
    rng = np.random.default_rng(0)
    a, b = ticket(rng), ticket(rng)
    for is_kept in (True, False):
        layer = aligned_overlap(a, with_masks(b, fc2=is_kept), SYMMETRY)
        assert math.isnan(layer.layers[1].after.corrected)
        assert layer.layers[1].after.interval is None
        assert not math.isnan(layer.pooled.after.corrected)
        whole = with_masks(b, fc1=is_kept, fc2=is_kept, fc3=is_kept)
        everywhere = aligned_overlap(a, whole, SYMMETRY)
        both = aligned_overlap(whole, whole, SYMMETRY, matched_by="masks", chance="inputs")
        for overlap in (layer, everywhere, both):
            printed = "\n".join(map(str, (overlap, *overlap.layers, overlap.matching)))
            assert "nan" not in printed
            assert "no overlap beyond chance is possible" in printed


def test_a_result_prints_in_a_line() -> None:
    rng = np.random.default_rng(0)
    a = ticket(rng)
    overlap = aligned_overlap(a, relabelled(a, rng), SYMMETRY)
    assert str(overlap).startswith("all layers: overlap beyond chance ")
    assert "; matched 1.00 [0." in str(overlap)
    assert str(overlap).endswith("(units matched by ticket)")
    assert "\n" not in str(overlap)


def test_tickets_that_do_not_fit_are_refused() -> None:
    rng = np.random.default_rng(0)
    a = ticket(rng)
    with pytest.raises(ValueError, match="the mask of at least one layer, got none"):
        Ticket({}, a.weights)
    with pytest.raises(ValueError, match=r"fc1 must be bool .* \(16, 20\), got bool \(10,\)"):
        Ticket({"fc1": np.ones(10, dtype=np.bool_)}, a.weights)
    with pytest.raises(ValueError, match="the shape of its weights, no weights, got bool"):
        Ticket({"fc9": np.ones(10, dtype=np.bool_)}, a.weights)
    fewer = Ticket({"fc1": a.masks["fc1"]}, a.weights)
    with pytest.raises(ValueError, match=r"masks of the same layers, got .*fc2.* and .'fc1'."):
        aligned_overlap(a, fewer, SYMMETRY)
    with pytest.raises(ValueError, match="draws must be >= 2 for a standard deviation, got 1"):
        aligned_overlap(a, a, SYMMETRY, draws=1)
    with pytest.raises(ValueError, match="chance must be layers or inputs, got 'rows'"):
        aligned_overlap(a, a, SYMMETRY, chance="rows")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dealt must be masks or tickets, got 'rows'"):
        aligned_overlap(a, a, SYMMETRY, dealt="rows")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="matched_by must be ticket, weights or masks, got 'x'"):
        aligned_overlap(a, a, SYMMETRY, matched_by="x")  # type: ignore[arg-type]
