from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ticketsweep.results.ranking import best_trial, chosen, domination_ranks, rank_trials

POINTS = st.integers(1, 3).flatmap(
    lambda objectives: st.lists(st.tuples(*[st.integers(0, 4)] * objectives), max_size=25)
)


def peeled(points):
    """Ranks by taking front after front off, as the definition says."""
    ranks, rank, left = {}, 0, set(range(len(points)))
    while left:
        rank += 1
        front = {
            i
            for i in left
            if not any(
                all(a >= b for a, b in zip(points[j], points[i], strict=True))
                and points[j] != points[i]
                for j in left
            )
        }
        ranks.update(dict.fromkeys(front, rank))
        left -= front
    return [ranks[i] for i in range(len(points))]


@given(POINTS)
def test_ranks_are_those_of_peeling_fronts_off(points):
    assert domination_ranks(points) == peeled(points)


@given(POINTS, st.randoms())
def test_ranks_do_not_depend_on_the_order_of_trials(points, random):
    order = list(range(len(points)))
    random.shuffle(order)
    ranks = domination_ranks(points)
    assert domination_ranks([points[i] for i in order]) == [ranks[i] for i in order]


def row(trial_id, accuracy, loss, status="complete"):
    metrics = {"loss": loss}
    return {"trial_id": trial_id, "status": status, "val_accuracy": accuracy, "metrics": metrics}


AIMS = {"val_accuracy": "max", "loss": "min"}
ROWS = [
    row("worse", 0.8, 0.5),
    row("accurate", 0.9, 0.4),
    row("certain", 0.85, 0.3),
    row("diverged", 0.99, float("nan")),
    row("broken", None, None, status="failed"),
]


def test_trials_are_ranked_in_the_direction_of_each_objective():
    ranked = rank_trials(ROWS, AIMS)
    assert [(t.rank, t.row["trial_id"]) for t in ranked] == [
        (1, "accurate"),
        (1, "certain"),
        (2, "worse"),
    ]


def test_the_best_trial_of_an_objective_is_a_complete_one_that_has_it():
    assert best_trial(ROWS, "loss", "min")["trial_id"] == "certain"
    assert best_trial(ROWS, "val_accuracy", "max")["trial_id"] == "diverged"
    assert best_trial(ROWS, "stability", "max") is None


def test_a_long_front_is_thinned_evenly_and_keeps_its_ends():
    front = [row(str(i), i / 100, i / 100) for i in range(40)]
    shown = [t.row["trial_id"] for t in chosen(rank_trials(front, AIMS), 10)]
    assert len(set(shown)) == 10
    assert (shown[0], shown[-1]) == ("39", "0")
    assert [t.row["trial_id"] for t in chosen(rank_trials(front, AIMS), 1)] == ["39"]


def test_a_short_front_is_filled_up_with_the_next_ranks():
    assert [t.rank for t in chosen(rank_trials(ROWS, AIMS), 10)] == [1, 1, 2]


@given(POINTS, st.integers(1, 3))
def test_ranks_that_are_not_told_apart_are_those_further_back(points, ranks):
    every = domination_ranks(points)
    assert domination_ranks(points, ranks=ranks) == [
        rank if points and len(points[0]) == 1 else min(rank, ranks + 1) for rank in every
    ]
