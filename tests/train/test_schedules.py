from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ticketsweep.train.schedules import (
    LEARNING_RATES,
    SCHEDULES,
    learning_rates,
    log_steps,
    temperatures,
)


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
def test_a_temperature_goes_from_its_start_to_its_end(schedule: str) -> None:
    values = temperatures(schedule, start=2.0, end=0.5, steps=101)
    assert values[0] == pytest.approx(2.0)
    assert values[-1] == pytest.approx(2.0 if schedule == "constant" else 0.5)
    assert values == sorted(values, reverse=True)
    halfway = {"constant": 2.0, "linear": 1.25, "exponential": 1.0, "cosine": 1.25}
    assert values[50] == pytest.approx(halfway[schedule])
    assert temperatures(schedule, start=2.0, end=0.5, steps=1) == [2.0]


def test_a_cosine_learning_rate_equals_torchs() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    wanted = []
    for _ in range(20):
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert learning_rates("cosine", lr=0.3, steps=20) == pytest.approx(wanted)
    assert learning_rates("constant", lr=0.3, steps=3) == [0.3] * 3
    assert learning_rates("linear", lr=0.4, steps=4) == pytest.approx([0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize(("warmup", "rise"), [(0.25, 5), (0.01, 0), (0.95, 19)])
def test_a_learning_rate_that_warms_up_equals_torchs(warmup: float, rise: int) -> None:
    torch_lr = torch.optim.lr_scheduler
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    falling = torch_lr.CosineAnnealingLR(optimizer, T_max=20 - rise)
    rising = torch_lr.LinearLR(optimizer, start_factor=1 / (rise + 1), total_iters=rise)
    reference = torch_lr.SequentialLR(optimizer, [rising, falling], milestones=[rise])
    wanted = []
    for _ in range(20):
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert learning_rates("cosine", lr=0.3, steps=20, warmup=warmup) == pytest.approx(wanted)


@given(
    schedule=st.sampled_from(sorted(LEARNING_RATES)),
    steps=st.integers(1, 100),
    warmup=st.floats(0, 1),
)
def test_a_learning_rate_is_above_zero_and_rises_to_its_highest_once(
    schedule: str, steps: int, warmup: float
) -> None:
    rates = learning_rates(schedule, lr=0.3, steps=steps, warmup=warmup)
    assert len(rates) == steps
    assert 0 < min(rates) <= max(rates) <= 0.3
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


@given(steps=st.integers(1, 500), points=st.integers(0, 60))
def test_logged_steps_increase_and_end_with_the_last(steps: int, points: int) -> None:
    logged = log_steps(steps, points)
    assert logged == sorted(set(logged))
    assert logged[0] >= 1
    assert logged[-1] == steps
    assert len(logged) == min(max(1, points), steps)
