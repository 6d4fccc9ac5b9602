from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ticketsweep.train.augment import Augmentation
from ticketsweep.train.data import Dataset
from ticketsweep.train.images import (
    BatchOrder,
    Images,
    as_tensor,
    channel_statistics,
    evaluation_batches,
    open_images,
    training_batches,
)

CPU = torch.device("cpu")


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


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 20), batch_size=st.integers(1, 30), skipped=st.integers(0, 40))
def test_skipped_batches_are_the_ones_that_would_have_been_drawn(
    n: int, batch_size: int, skipped: int
) -> None:
    drawn, resumed = (BatchOrder(torch.arange(n), batch_size=batch_size, seed=3) for _ in range(2))
    for _ in range(skipped):
        drawn.next()
    resumed.skip(skipped)
    for _ in range(5):
        assert torch.equal(drawn.next(), resumed.next())


def orders(rows: np.ndarray, seeds: list[int]) -> list[BatchOrder]:
    return [BatchOrder(as_tensor(rows, CPU), batch_size=7, seed=seed) for seed in seeds]


def test_training_batches_are_each_replicates_own(blobs: Dataset) -> None:
    rows = np.arange(0, 300, 2)
    images, _ = open_images(blobs, rows, CPU)
    batches = list(
        training_batches(images, orders(rows, [1, 2]), first=0, steps=30, augmentation=None)
    )
    alone = orders(rows, [1, 2])
    assert len(batches) == 30
    for pixels, labels in batches:
        assert pixels.shape == (2, 7, 2, 6, 6)
        for r, order in enumerate(alone):
            wanted, wanted_labels = images.take(order.next())
            assert torch.equal(pixels[r], wanted)
            assert torch.equal(labels[r], wanted_labels)


def test_resumed_training_sees_the_batches_of_training_that_went_on(blobs: Dataset) -> None:
    rows = np.arange(100)
    images, _ = open_images(blobs, rows, CPU)
    augmentation = Augmentation("crop_flip", [8, 9])
    whole = list(
        training_batches(images, orders(rows, [1, 2]), first=0, steps=20, augmentation=augmentation)
    )
    later = orders(rows, [1, 2])
    for order in later:
        order.skip(13)
    rest = training_batches(images, later, first=13, steps=20, augmentation=augmentation)
    for (pixels, labels), (wanted, wanted_labels) in zip(rest, whole[13:], strict=True):
        assert torch.equal(pixels, wanted)
        assert torch.equal(labels, wanted_labels)


def test_padding_is_black_and_not_the_mean(blobs: Dataset) -> None:
    images, _ = open_images(blobs, np.arange(100), CPU)
    augmentation = Augmentation("crop", [0])
    (batch,) = training_batches(
        images, orders(np.arange(100), [0])[:1], first=0, steps=1, augmentation=augmentation
    )
    black = (-images.mean / images.std)[0]
    lowest = batch[0][0, :, 0].amin(dim=(1, 2))  # of each image's first channel
    assert (lowest == black.item()).double().mean() > 0.5


def test_evaluation_batches_follow_the_rows(blobs: Dataset) -> None:
    _, test = open_images(blobs, np.arange(100), CPU)
    rows = torch.tensor([5, 3, 99, 3, 0, 7, 8])
    batches = list(evaluation_batches(test, rows, 3))
    assert [len(labels) for _, labels in batches] == [3, 3, 1]
    pixels, labels = (torch.cat(part) for part in zip(*batches, strict=True))
    wanted, wanted_labels = test.take(rows)
    assert torch.equal(pixels, wanted)
    assert torch.equal(labels, wanted_labels)


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
