from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from ticketsweep.seeds import replicate_plan
from ticketsweep.train.checkpoint import Checkpoints
from ticketsweep.train.data import Dataset
from ticketsweep.train.gates.edge_popup import EdgePopupSettings
from ticketsweep.train.gates.gaussian import GaussianSettings
from ticketsweep.train.gates.hard_concrete import HardConcreteSettings
from ticketsweep.train.gates.interface import Family
from ticketsweep.train.gates.magnitude import MagnitudeSettings
from ticketsweep.train.gates.random import RandomSettings
from ticketsweep.train.gates.sigmoid import SigmoidSettings
from ticketsweep.train.learning import CurvePoint
from ticketsweep.train.loop import Optimisation
from ticketsweep.train.pack import Layout
from ticketsweep.train.packs import find_tickets
from ticketsweep.train.plan import Plan
from ticketsweep.train.snapshots import (
    MaskTrace,
    layers_of,
    packed_gates,
    snapshots_of,
    snapshots_state,
)
from ticketsweep.train.tickets import Tickets

REPLICATES = replicate_plan(0, init=1, data=2, gate=1)
STEPS = 24
TRAIN = Optimisation(steps=STEPS, batch_size=32, lr=0.05, lr_schedule="constant", optimizer="adam")
# Nothing of them depends on how many steps there are to come.
STEADY: dict[str, Family] = {
    "gaussian": GaussianSettings(0.5, 0.0, 0.5, 0.5, "constant", 0.5),
    "hard_concrete": HardConcreteSettings(0.5, 0.0, 0.66, 0.66, "constant", 0.0),
    "sigmoid": SigmoidSettings(0.5, 0.0, 0.3, 0.3, "constant", 0.1),
    "edge_popup": EdgePopupSettings(density=0.3, ranked_by="absolute"),
    "magnitude": MagnitudeSettings(rounds=1, share=0.3, scope="global"),
}
IN_ROUNDS = MagnitudeSettings(rounds=3, share=0.3, scope="global")

MakePlan = Callable[..., Plan]
ReportsOf = Callable[..., tuple[list[Any], Tickets]]


@pytest.fixture
def find(
    blobs: Dataset, make_plan: MakePlan, reports_of: ReportsOf
) -> Callable[..., tuple[list[CurvePoint], Tickets]]:
    def search(
        gate: Family,
        *,
        steps: int = STEPS,
        points: int = 4,
        snapshots: bool = True,
        granularity: str = "weight",
        **how: Any,
    ) -> tuple[list[CurvePoint], Tickets]:
        plan = make_plan(
            blobs,
            model="fc-11",  # so that no layer is a whole number of bytes
            gate=gate,
            train=dataclasses.replace(TRAIN, steps=steps),
            granularity=granularity,
        )
        reports, tickets = reports_of(
            plan, blobs, REPLICATES, log_points=points, snapshots=snapshots, **how
        )
        return [each for each in reports if isinstance(each, CurvePoint)], tickets

    return search


def flat(tickets: Tickets) -> np.ndarray:
    """The tickets' gates, bool (R, U)."""
    replicates = len(tickets.diverged)
    return np.concatenate([mask.kept.reshape(replicates, -1) for mask in tickets.masks], axis=1)


def unpacked(bits: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Snapshots' gates, bool (R, U)."""
    layers = [
        np.unpackbits(each, axis=1, count=size, bitorder="little")
        for each, size in zip(layers_of(bits, sizes), sizes, strict=True)
    ]
    return np.concatenate(layers, axis=1).astype(bool)


def sizes_of(tickets: Tickets) -> list[int]:
    return [mask.kept[0].size for mask in tickets.masks]


LAYOUT = Layout(("a", "b", "c"), ((3, 3), (16,), (5,)), (9, 16, 5))


def test_gates_are_packed_layer_by_layer_and_a_mask_that_stays_has_not_changed() -> None:
    rng = np.random.default_rng(0)
    kept = torch.from_numpy(rng.random((4, 30)) < 0.5)
    bits = packed_gates(kept, LAYOUT)
    assert bits.shape == (4, 2 + 2 + 1)
    assert np.array_equal(unpacked(bits, LAYOUT.sizes), kept.numpy())
    trace = MaskTrace(LAYOUT, kept, keeps=True)
    assert trace.changed(kept, step=1).tolist() == [0.0] * 4
    other = kept.clone()
    other[2, [0, 9, 29]] ^= True
    assert trace.changed(other, step=2).tolist() == [0.0, 0.0, 3 / 30, 0.0]
    assert trace.changed(other, step=3).tolist() == [0.0] * 4
    again = snapshots_of(snapshots_state(trace.snapshots))
    assert [each.step for each in again] == [1, 2, 3]
    assert np.array_equal(unpacked(again[1].bits, LAYOUT.sizes), other.numpy())


@pytest.mark.parametrize("family", STEADY)
def test_a_snapshot_is_the_ticket_of_a_training_that_ended_there(family: str, find) -> None:
    points, whole = find(STEADY[family])
    assert [each.step for each in whole.snapshots] == [6, 12, 18]
    for snapshot in whole.snapshots:
        _, ended = find(STEADY[family], steps=snapshot.step, points=1)
        assert np.array_equal(unpacked(snapshot.bits, sizes_of(whole)), flat(ended))
        assert ended.snapshots == ()  # the last step's is the ticket itself
    masks = [*(unpacked(each.bits, sizes_of(whole)) for each in whole.snapshots), flat(whole)]
    changes = [(a ^ b).mean(axis=1) for a, b in itertools.pairwise(masks)]
    assert np.allclose([each.mask_change for each in points[1:]], changes)


@pytest.mark.parametrize("granularity", ["weight", "neuron"])
@pytest.mark.parametrize("gate", [STEADY["gaussian"], STEADY["edge_popup"]])
def test_tickets_and_curves_are_the_same_with_and_without_snapshots(
    gate: Family, granularity: str, find
) -> None:
    with_them, one = find(gate, granularity=granularity)
    without, other = find(gate, granularity=granularity, snapshots=False)
    assert len(one.snapshots) == 3
    assert other.snapshots == ()
    assert np.array_equal(flat(one), flat(other))
    for a, b in zip(with_them, without, strict=True):
        assert np.array_equal(a.mask_change, b.mask_change)
        assert np.array_equal(a.val_accuracy, b.val_accuracy)


def test_gates_that_begin_shut_have_changed_by_all_that_opened_first(find) -> None:
    points, tickets = find(STEADY["gaussian"])  # mu begins at 0.5, which is not yet kept
    opened = unpacked(tickets.snapshots[0].bits, sizes_of(tickets)).mean(axis=1)
    assert np.allclose(points[0].mask_change, opened)


def test_a_mask_that_is_pruned_in_rounds_keeps_as_many_within_each_and_fewer_in_the_next(
    find,
) -> None:
    _, tickets = find(IN_ROUNDS, points=6)
    kept = [
        unpacked(each.bits, sizes_of(tickets)).sum(axis=1).tolist() for each in tickets.snapshots
    ]
    kept.append(flat(tickets).sum(axis=1).tolist())
    # Of the six logged steps two lie in each round; the end of a round is seen before it prunes.
    assert kept[0] == kept[1] > kept[2] == kept[3] > kept[4] == kept[5]


def test_a_random_mask_has_no_way_to_be_followed(find) -> None:
    points, tickets = find(RandomSettings(density=0.3))
    assert points == []
    assert tickets.snapshots == ()


class Memory:
    """A slot whose content outlives the search that wrote it."""

    def __init__(self) -> None:
        self.content: bytes | None = None

    def read(self) -> bytes | None:
        return self.content

    def write(self, content: bytes) -> None:
        self.content = content


@pytest.mark.parametrize("pack", [2, 1])
@pytest.mark.parametrize("gate", [STEADY["gaussian"], IN_ROUNDS])
def test_a_search_that_was_cut_off_has_the_snapshots_that_it_would_have_had(
    blobs: Dataset, make_plan: MakePlan, reports_of: ReportsOf, gate: Family, pack: int
) -> None:
    plan = make_plan(blobs, model="fc-11", gate=gate, train=TRAIN)
    how = {"log_points": 4, "pack": pack, "snapshots": True}
    _, wanted = reports_of(plan, blobs, REPLICATES, **how)
    slot, seen = Memory(), 0
    kept = Checkpoints(slot, seconds=0)
    cut = find_tickets(plan, blobs, REPLICATES, devices=["cpu"], checkpoints=kept, **how)
    for report in cut:
        seen += isinstance(report, CurvePoint)
        if seen == (3 if pack == 2 else 6):  # in the last pack there is
            break
    cut.close()
    _, found = reports_of(plan, blobs, REPLICATES, checkpoints=Checkpoints(slot), **how)
    assert len(found.snapshots) == len(wanted.snapshots) == 3
    for one, other in zip(found.snapshots, wanted.snapshots, strict=True):
        assert one.step == other.step
        assert np.array_equal(one.bits, other.bits)
    for one, other in zip(found.curve, wanted.curve, strict=True):
        assert np.array_equal(one.mask_change, other.mask_change)
    assert np.array_equal(flat(found), flat(wanted))


def test_snapshots_asked_for_on_the_way_begin_there_and_are_dropped_if_no_more_wanted(
    blobs: Dataset, make_plan: MakePlan, reports_of: ReportsOf
) -> None:
    plan = make_plan(blobs, model="fc-11", gate=STEADY["gaussian"], train=TRAIN)
    for first, steps in ((False, [18]), (True, [])):
        slot, seen = Memory(), 0
        kept = Checkpoints(slot, seconds=0)
        cut = find_tickets(
            plan,
            blobs,
            REPLICATES,
            log_points=4,
            devices=["cpu"],
            checkpoints=kept,
            snapshots=first,
        )
        for report in cut:
            seen += isinstance(report, CurvePoint)
            if seen == 2:
                break
        cut.close()
        _, found = reports_of(
            plan,
            blobs,
            REPLICATES,
            log_points=4,
            checkpoints=Checkpoints(slot),
            snapshots=not first,
        )
        assert [each.step for each in found.snapshots] == steps
