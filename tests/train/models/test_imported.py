from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ticketsweep.errors import ModelError
from ticketsweep.train.models import build_model, initial_parameters, prunable

SOURCE = """
import torch
from torch import nn

calls = []


def plain(input_shape, classes):
    calls.append((input_shape, classes))
    c, h, w = input_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, 8), nn.ReLU(), nn.Linear(8, classes))


def scalable(input_shape, classes, width=1.0):
    units = int(8 * width)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, units), nn.Linear(units, classes))


def normed(input_shape, classes, momentum=0.1):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, momentum=momentum), nn.Dropout(0.5),
                         nn.Flatten(), nn.Linear(144, classes))


def cumulative(input_shape, classes):
    return normed(input_shape, classes, momentum=None)


class Heads(nn.Module):
    def __init__(self, classes, noise):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.3, batch_first=True)
        self.head = nn.Linear(8, classes)
        self.noise = noise

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.attention(x, x, x, need_weights=False)[0].mean(1)
        if self.training:
            x = nn.functional.dropout(x, self.noise)
        return self.head(x)


def attentive(input_shape, classes):
    return Heads(classes, 0.0)


def noisy(input_shape, classes):
    return Heads(classes, 0.5)


def many(input_shape, classes):
    return plain(input_shape, classes + 1)


def pair(input_shape, classes):
    class Pair(nn.Linear):
        def forward(self, x):
            return x, x
    return Pair(2, 2)


def wrong_size(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(7, classes))


def infinite(input_shape, classes):
    model = plain(input_shape, classes)
    nn.init.constant_(model[3].bias, float("inf"))
    return model


def failing(input_shape, classes):
    raise RuntimeError("no\\nweights")


def a_class(input_shape, classes):
    return nn.Linear


number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the working folder."""
    name = f"own_models_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(SOURCE)
    (tmp_path / "broken_models.py").write_text("import nothing_like_this\n")
    (tmp_path / "leaving_models.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


def built(name: str, **options: object) -> nn.Module:
    settings = {"input_shape": (3, 8, 8), "classes": 5} | options
    return build_model(name, **settings)  # type: ignore[arg-type]


def test_a_model_of_the_working_folder_is_built(own: str) -> None:
    model = built(f"{own}:plain")
    assert sys.modules[own].calls == [((3, 8, 8), 5)]
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    assert prunable(model) == ["1.weight", "3.weight"]
    assert model.training


def test_width_and_activation_reach_an_own_model(own: str) -> None:
    assert built(f"{own}:scalable", width=2.0).get_parameter("1.weight").shape == (16, 192)
    assert isinstance(built(f"{own}:plain", activation="prelu")[2], nn.PReLU)  # type: ignore[index]
    with pytest.raises(ModelError, match=r"width must be 1 with model .*plain, got 2 .*`width`"):
        built(f"{own}:plain", width=2.0)


def test_randomness_is_switched_off(own: str) -> None:
    for name in ("attentive", "normed"):
        model = built(f"{own}:{name}").train()
        images = torch.rand(4, 3, 8, 8)
        assert torch.equal(model(images), model(images))


def test_trying_a_model_out_leaves_no_trace(own: str) -> None:
    state = torch.get_rng_state()
    norm = built(f"{own}:normed")[1]  # type: ignore[index]
    assert torch.equal(state, torch.get_rng_state())
    assert norm.num_batches_tracked == 0
    assert norm.running_mean.tolist() == [0, 0, 0, 0]


def test_an_own_model_is_a_function_of_the_seed(own: str) -> None:
    def draw(seed: int) -> dict[str, torch.Tensor]:
        return initial_parameters(
            lambda: built(f"{own}:attentive"),
            ["head.weight"],
            weight_init="default",
            weight_scale=1.0,
            seed=seed,
        )

    first, again, other = draw(1), draw(1), draw(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["patches.weight"], other["patches.weight"])


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("nobody_wrote_this:factory", "cannot be imported: ModuleNotFoundError: No module named"),
        ("broken_models:factory", "No module named 'nothing_like_this' .*run from the folder"),
        ("leaving_models:factory", "cannot be imported: SystemExit: 3"),
        ("{own}:missing", r"must name a function, got nothing at 'missing' \(define `def missing"),
        ("{own}:number", "must name a function, got int at 'number'"),
        ("{own}:failing", "failed when called with input_shape=.*: RuntimeError: no weights"),
        ("{own}:a_class", r"must return a torch.nn.Module, got type \(return the module itself"),
        ("{own}:many", r"to logits \(2, 5\), got \(2, 6\) \(end with nn.Linear"),
        ("{own}:pair", r"to logits \(2, 5\), got tuple"),
        ("{own}:wrong_size", r"failed on images \(2, 3, 8, 8\): RuntimeError: .*cannot be multi"),
        ("{own}:infinite", "must return finite logits"),
        ("{own}:noisy", "must be deterministic, got two outputs for one input in training mode"),
        ("{own}:cumulative", "must give 1 a momentum, got None"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(own: str, factory: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as refusal:
        built(factory.replace("{own}", own))
    assert "\n" not in str(refusal.value)
