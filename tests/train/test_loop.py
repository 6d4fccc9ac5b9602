from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from ticketsweep.train.data import Dataset
from ticketsweep.train.loop import (
    SCHEDULES,
    BatchOrder,
    Images,
    as_tensor,
    channel_statistics,
    evaluate,
    learning_rates,
    log_steps,
    replicate_losses,
    temperatures,
)
from ticketsweep.train.models import build_model, initial_weights
from ticketsweep.train.pack import Layout, PackedModel

CPU = torch.device("cpu")


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


@given(steps=st.integers(1, 500), points=st.integers(0, 60))
def test_logged_steps_increase_and_end_with_the_last(steps: int, points: int) -> None:
    logged = log_steps(steps, points)
    assert logged == sorted(set(logged))
    assert logged[0] >= 1
    assert logged[-1] == steps
    assert len(logged) == min(max(1, points), steps)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 30), batch_size=st.integers(1, 70), seed=st.integers(0, 2**53 - 1))
def test_batches_are_permutations_cut_into_equal_pieces(n: int, batch_size: int, seed: int) -> None:
    order = BatchOrder(torch.arange(100, 100 + n), batch_size=batch_size, seed=seed)
    drawn = [order.next() for _ in range(2 * n)]
    assert {len(batch) for batch in drawn} == {batch_size}
    stream = torch.cat(drawn)
    for epoch in stream[: len(stream) // n * n].view(-1, n):
        assert sorted(epoch.tolist()) == list(range(100, 100 + n))


def test_an_order_is_a_function_of_its_seed() -> None:
    def stream(seed: int) -> list[int]:
        order = BatchOrder(torch.arange(50), batch_size=8, seed=seed)
        return torch.cat([order.next() for _ in range(20)]).tolist()

    assert stream(1) == stream(1)
    assert stream(1) != stream(2)
    assert stream(1)[:48] != stream(1)[50:98]  # each epoch has an order of its own


def test_images_are_standardised_by_the_rows_that_are_trained_on(blobs: Dataset) -> None:
    rows = np.arange(0, 300, 2)
    mean, std = channel_statistics(blobs.train_images, rows)
    chosen = blobs.train_images[rows].astype(np.float64)
    np.testing.assert_allclose(mean.ravel(), chosen.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std.ravel(), chosen.std(axis=(0, 2, 3)), rtol=1e-6)
    images = Images(
        as_tensor(blobs.train_images, CPU),
        as_tensor(blobs.train_labels, CPU),
        as_tensor(mean, CPU),
        as_tensor(std, CPU),
    )
    taken, labels = images.take(torch.from_numpy(rows).view(2, 75))
    assert taken.shape == (2, 75, 2, 6, 6)
    assert labels.flatten().tolist() == blobs.train_labels[rows].tolist()
    np.testing.assert_allclose(
        taken.numpy().reshape(chosen.shape), (chosen - mean) / std, rtol=1e-4, atol=1e-5
    )


def test_a_constant_channel_can_be_standardised() -> None:
    mean, std = channel_statistics(np.full((5, 1, 2, 2), 255, dtype=np.uint8), np.arange(5))
    assert mean.ravel().tolist() == [255]
    assert std.ravel().tolist() == [1]


def test_read_only_arrays_are_shared_and_not_copied() -> None:
    array = np.arange(5)
    array.flags.writeable = False
    assert as_tensor(array, CPU).data_ptr() == array.ctypes.data


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
