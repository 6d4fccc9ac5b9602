from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from ticketsweep.train.data import Dataset
from ticketsweep.train.images import Images, as_tensor
from ticketsweep.train.loop import evaluate, replicate_losses
from ticketsweep.train.models import build_model, initial_weights
from ticketsweep.train.pack import Layout, PackedModel

CPU = torch.device("cpu")


@pytest.mark.parametrize("replicates", [1, 3])
def test_evaluation_in_pieces_equals_one_model_on_one_image_after_another(
    blobs: Dataset, replicates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ticketsweep.train.loop.EVALUATION_IMAGES", 21)
    model = build_model("fc-8", input_shape=blobs.input_shape, classes=blobs.classes)
    layout = Layout.of(model)
    weights = [
        initial_weights(model, weight_init="uniform", weight_scale=1.0, seed=seed)
        for seed in range(replicates)
    ]
    mean, std = (torch.tensor(value).view(1, 1, 1) for value in (120.0, 60.0))
    images = Images(as_tensor(blobs.test_images, CPU), as_tensor(blobs.test_labels, CPU), mean, std)
    rows = torch.arange(3, 90)
    accuracy, loss = evaluate(
        PackedModel(model, layout), layout.split(layout.flatten(weights)), images, rows
    )
    model.requires_grad_(False)
    for replicate, weight in enumerate(weights):
        model.load_state_dict(weight)
        logits = [model((images.pixels[row : row + 1].float() - 120) / 60)[0] for row in rows]
        labels = [images.labels[row] for row in rows]
        right = [int(x.argmax()) == int(y) for x, y in zip(logits, labels, strict=True)]
        wanted = [
            float(functional.cross_entropy(x, y)) for x, y in zip(logits, labels, strict=True)
        ]
        assert accuracy[replicate] == pytest.approx(np.mean(right))
        assert loss[replicate] == pytest.approx(np.mean(wanted), rel=1e-5)


def test_losses_are_means_over_each_replicates_own_batch() -> None:
    logits, labels = torch.randn(3, 5, 4), torch.randint(4, (3, 5))
    wanted = [functional.cross_entropy(x, y) for x, y in zip(logits, labels, strict=True)]
    torch.testing.assert_close(replicate_losses(logits, labels), torch.stack(wanted))
