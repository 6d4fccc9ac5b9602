from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ticketsweep.train.gates.topk import kept_count, top_k

# Few distinct values, so that most rows have ties at the threshold.
ROWS = st.integers(1, 12).flatmap(
    lambda n: st.lists(
        st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=n, max_size=n),
        min_size=1,
        max_size=4,
    )
)


@given(ROWS, st.data())
def test_the_k_largest_are_kept_and_of_equals_the_first(
    rows: list[list[float]], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(rows[0])))
    wanted = []
    for row in rows:
        best = sorted(range(len(row)), key=lambda at: (-row[at], at))[:k]
        wanted.append([at in best for at in range(len(row))])
    assert top_k(torch.tensor(rows), k).tolist() == wanted


@pytest.mark.parametrize(
    ("density", "size", "count"), [(0.1, 100, 10), (1.0, 7, 7), (1e-9, 50, 1), (0.25, 6, 2)]
)
def test_a_layer_keeps_its_rounded_share_and_never_nothing(
    density: float, size: int, count: int
) -> None:
    assert kept_count(density, size) == count
