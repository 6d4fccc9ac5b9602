from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ticketsweep.display.fronts import front_text
from ticketsweep.results.fronts import THREE, fronts

VALUES = st.one_of(st.none(), st.just(float("nan")), st.integers(0, 4).map(lambda n: n / 4))
TRIALS = st.lists(
    st.tuples(VALUES, VALUES, VALUES, st.sampled_from(["complete", "failed", "stopped"])),
    max_size=12,
)


def rows(trials):
    names = (*THREE, "status")
    return [{"trial_id": f"{at:08}", **dict(zip(names, of, strict=True))}
            for at, of in enumerate(trials)]  # fmt: skip


@given(TRIALS)
def test_the_front_is_what_nothing_beats_and_everything_else_is_counted(trials):
    found = fronts(rows(trials))
    points = {row["trial_id"]: tuple(row[name] for name in THREE) for row in rows(trials)}
    known = {
        row["trial_id"]
        for row in rows(trials)
        if row["status"] == "complete"
        and all(v is not None and v == v for v in points[row["trial_id"]])
    }
    best = {
        one
        for one in known
        if not any(
            points[other] != points[one]
            and all(a >= b for a, b in zip(points[other], points[one], strict=True))
            for other in known
        )
    }
    assert {row["trial_id"] for row in found.front} == best
    assert {each.row["trial_id"] for each in found.ranked} == known
    assert len(known) + found.left_out + found.incomplete == len(trials)
    assert (found.left_out == 0) == (found.lacking == {})
    assert "nan" not in (front_text(found) or "").lower()


def test_a_trial_that_several_sweeps_have_is_on_the_front_once():
    trial = rows([(0.5, 0.5, 0.5, "complete")])
    found = fronts([*trial, *trial, *trial])
    assert len(found.front) == 1
    assert found.repeated == 2
    assert front_text(found) is None  # a front of one trial says nothing


def test_a_sweep_without_stability_is_told_why_it_has_no_front():
    text = front_text(fronts(rows([(0.9, 0.1, None, "complete")] * 2)))
    assert text.startswith(
        "No Pareto front of validation accuracy, sparsity and stability: 2 complete trials are "
        "without stability (stability needs replicates of the same initial weights"
    )


def test_the_sentence_names_the_front_and_how_many_it_cannot_judge():
    trials = [(0.9, 0.1, 0.2, "complete"), (0.1, 0.9, 0.2, "complete"), (0.1, 0.1, 0.1, "complete"),
              (0.9, 0.9, None, "complete"), (None, None, None, "failed")]  # fmt: skip
    text = front_text(fronts(rows(trials)))
    assert text == (
        "Pareto front of validation accuracy, sparsity and stability: 2 of 3 trials "
        "(00000000, 00000001); 1 complete trial is without stability and left out"
    )
