"""What W&B draws: how much tickets keep, layer by layer, and the best trials of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ticketsweep.sweep.tracking.records import Best, Layer

_BINS = 20


def keep_shares(layers: Sequence[Layer]) -> dict[str, Any]:
    """Media for one row: a histogram over layers and replicates, and a bar for each layer."""
    import numpy as np
    import wandb

    shares = [share for layer in layers for share in layer.kept.values()]
    counts = np.histogram(shares, bins=_BINS, range=(0, 1))
    means = wandb.Table(
        columns=["layer", "keep_share"], data=[[layer.name, layer.mean] for layer in layers]
    )
    bars = wandb.plot.bar(means, "layer", "keep_share", title="Share kept by layer")
    return {
        "keep_share/histogram": wandb.Histogram(np_histogram=counts),
        "keep_share/layers": bars,
    }


def best_table(best: Best) -> dict[str, Any]:
    """The best trials as a table."""
    import wandb

    rows = [list(row) for row in best.rows]
    return {"best/trials": wandb.Table(columns=list(best.columns), data=rows)}
