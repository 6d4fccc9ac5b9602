from __future__ import annotations

import threading

import pytest
import torch

from ticketsweep.train import checkpoint
from ticketsweep.train.checkpoint import Checkpoints, part, under


class Memory:
    def __init__(self, content: bytes | None = None) -> None:
        self.content = content

    def read(self) -> bytes | None:
        return self.content

    def write(self, content: bytes) -> None:
        self.content = content


STATE = {
    "step": torch.tensor(7),
    "a/b": torch.randn(3, 4)[:, 1:3],  # a view, not contiguous
    "empty": torch.empty(0, dtype=torch.float64),
    "kept": torch.tensor([True, False]),
    "generator": torch.Generator().manual_seed(3).get_state(),
}


def saved() -> bytes:
    slot = Memory()
    checkpoints = Checkpoints(slot, seconds=0)
    checkpoints.finish("first", {"kept": torch.tensor([1, 2])})
    checkpoints.save("second", STATE)
    checkpoints.close()
    assert slot.content is not None
    return slot.content


def test_what_was_saved_is_there_again() -> None:
    again = Checkpoints(Memory(saved()))
    state = again.state("second")
    assert state is not None
    assert state.keys() == STATE.keys()
    for name, value in STATE.items():
        assert state[name].dtype == value.dtype
        assert torch.equal(state[name], value)
    result = again.result("first")
    assert result is not None
    assert result["kept"].tolist() == [1, 2]
    assert again.state("first") is None
    assert again.result("second") is None


@pytest.mark.parametrize("keep", [0, 5, 16, 40, -1])
def test_a_checkpoint_that_was_cut_short_counts_as_none(keep: int) -> None:
    assert Checkpoints(Memory(saved()[:keep])).state("second") is None


def test_a_flipped_bit_makes_a_checkpoint_count_as_none() -> None:
    content = bytearray(saved())
    for at in range(0, len(content), 97):
        content[at] ^= 4
        assert Checkpoints(Memory(bytes(content))).state("second") is None
        content[at] ^= 4
    assert Checkpoints(Memory(bytes(content))).state("second") is not None


def test_another_versions_checkpoint_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved()
    monkeypatch.setattr(checkpoint, "READABLE", (checkpoint.FORMAT + 1,))
    assert Checkpoints(Memory(content)).state("second") is None


def test_checkpoints_of_one_pack_that_an_earlier_version_wrote_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 3)
    content = saved()
    monkeypatch.undo()
    assert checkpoint.FORMAT > 3
    again = Checkpoints(Memory(content))
    assert again.state("second") is not None
    assert again.result("first") is not None


def test_parts_under_way_are_saved_by_each_of_them_until_they_are_done() -> None:
    slot = Memory()
    whole = Checkpoints(slot, seconds=0)
    left, right = whole.within("0-2", beside=2), whole.within("2-4", beside=2)
    left.save("stage", {"step": torch.tensor(1)})
    right.keep("stage", {"step": torch.tensor(2)})
    left.save("stage", {"step": torch.tensor(3)})
    whole.close()

    def steps() -> list[int | None]:
        again = Checkpoints(Memory(slot.content))
        states = [again.within(name).state("stage") for name in ("0-2", "2-4")]
        return [None if state is None else int(state["step"]) for state in states]

    assert steps() == [3, 2]
    right.finish("stage", {"kept": torch.tensor(5)})
    left.save("stage", {"step": torch.tensor(4)})
    whole.close()
    assert steps() == [4, None]
    left.forget()
    right.save("next", {})
    whole.close()
    assert steps() == [None, None]
    result = Checkpoints(Memory(slot.content)).within("2-4").result("stage")
    assert result is not None
    assert int(result["kept"]) == 5


def test_another_kind_of_devices_checkpoint_counts_as_none() -> None:
    assert Checkpoints(Memory(saved()), device="cuda").state("second") is None


def test_without_a_slot_nothing_is_ever_due() -> None:
    assert not Checkpoints(None, seconds=0).due()
    assert Checkpoints(Memory(), seconds=0).due()


def test_one_checkpoint_more_is_due_where_the_trial_will_be_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now)
    checkpoints = Checkpoints(Memory(), seconds=1000, last_by=20.0)
    early, late = checkpoints.within("0-2"), checkpoints.within("2-4")
    now = 19.0
    assert not early.due()
    late.save("stage", {})
    now = 20.0
    assert (early.due(), late.due()) == (True, True)
    early.save("stage", {})
    now = 21.0
    assert not early.due()
    assert late.due()
    assert not checkpoints.within("4-6").due()  # of a pack that begins after it
    checkpoints.close()


def test_the_time_between_checkpoints_keeps_their_cost_at_three_per_cent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0

    class Slow(Memory):
        def write(self, content: bytes) -> None:
            nonlocal now
            now += 3.0

    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now)
    checkpoints = Checkpoints(Slow())
    now = 9.9
    assert not checkpoints.due()
    now = 10.0
    assert checkpoints.due()
    checkpoints.save("stage", {})
    checkpoints.close()
    now = 10.0 + 99.0
    assert not checkpoints.due()
    now = 10.0 + 100.0
    assert checkpoints.due()
    # Of two parts that save, each does half as often.
    parts = [checkpoints.within(name, beside=2) for name in ("0-2", "2-4")]
    now += 199.0
    assert not any(part.due() for part in parts)
    now += 1.0
    assert all(part.due() for part in parts)


def test_training_goes_on_while_a_checkpoint_is_written_and_none_is_begun_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    may_end = threading.Event()

    class Waiting(Memory):
        def write(self, content: bytes) -> None:
            may_end.wait()
            super().write(content)

    slot = Waiting()
    monkeypatch.setattr(checkpoint, "_SHORTEST", 0.0)
    checkpoints = Checkpoints(slot)
    checkpoints.save("stage", {"value": torch.tensor([1.0])})
    assert not checkpoints.due()
    assert slot.content is None
    may_end.set()
    checkpoints.close()
    again = Checkpoints(Memory(slot.content)).state("stage")
    assert again is not None
    assert again["value"].tolist() == [1.0]


def test_what_a_write_raised_is_raised_to_who_saves_next() -> None:
    class Full(Memory):
        def write(self, content: bytes) -> None:
            raise OSError("no space left")

    checkpoints = Checkpoints(Full(), seconds=0)
    checkpoints.save("stage", {})
    with pytest.raises(OSError, match="no space"):
        checkpoints.save("stage", {})
    checkpoints.close()


def test_parts_of_a_state_are_taken_out_as_they_were_put_in() -> None:
    state = under("gates", {"x/y": torch.tensor(1)}) | under("gates-too", {"z": torch.tensor(2)})
    assert part("gates", state) == {"x/y": torch.tensor(1)}
