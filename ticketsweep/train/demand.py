"""What a pack takes of memory while its gates are learnt."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ticketsweep.train.gates.kernels import choose
from ticketsweep.train.pack import PackedModel, Weights

# Numbers a gate while gates are learnt: W_k, the gates' parameter, their sample (whose memory the
# gradient takes), the optimizer's two, the gradient by the gated weights, one more that some
# families keep, and the hardened network that is evaluated meanwhile.
_PER_GATE = 8
_PER_WEIGHT = 6  # more, where weights are trained along; and of every parameter that has no gate
_FLOAT = 4  # bytes
_PER_WAITING = 3  # Adam's state and the parameter
_PER_SAVED = 3 * _PER_WAITING  # more, for a checkpoint on its way, which has them three times
_PER_PLAIN = 13  # more, where noise is made by torch's operations on whole numbers of 64 bits
_PER_UNIT_WEIGHT = 8  # of every weight, where gates are those of units
_EVALUATING = 3  # the largest of a network's layers so often: its input, its output and its images


@dataclass(frozen=True)
class Demand:
    """Bytes that learning gates takes.

    Attributes
    ----------
    each: of a replicate, while it is trained.
    fixed: of a pack of any size.
    waiting: of a replicate whose pack waits for others, in the same memory.
    """

    each: int
    fixed: int
    waiting: int = 0


def measured_demand(
    packed: PackedModel,
    weights: Weights,
    images: Tensor,
    *,
    gates: int,
    joint: bool,
    evaluated: int,
    saved: bool,
) -> Demand:
    """What learning takes, from one forward pass of one replicate: what is kept for the gradient.

    Parameters
    ----------
    weights: of one replicate.
    images: a training batch, float32 (B, C, H, W).
    gates: of a replicate.
    joint: whether weights are trained along.
    evaluated: images that evaluation takes at once.
    saved: whether checkpoints are made in the same memory.
    """
    own = {weights.gated.untyped_storage().data_ptr(), weights.rest.untyped_storage().data_ptr()}
    kept: dict[int, int] = {}

    def remember(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    trained = Weights(weights.gated.requires_grad_(), weights.rest.requires_grad_())
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        packed(packed.split(trained), images.unsqueeze(0))
    weights.gated.requires_grad_(False)
    weights.rest.requires_grad_(False)
    frozen, rest = weights.gated.shape[1], weights.rest.shape[1]
    numbers = gates * _PER_GATE + rest * _PER_WEIGHT + (frozen * _PER_WEIGHT if joint else 0)
    if gates < frozen:  # units: each parameter is multiplied by what its gates come to
        numbers += _PER_UNIT_WEIGHT * frozen
    trainable = gates + (frozen + rest if joint else 0)
    if saved:
        numbers += _PER_SAVED * trainable
    if choose(images.device.type).name == "plain":
        numbers += _PER_PLAIN * gates
    largest = max(kept.values(), default=0) // len(images)
    waiting = _PER_SAVED if saved else _PER_WAITING if images.device.type == "cpu" else 0
    return Demand(
        each=numbers * _FLOAT + sum(kept.values()) + images.nbytes,
        fixed=_EVALUATING * evaluated * max(largest, images[0].nbytes),
        waiting=waiting * trainable * _FLOAT,
    )
