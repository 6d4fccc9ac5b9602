from __future__ import annotations

import itertools
import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ticketsweep.results.grouping import Bin, groups_of, order_of, plain_group


def rows(values):
    return [{"trial_id": str(at), "lr": value} for at, value in enumerate(values)]


@given(st.lists(st.sampled_from([0.1 * n for n in range(40)]), min_size=1, max_size=60))
def test_a_bin_holds_its_values_equal_ones_stay_together_and_none_is_too_full(values):
    groups = [group for (group,) in groups_of(rows(values), ["lr"], binned=True)]
    if len(set(values)) <= 8:
        assert groups == values
        return
    assert all(bin_.low <= value <= bin_.high for bin_, value in zip(groups, values, strict=True))
    assert len({(value, bin_) for value, bin_ in zip(values, groups, strict=True)}) == len(
        set(values)
    )
    ordered = sorted(set(groups), key=lambda bin_: bin_.low)
    assert all(a.high < b.low for a, b in itertools.pairwise(ordered))
    most = max(Counter(values).values())  # no fewer can lie on one side
    assert max(Counter(groups).values()) <= len(values) / 4 + most


def test_values_are_left_alone_unless_bins_are_asked_for_and_what_is_no_number_always():
    many = [0.5 * n for n in range(12)]
    assert groups_of(rows(many), ["lr"], binned=False) == [(value,) for value in many]
    mixed = groups_of(rows([*many, None, "a"]), ["lr"], binned=True)
    assert mixed[-2:] == [(None,), ("a",)]
    assert mixed[0] == (Bin(0.0, 1.0),)
    assert groups_of(rows(many), [], binned=True) == [()] * 12
    assert groups_of([], ["lr"], binned=True) == []


def test_bins_are_sorted_by_size_and_told_as_text():
    bins = [(Bin(10.0, 12.0),), (Bin(9.0, 9.5),), ("a",), (Bin(0.123456, 0.123456),)]
    assert [group[0] for group in sorted(bins, key=order_of)] == [
        Bin(0.123456, 0.123456),
        Bin(9.0, 9.5),
        Bin(10.0, 12.0),
        "a",
    ]
    told = plain_group(["lr", "x"], (Bin(0.25, 1e-5 + 10), 3))
    assert json.loads(json.dumps(told)) == {"lr": "0.25 to 10", "x": 3}
    assert str(Bin(0.123456, 0.123456)) == "0.1235"
