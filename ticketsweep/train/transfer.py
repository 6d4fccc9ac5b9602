"""Masks on other weights than those they were found on."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ticketsweep.train.loop import Evaluator
from ticketsweep.train.pack import Weights


def predictions_of_pairs(
    evaluator: Evaluator, weights: Weights, masks: Weights, pairs: Sequence[tuple[int, int]]
) -> Generator[int, None, NDArray[np.int64]]:
    """What networks take the images of the test split for, scored in packs.

    Parameters
    ----------
    weights, masks: rows that `pairs` point to, (R, G) and (R, O), and bool (M, G) and (M, O).
    pairs: a row of `weights` and a row of `masks` for each network.

    Yields
    ------
    How many networks are scored.

    Returns
    -------
    Classes int64 (len(pairs), N), -1 where an output is not finite.
    """
    found: list[NDArray[np.int64]] = []
    done, device = 0, weights.gated.device
    for some in torch.split(torch.tensor(pairs).view(-1, 2), evaluator.networks_at_once):
        of, by = some.to(device).unbind(1)
        network = Weights(
            weights.gated[of] * masks.gated[by],
            weights.rest[of] * masks.rest[by],
        )
        found.append(evaluator.predictions(network))
        done += len(some)
        yield done
    return np.concatenate(found) if found else np.empty((0, 0), dtype=np.int64)
