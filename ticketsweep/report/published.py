"""Figures that others have published, shown only beside the same network on the same data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One result: test accuracy and sparsity are fractions of 1.

    Parameters
    ----------
    structured: whole units are removed, not weights.
    """

    model: str
    dataset: str
    method: str
    accuracy: float
    sparsity: float
    structured: bool
    source: str


_CRBG = "Tsayag & Lindenbaum (2026), arXiv 2603.08914"

PUBLISHED = (
    Published("lenet-300-100", "mnist", "CRBG, frozen weights", 0.96, 0.45, False, _CRBG),
    Published("lenet-300-100", "mnist", "CRBG, frozen weights", 0.88, 0.77, True, _CRBG),
    Published("resnet50", "cifar10", "CRBG, frozen weights", 0.831, 0.915, False, _CRBG),
    Published("wide_resnet50_2", "cifar10", "CRBG, frozen weights", 0.88, 0.905, False, _CRBG),
    Published(
        "fc-500-500-500-500",
        "mnist",
        "edge-popup, as quoted",
        0.85,
        0.50,
        False,
        "first author's thesis on CRBG, after Ramanujan et al. (2020)",
    ),
)


def published_for(model: str, dataset: str, *, structured: bool) -> Sequence[Published]:
    """What was published for this network and data set, and this kind of gate."""
    asked = (model, dataset, structured)
    return [each for each in PUBLISHED if (each.model, each.dataset, each.structured) == asked]
