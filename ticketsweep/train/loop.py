"""What every training loop here is made of: losses and evaluation."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ticketsweep.train.images import Images
from ticketsweep.train.pack import Layers, PackedModel

EVALUATION_IMAGES = 4096  # images times replicates in one forward pass without gradients


def replicate_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of each replicate, (R,), of logits (R, B, K) and labels (R, B)."""
    losses = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return losses.view(labels.shape).mean(dim=1)


@torch.no_grad()
def evaluate(
    model: PackedModel, layers: Layers, images: Images, rows: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Accuracy (a fraction) and mean cross-entropy of each replicate on these rows, both (R,)."""
    replicates = len(layers[0])
    right = torch.zeros(replicates, dtype=torch.int64, device=rows.device)
    loss = torch.zeros(replicates, dtype=torch.float64, device=rows.device)
    for piece in torch.split(rows, max(1, EVALUATION_IMAGES // replicates)):
        batch, labels = images.take(piece)
        logits = model.on_same_images(layers, batch)
        right += (logits.argmax(dim=2) == labels).sum(dim=1)
        loss += replicate_losses(logits, labels.expand(replicates, -1)).double() * len(piece)
    return (right.double() / len(rows)).cpu().numpy(), (loss / len(rows)).cpu().numpy()
