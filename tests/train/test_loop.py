from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from ticketsweep.train.data import Dataset
from ticketsweep.train.images import Images, as_tensor, evaluation_batches
from ticketsweep.train.loop import Update, evaluate, gradients_behind, replicate_losses
from ticketsweep.train.models import build_model, initial_parameters, prunable
from ticketsweep.train.pack import Layout, PackedModel

CPU = torch.device("cpu")


@pytest.mark.parametrize("replicates", [1, 3])
def test_evaluation_in_pieces_equals_one_model_on_one_image_after_another(
    blobs: Dataset, replicates: int
) -> None:
    build = functools.partial(
        build_model, "fc-8", input_shape=blobs.input_shape, classes=blobs.classes
    )
    model = build()
    layout = Layout.of(model, prunable(model))
    parameters = [
        initial_parameters(build, layout.names, weight_init="uniform", weight_scale=1.0, seed=seed)
        for seed in range(replicates)
    ]
    mean, std = (torch.tensor(value).view(1, 1, 1) for value in (120.0, 60.0))
    images = Images(as_tensor(blobs.test_images, CPU), as_tensor(blobs.test_labels, CPU), mean, std)
    rows = torch.arange(3, 90)
    score = evaluate(
        PackedModel(model, layout, Layout((), (), ())),
        layout.split(layout.flatten(parameters)),
        evaluation_batches(images, rows, 21),
    )
    model.requires_grad_(False)
    for replicate, values in enumerate(parameters):
        model.load_state_dict(values)
        logits = [model((images.pixels[row : row + 1].float() - 120) / 60)[0] for row in rows]
        labels = [images.labels[row] for row in rows]
        right = [int(x.argmax()) == int(y) for x, y in zip(logits, labels, strict=True)]
        wanted = [
            float(functional.cross_entropy(x, y)) for x, y in zip(logits, labels, strict=True)
        ]
        assert score.accuracy[replicate] == pytest.approx(np.mean(right))
        assert score.loss[replicate] == pytest.approx(np.mean(wanted), rel=1e-5)


def test_an_update_clips_all_of_a_replicates_gradient_as_one_vector() -> None:
    leaves = [torch.zeros(2, n, requires_grad=True) for n in (3, 2)]
    for leaf in leaves:
        leaf.grad = torch.ones_like(leaf)
    leaves[0].grad[1] = 0.01
    leaves[1].grad[1] = 0.01
    Update(leaves, optimizer="sgd", clip_norm=0.5)(1.0)
    moved = torch.cat([leaf.detach() for leaf in leaves], dim=1)
    assert torch.linalg.vector_norm(moved, dim=1).tolist() == pytest.approx([0.5, 0.01 * 5**0.5])


def test_losses_are_means_over_each_replicates_own_batch() -> None:
    logits, labels = torch.randn(3, 5, 4), torch.randint(4, (3, 5))
    wanted = [functional.cross_entropy(x, y) for x, y in zip(logits, labels, strict=True)]
    torch.testing.assert_close(replicate_losses(logits, labels), torch.stack(wanted))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_gradients_behind_outputs_are_those_of_autograd(precision: torch.dtype) -> None:
    weights = [torch.randn(3, 4, requires_grad=True), torch.randn(4, 2, requires_grad=True)]
    outputs = (torch.tanh(weights[0]) @ weights[1]).to(precision)
    gradient = torch.randn(3, 2)
    wanted = torch.autograd.grad(outputs, weights, gradient, retain_graph=True)
    found = gradients_behind(outputs, gradient, weights)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


TRIAL = """
import sys
from ticketsweep.planning import load_data
from ticketsweep.space import load_trial
from ticketsweep.store.paths import Storage
from ticketsweep.trial import run_trial

config = load_trial(None, settings=["model=fc-8", "train.steps=3"])
storage = Storage.open(sys.argv[1], create=True)
for _ in run_trial(config, dataset=load_data(config), storage=storage, sweep="s"):
    pass
print([name for name in ("sympy", "ray", "optuna", "wandb", "duckdb") if name in sys.modules])
"""


def test_a_trial_imports_nothing_slow_that_it_does_not_need(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRIAL, str(tmp_path / "st")], capture_output=True, text=True
    )
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
