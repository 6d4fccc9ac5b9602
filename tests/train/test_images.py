from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ticketsweep.train.data import Dataset
from ticketsweep.train.images import BatchOrder, Images, as_tensor, channel_statistics

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
