"""Files of other projects: what they say is read, and nothing in them is run."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ticketsweep.errors import ExchangeError
from ticketsweep.exchange.foreign import HIDDEN_NETWORKS, OPEN_LTH, read_foreign

SHAPES = {"fc1": (12, 30), "fc2": (5, 12)}


def write_open_lth(folder: Path, *, seed: int = 0, report: bool = True) -> dict[str, np.ndarray]:
    """As `Mask.save` does: int32 tensors, and a report beside them."""
    rng = np.random.default_rng(seed)
    masks = {f"{name}.weight": rng.random(shape) < 0.3 for name, shape in SHAPES.items()}
    folder.mkdir(parents=True)
    torch.save({k: torch.from_numpy(v).int() for k, v in masks.items()}, folder / "mask.pth")
    if report:
        counts = sum(m.size for m in masks.values()), sum(int(m.sum()) for m in masks.values())
        text = json.dumps({"total": float(counts[0]), "unpruned": float(counts[1])}, indent=4)
        (folder / "sparsity_report.json").write_text(text)
    return masks


def checkpoint(*, seed: int = 0, prefix: str = "", **entries: Any) -> dict[str, Any]:
    """A checkpoint of hidden-networks."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in SHAPES.items():
        for kind in ("weight", "scores"):
            values = torch.randn(*shape, 1, 1, generator=generator)
            state[f"{prefix}{name}.{kind}"] = values
    return {"epoch": 3, "arch": "FC", "state_dict": state, "best_acc1": 91.0, **entries}


def as_bytes(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def edge_popups_mask(scores: torch.Tensor, k: float) -> torch.Tensor:
    """The published rule, step by step: sort, drop the lowest int((1 - k) * n), keep the rest."""
    out = scores.abs().clone()
    _, order = scores.abs().flatten().sort()
    flat = out.flatten()
    flat[order[: int((1 - k) * scores.numel())]] = 0
    flat[order[int((1 - k) * scores.numel()) :]] = 1
    return flat.reshape(scores.shape)


@pytest.mark.parametrize("at", ["", "mask.pth"])
def test_open_lths_masks_are_read_from_the_file_or_its_folder(tmp_path: Path, at: str) -> None:
    masks = write_open_lth(tmp_path / "level_3")
    read = read_foreign(tmp_path / "level_3" / at)
    assert (read.project, read.accuracy, read.told) == (OPEN_LTH, None, {})
    assert list(read.masks) == list(masks)
    assert all(np.array_equal(read.masks[name], mask) for name, mask in masks.items())


@pytest.mark.parametrize("rate", [0.001, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("prefix", ["", "module."])  # of nn.DataParallel
def test_the_highest_scores_of_each_layer_make_the_mask(tmp_path, rate: float, prefix) -> None:
    content = checkpoint(prefix=prefix, curr_acc1=90.5)
    torch.save(content, tmp_path / "model_best.pth")
    read = read_foreign(tmp_path / "model_best.pth", prune_rate=rate)
    assert (read.project, read.accuracy) == (HIDDEN_NETWORKS, 0.905)
    told = {"arch": "FC", "epoch": 3, "best_acc1": 91.0, "curr_acc1": 90.5, "prune_rate": rate}
    assert read.told == told
    assert list(read.masks) == [f"{name}.weight" for name in SHAPES]
    for name in SHAPES:
        wanted = edge_popups_mask(content["state_dict"][f"{prefix}{name}.scores"], rate)
        assert np.array_equal(read.masks[f"{name}.weight"], wanted.numpy() == 1)


def test_the_prune_rate_is_found_where_the_run_has_left_it(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    file, settings = tmp_path / "checkpoints/epoch_9.state", tmp_path / "settings.txt"
    torch.save(checkpoint(curr_acc1="Not evaluated"), file)
    settings.write_text("Namespace(arch='FC', conv_type='SubnetConv', prune_rate=0.25, seed=None)")
    read = read_foreign(file)
    assert (read.told["prune_rate"], read.accuracy) == (0.25, None)
    assert read_foreign(file, prune_rate=0.5).told["prune_rate"] == 0.5
    settings.write_text("Namespace(conv_type='SampleSubnetConv', prune_rate=0.25)")
    with pytest.raises(ExchangeError, match="conv_type SampleSubnetConv"):
        read_foreign(file)
    for said in ("None", "0.5.1", "0.5x", ".", "''"):
        settings.write_text(f"Namespace(conv_type='SubnetConv', prune_rate={said}, seed=None)")
        with pytest.raises(ExchangeError, match=r"--prune-rate is needed"):
            read_foreign(file)
    settings.unlink()
    with pytest.raises(ExchangeError, match=r"--prune-rate is needed"):
        read_foreign(file)


@pytest.mark.parametrize("rate", [0.0, -0.5, 1.5, float("nan"), float("inf")])
def test_a_prune_rate_that_is_no_share_is_refused(tmp_path: Path, rate: float) -> None:
    torch.save(checkpoint(), tmp_path / "x.pth")
    with pytest.raises(ExchangeError, match=r"--prune-rate must lie in \(0, 1\]"):
        read_foreign(tmp_path / "x.pth", prune_rate=rate)


def test_a_prune_rate_for_whole_masks_is_refused(tmp_path: Path) -> None:
    write_open_lth(tmp_path / "level_1")
    with pytest.raises(ExchangeError, match="--prune-rate is for checkpoints of hidden-networks"):
        read_foreign(tmp_path / "level_1", prune_rate=0.5)


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("write", [as_bytes, pickle.dumps], ids=["torch", "pickle"])
@pytest.mark.parametrize("within", [False, True])
def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path, write, within) -> None:
    target = tmp_path / "was-here"
    evil = Malicious(target)
    content = {"fc1.weight": torch.ones(3, 3), "x": evil} if within else evil
    (tmp_path / "mask.pth").write_bytes(write(content))
    with pytest.raises(ExchangeError, match=r"is refused: .*nothing in them is run") as refused:
        read_foreign(tmp_path)
    assert "\n" not in str(refused.value)
    assert not target.exists()


BOMB = torch.ones(1, dtype=torch.int32).expand(10**6, 10**6)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([1, 2], "it holds a list"),
        ({}, "it holds a dict"),
        ({"fc1.weight": torch.tensor([[0, 2]])}, "entries of fc1.weight are not all 0 or 1"),
        ({"fc1.weight": torch.tensor([[0.5]])}, "entries of fc1.weight are not all 0 or 1"),
        ({"fc1.weight": torch.tensor([[float("nan")]])}, "not all 0 or 1"),
        ({"fc1.weight": "text"}, "fc1.weight is a str, not a tensor"),
        ({"fc1.weight": torch.tensor(1)}, "fc1.weight is no plain tensor"),
        ({"fc1.weight": torch.ones(0, 3)}, "fc1.weight is no plain tensor"),
        ({"fc1.weight": torch.ones(2, 2).to_sparse()}, "fc1.weight is no plain tensor"),
        ({"fc1.weight": torch.ones(2, 2, dtype=torch.complex64)}, "no plain tensor"),
        ({"fc1.weight": torch.empty(2, 2, device="meta")}, "no plain tensor"),
        ({"fc1.weight": BOMB}, "fc1.weight has more entries than the file has data for"),
        ({1: torch.ones(2, 2)}, "an entry without a proper name"),
        ({"a\nb": torch.ones(2, 2)}, "an entry without a proper name"),
        ({"state_dict": {"fc1.weight": torch.ones(2, 2)}}, r"no entry that ends in \.scores"),
        ({"state_dict": {"fc1.scores": torch.full((2, 2), float("inf"))}}, "not all finite"),
        ({"state_dict": {"fc1.scores": torch.ones(50, 50)}}, "equal at the cut"),
    ],
)  # fmt: skip
def test_what_neither_project_writes_is_refused(tmp_path: Path, content, complaint) -> None:
    torch.save(content, tmp_path / "mask.pth")
    rate = 0.5 if isinstance(content, dict) and "state_dict" in content else None
    with pytest.raises(ExchangeError, match=complaint) as refused:
        read_foreign(tmp_path / "mask.pth", prune_rate=rate)
    assert "\n" not in str(refused.value)


def test_a_damaged_file_is_refused_whatever_the_damage(tmp_path: Path) -> None:
    write_open_lth(tmp_path / "level_1", report=False)
    file = tmp_path / "level_1/mask.pth"
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    pieces = [b"", b"text", whole[:100], whole[: len(whole) // 2], whole[200:]]
    for _ in range(30):
        damaged = bytearray(whole)
        damaged[rng.integers(300)] ^= 1 << rng.integers(8)
        pieces.append(bytes(damaged))
    for content in pieces:
        file.write_bytes(content)
        with contextlib.suppress(ExchangeError):  # and nothing else
            read_foreign(file)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match=r"cannot be read: .*No such file"):
        read_foreign(tmp_path / "mask.pth")
    with pytest.raises(ExchangeError, match=r"\(open_lth's levels have a mask.pth\)"):
        read_foreign(tmp_path)


@pytest.mark.parametrize("report", ['{"total": 1.0, "unpruned": 1.0}', "{", "[]", '{"total": "x"}'])
def test_masks_that_their_report_contradicts_are_refused(tmp_path: Path, report: str) -> None:
    write_open_lth(tmp_path / "level_1")
    (tmp_path / "level_1/sparsity_report.json").write_text(report)
    with pytest.raises(ExchangeError, match=r"beside it says 1 of 1|is no report of open_lth"):
        read_foreign(tmp_path / "level_1")


def test_what_open_lth_itself_has_written_is_read(foreign: Path) -> None:
    read = read_foreign(foreign / "open_lth/level_3")
    shapes = {
        "fc_layers.0.weight": (300, 784),
        "fc_layers.1.weight": (100, 300),
        "fc.weight": (10, 100),
    }
    assert {name: mask.shape for name, mask in read.masks.items()} == shapes
    assert sum(mask.sum() for mask in read.masks.values()) == 136291  # its own report


def test_what_hidden_networks_itself_has_written_is_read(foreign: Path) -> None:
    file = foreign / "hidden-networks/initial.state"
    read = read_foreign(file, prune_rate=0.3)
    assert (read.told["arch"], read.told["epoch"], read.accuracy) == ("FC", 0, None)
    state = torch.load(file, weights_only=True)["state_dict"]
    assert list(read.masks) == ["linear.0.weight", "linear.2.weight", "linear.4.weight"]
    for name, mask in read.masks.items():
        wanted = edge_popups_mask(state[name.replace("weight", "scores")], 0.3)
        assert (mask != (wanted.numpy() == 1)).sum() <= 2  # their sort leaves ties undecided
        assert mask.sum() == wanted.sum()
