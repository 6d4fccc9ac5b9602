"""Linear mode connectivity (Frankle et al. 2020): networks on the straight line between two others.

Two networks that training has reached from the same weights are connected where no network between
them is much worse than they are: they lie in one basin.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ticketsweep.train.loop import Evaluator
from ticketsweep.train.pack import Weights

ALPHAS = 30


@dataclass(frozen=True)
class Paths:
    """Errors on the straight lines between P pairs of networks; float64, fractions.

    Attributes
    ----------
    alphas: (A,), from 0, the second network of each pair, to 1, the first.
    train, test: (P, A); NaN where a network's outputs are not finite.
    """

    alphas: NDArray[np.float64]
    train: NDArray[np.float64]
    test: NDArray[np.float64]


def error_paths(
    evaluator: Evaluator,
    networks: Weights,
    pairs: Sequence[tuple[int, int]],
    *,
    alphas: int = ALPHAS,
) -> Generator[int, None, Paths]:
    """Errors of `alpha * first + (1 - alpha) * second` at evenly spaced alphas, ends included.

    All parameters are interpolated as they stand, the zeros of a mask too: between two tickets of
    different masks, what either keeps is open. Batch norm's statistics are estimated at each alpha
    anew. Alphas and pairs are scored in packs.

    Parameters
    ----------
    networks: (R, G) and (R, O).
    pairs: rows of `networks`, the first and the second of each pair.
    alphas: >= 2.

    Yields
    ------
    How many of the P * A networks are scored.
    """
    shares = torch.linspace(0, 1, alphas, dtype=torch.float64)
    first, second = torch.tensor(pairs).view(-1, 2).unbind(1)
    count = len(pairs) * alphas
    train, test = np.empty(count), np.empty(count)
    for places in torch.split(torch.arange(count), evaluator.networks_at_once):
        ends, share = (first[places // alphas], second[places // alphas]), shares[places % alphas]
        network = Weights(
            _between(networks.gated, *ends, share), _between(networks.rest, *ends, share)
        )
        done = slice(int(places[0]), int(places[-1]) + 1)
        train[done], test[done] = evaluator.errors(network)
        yield done.stop
    shape = (len(pairs), alphas)
    return Paths(shares.numpy(), train.reshape(shape), test.reshape(shape))


def barriers(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Error barriers float64 (P,) of errors (P, A): the largest, less the mean of the two ends.

    max over alpha of E(alpha W1 + (1 - alpha) W2) - (E(W1) + E(W2)) / 2 (Frankle et al. 2020,
    section 2). At least 0, as the ends are among the alphas; NaN where an error is.
    """
    found: NDArray[np.float64] = errors.max(axis=1) - (errors[:, 0] + errors[:, -1]) / 2
    return found


def _between(networks: Tensor, first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Rows `share * networks[first] + (1 - share) * networks[second]`.

    `lerp` is exact at both ends, and between a network and itself.
    """
    weight = share.to(networks).unsqueeze(1)
    first, second = first.to(networks.device), second.to(networks.device)
    return torch.lerp(networks[second], networks[first], weight)
