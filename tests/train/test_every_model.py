"""Every model that has a name goes through a whole trial."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ticketsweep.seeds import replicate_plan
from ticketsweep.train.data import Dataset
from ticketsweep.train.gates.gaussian import GaussianSettings
from ticketsweep.train.learning import CurvePoint
from ticketsweep.train.loop import Optimisation
from ticketsweep.train.models import FACTORIES
from ticketsweep.train.plan import Plan
from ticketsweep.train.tickets import Tickets

REPLICATES = replicate_plan(0, init=2, data=1, gate=1)
GATE = GaussianSettings(
    l0_strength=1.0,
    l0_warmup=0.0,
    target_density=None,
    temperature=0.5,
    temperature_end=0.1,
    temperature_schedule="exponential",
    init=0.5,
)
ONE_STEP = Optimisation(steps=1, batch_size=8, lr=0.5, lr_schedule="constant", optimizer="sgd")


@pytest.fixture(scope="module")
def pictures() -> Dataset:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, size=(48, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(48, dtype=np.int64) % 4
    return Dataset("pictures", images[:32], labels[:32], images[32:], labels[32:], 4, digest="")


@pytest.mark.parametrize(
    ("name", "granularity"),
    [*((name, "weight") for name in FACTORIES),
     *((name, "neuron") for name in ("lenet-5", "resnet-20", "resnet18", "vit_tiny", "swin_t"))],
)  # fmt: skip
def test_a_packed_replicate_equals_the_one_trained_alone(
    name: str,
    granularity: str,
    pictures: Dataset,
    make_plan: Callable[..., Plan],
    reports_of: Callable[..., tuple[list[CurvePoint], Tickets]],
) -> None:
    """Losses to 1e-3 and, gates within rounding of the threshold aside, the same masks."""
    plan = make_plan(
        pictures,
        model=name,
        width=0.25 if name == "lenet-5" else 0.125,  # it has six channels: no fewer than two
        granularity=granularity,
        gate=GATE,
        train=ONE_STEP,
    )
    (point,), tickets = reports_of(plan, pictures, REPLICATES, log_points=1)
    for at, replicate in enumerate(REPLICATES):
        (alone_point,), alone = reports_of(plan, pictures, [replicate], log_points=1)
        assert point.loss[at] == pytest.approx(alone_point.loss[0], rel=1e-3)
        assert tickets.loss[at] == pytest.approx(alone.loss[0], rel=1e-3)
        gates = sum(mask.kept[at].size for mask in tickets.masks)
        differing = sum(
            int((mask.kept[at] != other.kept[0]).sum())
            for mask, other in zip(tickets.masks, alone.masks, strict=True)
        )
        assert differing <= gates / 500
    assert ((tickets.density > 0) & (tickets.density <= 1)).all()
