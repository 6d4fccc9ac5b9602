"""Agreement of predictions against scikit-learn, and its laws."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, jaccard_score

from ticketsweep.analysis.predictions import prediction_agreement


@pytest.mark.parametrize("seed", range(5))
def test_agreement_and_error_overlap_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, a, b = rng.integers(0, 4, (3, 200))
    found = prediction_agreement(a, b, labels)
    assert found.agreement == pytest.approx(accuracy_score(a, b))
    assert found.error_overlap == pytest.approx(jaccard_score(a != labels, b != labels))
    assert found == prediction_agreement(b, a, labels)
    errors = [1 - accuracy_score(labels, each) for each in (a, b)]
    assert found.normalised_disagreement == pytest.approx((1 - found.agreement) / np.mean(errors))


def test_independent_errors_overlap_as_much_as_chance_says() -> None:
    rng = np.random.default_rng(0)
    labels = np.zeros(400_000, dtype=np.int64)
    a, b = (rng.random((2, len(labels))) < np.array([[0.3], [0.1]])).astype(np.int64)
    found = prediction_agreement(a, b, labels)
    assert found.error_overlap == pytest.approx(found.error_overlap_chance, abs=0.003)


def test_equal_classifiers_agree_and_disjoint_errors_disagree_twice_their_rate() -> None:
    labels = np.array([0, 0, 0, 0])
    equal = prediction_agreement(np.array([1, 0, 0, 0]), np.array([1, 0, 0, 0]), labels)
    assert (equal.agreement, equal.error_overlap, equal.normalised_disagreement) == (1, 1, 0)
    apart = prediction_agreement(np.array([1, 0, 0, 0]), np.array([0, 1, 0, 0]), labels)
    assert (apart.agreement, apart.error_overlap, apart.normalised_disagreement) == (0.5, 0, 2)


def test_without_errors_there_is_agreement_alone_and_without_images_nothing() -> None:
    labels = np.array([3, 1])
    found = prediction_agreement(labels, labels, labels)
    assert (found.agreement, found.error_overlap, found.error_overlap_chance) == (1, None, None)
    assert str(found) == "agreement 1.0000, no errors"
    for other in (labels[:1], labels[:0]):
        with pytest.raises(ValueError, match="of one length"):
            prediction_agreement(other, labels[:0], labels)
