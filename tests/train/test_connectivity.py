"""Laws of the line between two networks, and networks in packs against one after another."""

from __future__ import annotations

import dataclasses
import functools
import os

import numpy as np
import pytest
import torch

from ticketsweep.train.connectivity import barriers, error_paths
from ticketsweep.train.data import Dataset
from ticketsweep.train.images import as_tensor, open_images
from ticketsweep.train.loop import Evaluator
from ticketsweep.train.models import build_model, prunable
from ticketsweep.train.pack import Layout, PackedModel, Weights
from ticketsweep.train.transfer import predictions_of_pairs
from ticketsweep.train.weights import initial_weights

DEVICE = torch.device(os.environ.get("TICKETSWEEP_TEST_DEVICE", "cpu"))
IMAGE = 1 / 100 + 1e-9  # of the test split, and more than one of the training split


def ended(generator):
    while True:
        try:
            next(generator)
        except StopIteration as end:
            return end.value


@pytest.fixture(params=["fc-8", "resnet-20"])
def bench(request, blobs: Dataset) -> tuple[Evaluator, Weights]:
    """An evaluator, and three networks."""
    edge = ((0, 0), (0, 0), (1, 1), (1, 1))  # ResNets want eight pixels
    images = (np.pad(each, edge) for each in (blobs.train_images, blobs.test_images))
    train_images, test_images = images
    blobs = dataclasses.replace(blobs, train_images=train_images, test_images=test_images)
    build = functools.partial(
        build_model,
        request.param,
        input_shape=blobs.input_shape,
        classes=blobs.classes,
        width=0.125 if request.param == "resnet-20" else 1.0,
    )
    model = build()
    names = prunable(model)
    rest = [name for name, _ in model.named_parameters() if name not in names]
    packed = PackedModel(model.to(DEVICE), Layout.of(model, names), Layout.of(model, rest))
    rows = np.arange(300)
    train, test = open_images(blobs, rows, DEVICE)
    evaluator = Evaluator(
        packed,
        train,
        test,
        train_rows=as_tensor(rows, DEVICE),
        validation_rows=torch.arange(300, 400, device=DEVICE),
        input_shape=blobs.input_shape,
    )
    weights = initial_weights(
        build,
        packed.gated,
        packed.rest,
        weight_init="kaiming_normal",
        weight_scale=1.0,
        seeds=[1, 2, 3],
        device=DEVICE,
    )
    return evaluator, weights


def test_the_line_from_a_network_to_itself_is_flat_and_ends_are_the_networks(bench) -> None:
    evaluator, weights = bench
    paths = ended(error_paths(evaluator, weights, [(0, 0), (0, 1), (2, 1)], alphas=5))
    train, test = evaluator.errors(weights)
    assert paths.alphas.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert np.ptp(paths.test[0]) == np.ptp(paths.train[0]) == 0
    assert barriers(paths.test)[0] == barriers(paths.train)[0] == 0
    assert (barriers(paths.test) >= 0).all()
    for at, (first, second) in enumerate([(0, 0), (0, 1), (2, 1)]):
        assert paths.test[at, [-1, 0]] == pytest.approx(test[[first, second]], abs=IMAGE)
        assert paths.train[at, [-1, 0]] == pytest.approx(train[[first, second]], abs=IMAGE)


def test_a_line_is_the_same_from_its_other_end(bench) -> None:
    evaluator, weights = bench
    paths = ended(error_paths(evaluator, weights, [(0, 1), (1, 0)], alphas=6))
    np.testing.assert_allclose(paths.test[0], paths.test[1][::-1], atol=IMAGE)
    np.testing.assert_allclose(*barriers(paths.test), atol=IMAGE)


def test_networks_in_packs_err_as_each_does_alone(bench) -> None:
    evaluator, weights = bench
    paths = ended(error_paths(evaluator, weights, [(0, 1), (1, 2)], alphas=3))
    for pair, (first, second) in enumerate([(0, 1), (1, 2)]):
        for at, alpha in enumerate(paths.alphas.tolist()):
            ends = weights.rows([first]), weights.rows([second])
            alone = Weights(
                *(
                    alpha * a + (1 - alpha) * b
                    for a, b in (
                        (getattr(ends[0], n), getattr(ends[1], n)) for n in ("gated", "rest")
                    )
                )
            )
            train, test = evaluator.errors(alone)
            assert paths.test[pair, at] == pytest.approx(test[0], abs=IMAGE)
            assert paths.train[pair, at] == pytest.approx(train[0], abs=IMAGE)


def test_barriers_are_the_formula() -> None:
    errors = np.array([[0.1, 0.5, 0.3], [0.4, 0.2, 0.2], [0.1, np.nan, 0.1]])
    assert barriers(errors)[:2].tolist() == pytest.approx([0.3, 0.1])
    assert np.isnan(barriers(errors)[2])


def test_what_is_predicted_under_masks_is_what_each_network_predicts(bench) -> None:
    evaluator, weights = bench
    generator = torch.Generator().manual_seed(0)
    masks = Weights(
        torch.rand((2, weights.gated.shape[1]), generator=generator) < 0.7,
        torch.ones((2, weights.rest.shape[1]), dtype=torch.bool),
    )
    masks = Weights(masks.gated.to(DEVICE), masks.rest.to(DEVICE))
    pairs = [(2, 0), (0, 1), (0, 0)]
    found = ended(predictions_of_pairs(evaluator, weights, masks, pairs))
    for classes, (of, by) in zip(found, pairs, strict=True):
        alone = evaluator.predictions(weights.rows([of]).where(masks.rows([by])))
        assert np.mean(classes != alone[0]) <= 0.01
    score = evaluator.on_both(weights)[1]
    labels = evaluator.predictions(weights)
    assert labels.shape == (3, 100)
    np.testing.assert_allclose(evaluator.errors(weights)[1], 1 - score.accuracy)


def test_outputs_that_are_not_finite_are_no_error_and_no_class(bench) -> None:
    evaluator, weights = bench
    lost = weights.copy()
    lost.gated[1] = torch.inf
    train, test = evaluator.errors(lost)
    assert np.isnan(test).tolist() == np.isnan(train).tolist() == [False, True, False]
    assert (evaluator.predictions(lost)[1] == -1).all()
    assert (evaluator.predictions(lost)[0] >= 0).all()
