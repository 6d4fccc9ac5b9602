"""How far two classifiers agree: in what they predict, and in where they are wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ticketsweep.readable import Readable


@dataclass(frozen=True)
class PredictionAgreement(Readable):
    """What two classifiers make of the same images; all are fractions but the last.

    Attributes
    ----------
    agreement: images for which both predict the same class.
    error_overlap: images that both get wrong, of those that either does (the Jaccard index of their
        errors); None where neither is ever wrong.
    error_overlap_chance: what classifiers of these error rates share that are wrong independently:
        ab / (a + b - ab), expected number over expected number; None with `error_overlap`.
    normalised_disagreement: images for which the classes differ, over the mean error rate (after
        Fort et al. 2019, who divide by one network's): 0 for equal classifiers, 2 for two that are
        never wrong at once; None where neither is ever wrong.
    """

    agreement: float
    error_overlap: float | None
    error_overlap_chance: float | None
    normalised_disagreement: float | None

    def __str__(self) -> str:
        if self.error_overlap is None:
            return f"agreement {self.agreement:.4f}, no errors"
        return (
            f"agreement {self.agreement:.4f}, error overlap {self.error_overlap:.3f} "
            f"(chance {self.error_overlap_chance:.3f})"
        )


def prediction_agreement(
    a: NDArray[np.int64], b: NDArray[np.int64], labels: NDArray[np.int64]
) -> PredictionAgreement:
    """Compare classes (N,) that two classifiers predict with each other and with the labels.

    Raises ValueError where they are not of one length, or are empty.
    """
    if not (a.shape == b.shape == labels.shape and a.ndim == 1 and len(a)):
        raise ValueError(
            f"predictions and labels must be of one length >= 1, got {a.shape}, {b.shape}, "
            f"{labels.shape}"
        )
    agreement = float(np.mean(a == b))
    wrong_a, wrong_b = a != labels, b != labels
    either = int(np.sum(wrong_a | wrong_b))
    if not either:
        return PredictionAgreement(agreement, None, None, None)
    rate_a, rate_b = float(wrong_a.mean()), float(wrong_b.mean())
    return PredictionAgreement(
        agreement=agreement,
        error_overlap=int(np.sum(wrong_a & wrong_b)) / either,
        error_overlap_chance=rate_a * rate_b / (rate_a + rate_b - rate_a * rate_b),
        normalised_disagreement=(1 - agreement) / ((rate_a + rate_b) / 2),
    )
