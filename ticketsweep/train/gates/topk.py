"""Exactly k of n, row by row."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def top_k(values: Tensor, k: int) -> Tensor:
    """The k largest of each row: bool (R, n) with exactly k true in a row.

    Of equal values the first are taken, so the choice is the same on every machine. NaN ranks above
    every number and is never taken, so a row with NaN has fewer; other rows are as without it.

    Parameters
    ----------
    values: (R, n).
    k: in 1..n.
    """
    threshold = _kth_largest(values, k)
    kept = values >= threshold
    if bool((kept.sum(dim=1) > k).any()):
        tied = values == threshold
        places = k - (values > threshold).sum(dim=1, keepdim=True)
        kept &= ~tied | (tied.cumsum(dim=1) <= places)
    return kept


def kept_count(density: float, size: int) -> int:
    """How many of `size` weights a density keeps: rounded, and never none.

    A layer that keeps nothing would cut the network.
    """
    return max(1, round(density * size))


def _kth_largest(values: Tensor, k: int) -> Tensor:
    """(R, 1). On a CPU by numpy, whose vectorised partition takes a ninth of torch's time."""
    at = values.shape[1] - k
    if values.device.type != "cpu":
        return torch.kthvalue(values, at + 1, dim=1, keepdim=True).values
    partitioned = np.partition(values.numpy(), at, axis=1)
    return torch.from_numpy(partitioned[:, at : at + 1])
