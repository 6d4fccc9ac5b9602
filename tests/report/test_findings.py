from __future__ import annotations

from dataclasses import replace

from ticketsweep.report.findings import cautions, findings

ASKED = "`ticketsweep confirm s` measures them again with fresh seeds"


def test_the_best_are_said_to_be_flattered_until_they_are_confirmed(sweep) -> None:
    first, second, _ = (sweep.add(density=density) for density in (0.3, 0.5, 0.2))
    data = sweep.data()
    assert any(ASKED in sentence for sentence in cautions(data))
    assert not any("fresh seeds" in sentence for sentence in findings(data))
    for trial in (first, second):
        sweep.add(name="s-confirmed", like=trial)
    sweep.add(name="s-confirmed", like=f"{99:08x}{99:08x}")  # settings that the sweep has not
    data = sweep.data()
    assert not any(ASKED in sentence for sentence in cautions(data))
    assert [str(each.row["trial_id"]) for each in data.confirmed] == [
        str(each.row["trial_id"]) for each in data.summary.ranked
        if each.row["trial_id"] in (first, second)
    ]  # fmt: skip
    told = " ".join(findings(data))
    assert (
        "Run again with fresh seeds (sweep s-confirmed), 2 trials of the best lie 2.0 points below"
        in told
    )
    # Means and standard deviations of 0.85, 0.86, ... 0.93.
    assert "then reaches 89.00 ± 2.74 % in test accuracy (9 replicates)" in told


def test_a_single_trial_and_a_confirming_sweep_flatter_nobody(sweep) -> None:
    sweep.add()
    assert not any("flatters" in sentence for sentence in cautions(sweep.data()))
    sweep.add(density=0.3)
    data = sweep.data()
    assert any("flatters" in sentence for sentence in cautions(data))
    confirming = replace(data, view=replace(data.view, name="s-confirmed"))
    assert not any("flatters" in sentence for sentence in cautions(confirming))
