"""Packs of one trial on several devices; here the CPU stands for each of them."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ticketsweep.errors import TrialFailure
from ticketsweep.seeds import replicate_plan
from ticketsweep.train import learning
from ticketsweep.train.checkpoint import Checkpoints
from ticketsweep.train.data import Dataset
from ticketsweep.train.division import evenly, spread
from ticketsweep.train.gates.edge_popup import EdgePopupSettings
from ticketsweep.train.gates.gaussian import GaussianSettings
from ticketsweep.train.gates.hard_concrete import HardConcreteSettings
from ticketsweep.train.gates.interface import Family
from ticketsweep.train.gates.magnitude import MagnitudeSettings
from ticketsweep.train.gates.random import RandomSettings
from ticketsweep.train.gates.sigmoid import SigmoidSettings
from ticketsweep.train.learning import CurvePoint
from ticketsweep.train.loop import Optimisation
from ticketsweep.train.models import initial_parameters
from ticketsweep.train.models.drawing import global_generator
from ticketsweep.train.packs import find_tickets
from ticketsweep.train.plan import Plan
from ticketsweep.train.spreading import Packs
from ticketsweep.train.tickets import Tickets

GATE = GaussianSettings(1.0, 0.0, 1.0, 0.05, "exponential", 0.5)
TRAIN = Optimisation(steps=12, batch_size=16, lr=0.05, lr_schedule="cosine", optimizer="adam")
REPLICATES = replicate_plan(3, init=3, data=2, gate=1)
RUNGS = (3, 8)

MakePlan = Callable[..., Plan]


@pytest.fixture(scope="module")
def plan(blobs: Dataset, make_plan: MakePlan) -> Plan:
    """Every stage there is, each with a few steps."""
    return make_plan(
        blobs,
        model="fc-12",
        gate=GATE,
        train=TRAIN,
        joint=True,
        rewind_step=2,
        augment="flip",
        retrain=dataclasses.replace(TRAIN, steps=2),
        controls=("reinitialized",),
    )


class Memory:
    """A checkpoint's slot."""

    content: bytes | None = None

    def read(self) -> bytes | None:
        return self.content

    def write(self, content: bytes) -> None:
        self.content = content


def search(
    plan: Plan,
    dataset: Dataset,
    *,
    devices: int,
    pack: int | None = 2,
    slot: Memory | None = None,
    rungs: Sequence[int] = (),
    until: Callable[[list[Any]], bool] = lambda _: False,
) -> tuple[list[Any], Tickets | None]:
    """What is told, and the tickets; it is cut off where `until` says so."""
    searching = find_tickets(
        plan, dataset, REPLICATES, log_points=4, devices=["cpu"] * devices, pack=pack,
        checkpoints=Checkpoints(slot, seconds=0), snapshots=True, rungs=rungs,
    )  # fmt: skip
    told: list[Any] = []
    while not until(told):
        try:
            told.append(next(searching))
        except StopIteration as stop:
            return told, stop.value
    searching.close()
    return told, None


def assert_same(one: Tickets | None, other: Tickets | None, *, curves: bool = True) -> None:
    """All but the time they took, to the bit."""
    assert one is not None
    assert other is not None
    for a, b in zip(one.masks, other.masks, strict=True):
        assert a.name == b.name
        assert np.array_equal(a.kept, b.kept)
    for name in ("val_accuracy", "strong_accuracy", "loss", "density", "undecided", "diverged"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.accuracies.keys() == other.accuracies.keys()
    for name, figures in one.accuracies.items():
        np.testing.assert_array_equal(figures, other.accuracies[name], err_msg=name)
    if curves:
        for p, q in zip(one.curve, other.curve, strict=True):
            np.testing.assert_equal(dataclasses.astuple(p), dataclasses.astuple(q))
        for s, t in zip(one.snapshots, other.snapshots, strict=True):
            np.testing.assert_equal(dataclasses.astuple(s), dataclasses.astuple(t))


def threads() -> int:
    """Those of devices that are there now."""
    return sum(thread.name.startswith("pack") for thread in threading.enumerate())


@pytest.fixture(scope="module")
def alone(plan: Plan, blobs: Dataset) -> Tickets:
    """What one device finds, one pack after the other."""
    found = search(plan, blobs, devices=1)[1]
    assert found is not None
    return found


@pytest.fixture(scope="module")
def at_rungs(plan: Plan, blobs: Dataset) -> list[Tickets]:
    """The tickets at rungs, and in the end, of packs that wait for each other on one device."""
    told, found = search(plan, blobs, devices=1, rungs=RUNGS)
    assert found is not None
    return [*(report for report in told if isinstance(report, Tickets)), found]


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=9), devices=st.integers(1, 5))
def test_packs_are_divided_evenly_among_devices(sizes: list[int], devices: int) -> None:
    replicates = sum(sizes)
    even = evenly(replicates, len(sizes))
    packs = spread(even, devices)
    assert sum(packs) == replicates
    assert max(packs) - min(packs) <= 1
    assert max(packs) <= max(even)
    assert len(packs) % devices == 0 or set(packs) == {1}
    # No device has to train longer for it.
    assert -(-len(packs) // devices) == -(-len(even) // devices)
    assert spread(even, 1) == even


@pytest.mark.parametrize("devices", [2, 3])
def test_tickets_do_not_depend_on_over_how_many_devices_packs_are_spread(
    devices: int, plan: Plan, blobs: Dataset, alone: Tickets
) -> None:
    told, spread_out = search(plan, blobs, devices=devices)
    assert_same(alone, spread_out)
    assert threads() == 0
    packs, steps, firsts = Packs((6,), 0), [], []
    for report in told:
        if isinstance(report, Packs):
            packs = report
            assert packs.sizes == (2, 2, 2)
        elif isinstance(report, CurvePoint):
            steps.append(packs.elsewhere + report.step)
            firsts.append(packs.first)
    assert steps == sorted(set(steps))
    assert steps[-1] == 3 * TRAIN.steps
    assert Counter(firsts) == dict.fromkeys((0, 2, 4), len(alone.curve))


def test_as_many_packs_as_devices_are_made_where_all_would_fit_into_one(
    plan: Plan, blobs: Dataset
) -> None:
    for devices in (2, 4):
        told, _ = search(plan, blobs, devices=devices, pack=None, until=lambda told: bool(told))
        assert told[0].sizes == evenly(6, devices)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 3)])
def test_all_packs_under_way_go_on_after_a_kill_on_another_number_of_devices(
    before: int,
    after: int,
    plan: Plan,
    blobs: Dataset,
    alone: Tickets,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slot = Memory()

    def all_have_begun(told: list[Any]) -> bool:
        return sum(isinstance(report, CurvePoint) for report in told) == 2 * before + 1

    search(plan, blobs, devices=before, slot=slot, until=all_have_begun)
    under_way = {name for name in Checkpoints(slot)._under_way if name.endswith(learning.STAGE)}
    assert len(under_way) >= before - 1  # one may be through
    begun_at = []
    original = learning.training_batches

    def record(*args: Any, first: int, **named: Any) -> Any:
        begun_at.append(first)
        return original(*args, first=first, **named)

    monkeypatch.setattr(learning, "training_batches", record)
    # Fewer packs would do now, but those that were begun are ended.
    _, found = search(plan, blobs, devices=after, slot=slot, pack=6)
    assert_same(alone, found)
    assert sum(first > 0 for first in begun_at) >= len(under_way)


def test_tickets_at_rungs_are_those_of_one_pack_and_the_last_those_without_rungs(
    plan: Plan, blobs: Dataset, alone: Tickets, at_rungs: list[Tickets]
) -> None:
    assert_same(alone, at_rungs[-1], curves=False)
    told, _ = search(plan, blobs, devices=1, rungs=RUNGS, pack=6)
    together = [report for report in told if isinstance(report, Tickets)]
    assert [each.steps for each in together] == list(RUNGS)
    for one, other in zip(together, at_rungs[:-1], strict=True):
        assert one.steps == other.steps
        assert np.isnan(other.strong_accuracy).all()
        pairs = list(zip(one.masks, other.masks, strict=True))
        assert np.mean([(a.kept == b.kept).mean() for a, b in pairs]) > 0.995
        np.testing.assert_allclose(one.loss, other.loss, rtol=0.02)


@pytest.mark.parametrize("devices", [2, 3])
def test_packs_on_any_number_of_devices_come_to_a_rung_before_one_goes_on(
    devices: int, plan: Plan, blobs: Dataset, at_rungs: list[Tickets]
) -> None:
    told, found = search(plan, blobs, devices=devices, rungs=RUNGS)
    rungs = iter(at_rungs)
    farthest = 0
    for report in told:
        if isinstance(report, CurvePoint):
            farthest = max(farthest, report.step)
        elif isinstance(report, Tickets):
            assert farthest == report.steps
            assert_same(next(rungs), report)
    assert_same(next(rungs), found)
    assert list(rungs) == []


@pytest.mark.parametrize(("devices", "cut"), [(1, 4), (2, 5)])
def test_a_trial_that_was_cut_off_beyond_a_rung_comes_to_the_next(
    devices: int, cut: int, plan: Plan, blobs: Dataset, at_rungs: list[Tickets]
) -> None:
    slot = Memory()

    def is_beyond(told: list[Any]) -> bool:
        at_one = any(isinstance(report, Tickets) for report in told)
        return at_one and isinstance(told[-1], CurvePoint) and told[-1].step >= cut

    search(plan, blobs, devices=devices, slot=slot, rungs=RUNGS, until=is_beyond)
    told, found = search(plan, blobs, devices=2, slot=slot, rungs=RUNGS)
    assert_same(at_rungs[-1], found)
    again = [report for report in told if isinstance(report, Tickets)]
    assert_same(at_rungs[1], again[-1])


class Greedy(nn.Sequential):
    """Memory runs out in one of its calls."""

    calls = itertools.count(1)
    last = 10**9

    def forward(self, images: Tensor) -> Tensor:
        if next(Greedy.calls) == Greedy.last:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(images)


def build_greedy() -> nn.Module:
    with global_generator():  # as `build_model` does
        return Greedy(nn.Flatten(), nn.Linear(72, 4))


@pytest.fixture
def greedy(blobs: Dataset, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(Greedy, "calls", itertools.count(1))
    plan = make_plan(blobs, model="fc-12", gate=GATE, train=TRAIN)
    return dataclasses.replace(plan, build=build_greedy)


@pytest.mark.parametrize("rungs", [(), RUNGS])
def test_the_pack_of_the_device_whose_memory_runs_out_is_halved_alone(
    rungs: Sequence[int], greedy: Plan, blobs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = search(greedy, blobs, devices=1, pack=3, rungs=rungs)[1]
    assert wanted is not None
    monkeypatch.setattr(Greedy, "calls", itertools.count(1))
    monkeypatch.setattr(Greedy, "last", 15)
    slot = Memory()
    told, found = search(greedy, blobs, devices=2, pack=3, rungs=rungs, slot=slot)
    assert found is not None
    sizes = [report.sizes for report in told if isinstance(report, Packs)]
    assert sizes[0] == (3, 3)
    assert sizes[-1] in ((2, 1, 3), (3, 2, 1))
    whole = slice(3, 6) if sizes[-1] == (2, 1, 3) else slice(0, 3)
    np.testing.assert_array_equal(found.loss[whole], wanted.loss[whole])
    np.testing.assert_allclose(found.loss, wanted.loss, rtol=0.02)
    assert [t.steps for t in told if isinstance(t, Tickets)] == list(rungs)
    # What the pack that is no more had saved is not kept.
    assert not [
        name
        for name in Checkpoints(slot)._results
        if name.startswith("0-3:" if whole.start else "3-6:")
    ]


def test_what_one_device_raises_ends_the_trial_and_the_threads(
    greedy: Plan, blobs: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Greedy, "last", 15)
    with pytest.raises(TrialFailure, match="out of memory with a single replicate"):
        search(greedy, blobs, devices=2, pack=1)
    assert threads() == 0


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("model", "gate", "granularity"),
    [
        ("fc-12", HardConcreteSettings(0.5, 0.0, 0.66, 0.66, "constant", 0.0), "neuron"),
        ("fc-12", MagnitudeSettings(rounds=3, share=0.3, scope="global"), "weight"),
        ("fc-12", RandomSettings(density=0.3), "weight"),
        ("lenet-5", EdgePopupSettings(density=0.3, ranked_by="absolute"), "weight"),
        ("resnet-20", SigmoidSettings(0.5, 0.0, 1.0, 0.01, "exponential", 0.0), "weight"),
        ("vit_tiny", GATE, "weight"),
    ],
)
def test_so_it_is_for_every_family_and_kind_of_network(
    model: str, gate: Family, granularity: str, make_plan: MakePlan
) -> None:
    images = np.random.default_rng(0).integers(0, 255, (96, 3, 32, 32), np.uint8)
    labels = np.arange(96) % 4
    dataset = Dataset(
        "noise", images[:80], labels[:80], images[80:], labels[80:], classes=4, digest=""
    )
    how = dataclasses.replace(TRAIN, batch_size=4, steps=RUNGS[-1] + 1)
    settings = {"width": 0.25, "rewind_step": 2, "precision": "bf16"}
    plan = make_plan(
        dataset, model=model, gate=gate, granularity=granularity, train=how, **settings
    )
    told, one = search(plan, dataset, devices=1, rungs=RUNGS)
    again, other = search(plan, dataset, devices=3, rungs=RUNGS)
    assert_same(one, other)
    for here, there in zip(
        *([r for r in reports if isinstance(r, Tickets)] for reports in (told, again)),
        strict=True,
    ):
        assert_same(here, there)


def test_threads_draw_the_initial_weights_that_one_alone_draws(plan: Plan) -> None:
    def draw(seed: int) -> Tensor:
        names = ["fc1.weight", "fc2.weight"]
        drawn = initial_parameters(
            plan.build, names, weight_init="default", weight_scale=1.0, seed=seed
        )
        return torch.cat([drawn[name].reshape(-1) for name in names])

    wanted = [draw(seed) for seed in range(2)]
    found: dict[tuple[int, int], Tensor] = {}

    def often(seed: int) -> None:
        for time in range(10):
            found[seed, time] = draw(seed)

    workers = [threading.Thread(target=often, args=(seed,)) for seed in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 20
    assert all(torch.equal(wanted[seed], values) for (seed, _), values in found.items())
