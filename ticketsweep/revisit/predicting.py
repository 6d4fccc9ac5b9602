"""What the tickets of a trial predict on the test split, and how far they agree in it."""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
from numpy.typing import NDArray

from ticketsweep.analysis.predictions import prediction_agreement
from ticketsweep.progress import StageProgress
from ticketsweep.revisit.pairs import Work
from ticketsweep.revisit.tickets import TicketPack

Measures = list[dict[str, float | None]]


def accuracies(pack: TicketPack, classes: NDArray[np.int64]) -> list[float | None]:
    """The share that each row of classes (P, N) gets right; None where outputs are not finite."""
    labels = labels_of(pack)
    return [float(np.mean(row == labels)) if (row >= 0).all() else None for row in classes]


def labels_of(pack: TicketPack) -> NDArray[np.int64]:
    """The test split's, int64 (N,)."""
    labels: NDArray[np.int64] = pack.bench.test.labels.cpu().numpy()
    return labels


def predictions(pack: TicketPack, work: Work) -> Generator[StageProgress, None, Measures]:
    """Agreement of the predictions of each pair; see `PredictionAgreement`."""
    labels = labels_of(pack)
    found: Measures = []
    for first, second in work.pairs:
        a, b = pack.classes[pack.row_of(first)], pack.classes[pack.row_of(second)]
        if (a < 0).any() or (b < 0).any():
            found.append({})
            continue
        agreed = prediction_agreement(a, b, labels)
        found.append(
            {
                "agreement": agreed.agreement,
                "error_overlap": agreed.error_overlap,
                "error_overlap_chance": agreed.error_overlap_chance,
                "normalised_disagreement": agreed.normalised_disagreement,
            }
        )
    yield StageProgress(work.kind, len(found), len(found))
    return found
