from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ticketsweep.errors import TrialFailure
from ticketsweep.seeds import replicate_plan
from ticketsweep.train import memory
from ticketsweep.train.checkpoint import Checkpoints
from ticketsweep.train.data import Dataset
from ticketsweep.train.demand import Demand
from ticketsweep.train.division import FILLED, fitting, halved, sizes_of
from ticketsweep.train.gates.gaussian import GaussianSettings
from ticketsweep.train.learning import CurvePoint
from ticketsweep.train.loop import Optimisation
from ticketsweep.train.packs import find_tickets
from ticketsweep.train.plan import Plan
from ticketsweep.train.spreading import Packs
from ticketsweep.train.stages import Stages
from ticketsweep.train.tickets import Tickets

GATE = GaussianSettings(1.0, 0.0, 1.0, 0.05, "exponential", 0.5)
TRAIN = Optimisation(steps=30, batch_size=16, lr=0.05, lr_schedule="cosine", optimizer="adam")
REPLICATES = replicate_plan(3, init=3, data=2, gate=1)

MakePlan = Callable[..., Plan]
ReportsOf = Callable[..., tuple[list[object], Tickets]]


@given(replicates=st.integers(1, 200), largest=st.integers(1, 300))
def test_packs_are_few_and_even_and_hold_every_replicate(replicates: int, largest: int) -> None:
    sizes = sizes_of(replicates, largest=largest)
    assert sum(sizes) == replicates
    assert max(sizes) <= largest
    assert max(sizes) - min(sizes) <= 1
    assert (len(sizes) - 1) * largest < replicates


@given(
    replicates=st.integers(1, 64),
    each=st.integers(1, 10**9),
    fixed=st.integers(0, 10**9),
    available=st.integers(0, 10**11),
)
def test_packs_fit_into_what_there_is_unless_a_single_replicate_does_not(
    replicates: int, each: int, fixed: int, available: int
) -> None:
    sizes = fitting(replicates, Demand(each, fixed), available=available)
    assert max(sizes) == 1 or max(sizes) * each + fixed <= available * FILLED
    assert fitting(replicates, Demand(each, fixed), available=None) == (replicates,)
    waiting = fitting(replicates, Demand(each, fixed, each // 2), available=available)
    held = replicates * (each // 2) if len(sizes) > 1 else 0
    assert max(waiting) == 1 or max(waiting) * each + fixed + held <= available * FILLED


def test_a_pack_is_halved_until_a_single_replicate_is_left() -> None:
    assert halved((4, 3), 1) == (4, 2, 1)
    assert halved((4, 3), 0) == (2, 2, 3)
    with pytest.raises(TrialFailure, match=r"out of memory with a single replicate .*batch_size"):
        halved((1, 3), 0)


def plan_of(make_plan: MakePlan, dataset: Dataset, **changes: object) -> Plan:
    settings = {"model": "fc-12", "gate": GATE, "train": TRAIN} | changes
    return make_plan(dataset, **settings)


@pytest.mark.parametrize("pack", [1, 2, 4])
def test_tickets_do_not_depend_on_the_packs_they_were_found_in(
    pack: int, blobs: Dataset, make_plan: MakePlan, reports_of: ReportsOf
) -> None:
    plan = plan_of(make_plan, blobs)
    points, whole = reports_of(plan, blobs, REPLICATES, log_points=3)
    reports, parts = reports_of(plan, blobs, REPLICATES, log_points=3, pack=pack)
    packs = [report for report in reports if isinstance(report, Packs)]
    assert [each.done for each in packs] == list(range(-(-6 // pack)))
    assert not any(isinstance(report, Packs) for report in points)
    same = np.mean(
        [(a.kept == b.kept).mean() for a, b in zip(whole.masks, parts.masks, strict=True)]
    )
    assert same > 0.995
    np.testing.assert_allclose(parts.loss, whole.loss, rtol=0.02)
    assert [point.step for point in parts.curve] == [point.step for point in whole.curve]
    np.testing.assert_allclose(parts.curve[-1].loss, whole.curve[-1].loss, rtol=0.02)
    assert parts.steps == whole.steps == 30


class Memory:
    """A checkpoint's slot."""

    def __init__(self) -> None:
        self.content: bytes | None = None

    def read(self) -> bytes | None:
        return self.content

    def write(self, content: bytes) -> None:
        self.content = content


def test_a_trial_cut_off_in_its_second_pack_goes_on_there(
    blobs: Dataset, make_plan: MakePlan, reports_of: ReportsOf
) -> None:
    plan = plan_of(make_plan, blobs)
    wanted = reports_of(plan, blobs, REPLICATES, log_points=3, pack=2)[1]
    slot = Memory()
    cut = find_tickets(
        plan, blobs, REPLICATES, log_points=30, devices=["cpu"],
        checkpoints=Checkpoints(slot, seconds=0), pack=2,
    )  # fmt: skip
    packs = 0
    for report in cut:
        packs += isinstance(report, Packs)
        if packs == 2 and isinstance(report, CurvePoint) and report.step == 11:
            break
    cut.close()
    # Another number is asked for now, but the packs that were begun are ended.
    reports, found = reports_of(
        plan, blobs, REPLICATES, log_points=30, checkpoints=Checkpoints(slot), pack=6
    )
    assert [report.sizes for report in reports if isinstance(report, Packs)] == [(2, 2, 2)] * 3
    for one, other in zip(wanted.masks, found.masks, strict=True):
        assert np.array_equal(one.kept, other.kept)
    np.testing.assert_array_equal(wanted.loss, found.loss)


def test_it_is_a_failure_only_if_the_replicates_of_all_packs_diverge(
    blobs: Dataset, make_plan: MakePlan, reports_of: ReportsOf
) -> None:
    plan = plan_of(make_plan, blobs, weight_scale=1e30)
    with pytest.raises(TrialFailure, match="every replicate diverged"):
        reports_of(plan, blobs, REPLICATES, log_points=3, pack=3)


def test_demand_is_what_a_count_by_hand_gives(blobs: Dataset, make_plan: MakePlan) -> None:
    batch, gates = 16, 72 * 12 + 12 * 4
    activations = batch * (72 + 12 + 12)  # inputs of the layers, and what the ReLU keeps
    for joint in (False, True):
        stages = Stages(
            plan_of(make_plan, blobs, joint=joint), blobs, REPLICATES, 1, torch.device("cpu"),
            Checkpoints(None), others=False,
        )  # fmt: skip
        least = 4 * (gates * (14 if joint else 8) + activations)
        demand = stages.demand(saved=False)
        assert least <= demand.each <= 1.3 * least
        assert demand.fixed > 0
        kept = stages.demand(saved=True)
        assert kept.each - demand.each == 4 * 9 * gates * (2 if joint else 1)


def test_the_memory_of_a_container_is_honoured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it is a group within another, and but for a page cache that gives way."""
    groups, cpu = tmp_path / "groups", torch.device("cpu")
    own = groups / "slurm" / "job"
    own.mkdir(parents=True)
    (tmp_path / "own").write_text("0::/slurm/job\n")
    monkeypatch.setattr(memory, "_GROUPS", groups)
    monkeypatch.setattr(memory, "_OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10**6)
    (own / "memory.max").write_text("max\n")
    (own / "memory.current").write_text("1000\n")
    unlimited = memory.available_memory(cpu)
    assert unlimited is not None
    assert unlimited > 10**6
    (own.parent / "memory.max").write_text("5000\n")
    (own.parent / "memory.current").write_text("4000\n")
    assert memory.available_memory(cpu) == 1000
    (own.parent / "memory.stat").write_text("anon 7\ninactive_file 2500\n")
    assert memory.available_memory(cpu) == 3500
    (groups / "memory.max").write_text("900\n")
    (groups / "memory.current").write_text("1000\n")
    assert memory.available_memory(cpu) == 0
    (groups / "memory.max").write_text("1300\n")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    share = memory.available_memory(cpu)
    assert share is not None
    assert share <= 300
    assert memory.available_memory(torch.device("meta")) is None


def test_errors_that_mean_that_memory_is_short_are_known() -> None:
    for words in (
        "CUDA error: out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED when calling `x`",
        "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes",
    ):
        assert memory.is_out_of_memory(RuntimeError(words))
    assert memory.is_out_of_memory(MemoryError())
    assert not memory.is_out_of_memory(RuntimeError("shapes do not match"))
    assert not memory.is_out_of_memory(ValueError("out of memory"))


def test_packs_that_were_begun_give_way_to_smaller_ones_that_are_asked_for(
    blobs: Dataset, make_plan: MakePlan, reports_of: ReportsOf
) -> None:
    plan, slot = plan_of(make_plan, blobs), Memory()
    cut = find_tickets(
        plan, blobs, REPLICATES, log_points=30, devices=["cpu"],
        checkpoints=Checkpoints(slot, seconds=0), pack=3,
    )  # fmt: skip
    for report in cut:
        if isinstance(report, CurvePoint) and report.step == 5:
            break
    cut.close()
    reports, found = reports_of(
        plan, blobs, REPLICATES, log_points=3, checkpoints=Checkpoints(slot), pack=1
    )
    assert [report.sizes for report in reports if isinstance(report, Packs)] == [(1,) * 6] * 6
    assert np.isfinite(found.loss).all()


def test_a_last_checkpoint_that_cannot_be_written_costs_no_ticket(
    blobs: Dataset, make_plan: MakePlan, reports_of: ReportsOf
) -> None:
    class Broken(Memory):
        writes = 0

        def write(self, content: bytes) -> None:
            self.writes += 1
            if self.writes == TRAIN.steps:
                raise OSError("no space left")

    _, found = reports_of(
        plan_of(make_plan, blobs), blobs, REPLICATES, log_points=1,
        checkpoints=Checkpoints(Broken(), seconds=0),
    )  # fmt: skip
    assert np.isfinite(found.loss).all()


SCARCE = """
import functools, resource, sys
import numpy as np, torch
torch.set_num_threads(1)
from ticketsweep.seeds import replicate_plan
from ticketsweep.train.checkpoint import Checkpoints
from ticketsweep.train.data import Dataset
from ticketsweep.train.demand import Demand
from ticketsweep.train.gates.gaussian import GaussianSettings
from ticketsweep.train.loop import Optimisation
from ticketsweep.train.models import build_model
from ticketsweep.train.packs import find_tickets
from ticketsweep.train.plan import Plan
from ticketsweep.train.spreading import Packs
rng = np.random.default_rng(0)
images, labels = rng.integers(0, 255, (300, 1, 8, 8), np.uint8), np.arange(300) % 4
data = Dataset("noise", images[:200], labels[:200], images[200:], labels[200:], 4, digest="")
how = Optimisation(steps=2, batch_size=16, lr=0.05, lr_schedule="constant", optimizer="adam")
def find(model, replicates, pack):
    plan = Plan(
        build=functools.partial(build_model, model, input_shape=(1, 8, 8), classes=4),
        validation=0.2, weight_init="kaiming_normal", weight_scale=1.0, rewind_step=0,
        weight_how=how, gate=GaussianSettings(1.0, 0.0, 1.0, 0.05, "exponential", 0.5),
        granularity="weight", inputs=False, include=(), exclude=(), joint=False, train=how,
        augment="none", precision="float32", retrain=None, controls=())
    search = find_tickets(plan, data, replicate_plan(0, init=replicates, data=1, gate=1),
                          log_points=1, devices=["cpu"], checkpoints=Checkpoints(None), pack=pack)
    sizes = []
    while True:
        try:
            report = next(search)
        except StopIteration as stop:
            return sizes, stop.value
        if isinstance(report, Packs):
            sizes.append(report.sizes)
find("fc-8", 2, 2)  # all that is loaded and compiled is there now
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = held + int(sys.argv[1]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sizes, tickets = find("fc-1200-1200", 8, 8)
assert len(tickets.loss) == 8 and np.isfinite(tickets.loss).all()
print(len(sizes), sizes[-1] if sizes else ())
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.slow
def test_running_out_of_memory_splits_the_pack_and_goes_on() -> None:
    # Eight replicates of 1.5 million gates need some 390 MiB.
    run = subprocess.run(
        [sys.executable, "-c", SCARCE, "260"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    packs, sizes = run.stdout.split(maxsplit=1)
    assert int(packs) > 1
    assert max(ast.literal_eval(sizes)) < 8
