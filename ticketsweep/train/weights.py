"""Training of weights, dense or under masks, and what a trial starts from."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ticketsweep.progress import ALIVE_SECONDS, Alive
from ticketsweep.seeds import derive_seed
from ticketsweep.train.augment import Augmentation, augmentation_of
from ticketsweep.train.checkpoint import Checkpoints, State, part, under
from ticketsweep.train.images import BatchOrder, Images, training_batches
from ticketsweep.train.loop import Optimisation, Update, gradients_behind, losses_and_gradient
from ticketsweep.train.models import initial_parameters
from ticketsweep.train.pack import Layout, PackedModel, Weights
from ticketsweep.train.plan import Plan
from ticketsweep.train.schedules import log_steps

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Passage:
    """How far a stage has come that has no curve of its own: `step` of `steps` are done."""

    stage: str
    step: int
    steps: int


def initial_weights(
    build: Callable[[], nn.Module],
    gated: Layout,
    rest: Layout,
    *,
    weight_init: str,
    weight_scale: float,
    seeds: Sequence[int],
    device: torch.device,
) -> Weights:
    """Every parameter before any training, a row for each seed; see `initial_parameters`."""
    drawn = [
        initial_parameters(
            build, gated.names, weight_init=weight_init, weight_scale=weight_scale, seed=seed
        )
        for seed in seeds
    ]
    return Weights(gated.flatten(drawn).to(device), rest.flatten(drawn).to(device))


def rewound_weights(
    packed: PackedModel,
    plan: Plan,
    images: Images,
    rows: Tensor,
    *,
    seeds: Sequence[int],
    stage: str,
    checkpoints: Checkpoints,
    reports: int,
) -> Generator[Passage | Alive, None, Weights]:
    """W_k: every parameter after `rewind_step` dense steps, a row for each init seed.

    Their batches come from the init seed's stream, so that they depend on it alone.

    Parameters
    ----------
    packed: the plan's model, on the device that is to train.
    images, rows: the training split, and those of its rows that are trained on, int64 (N,).
    stage: its name in the checkpoint, which has the weights once they are trained.
    reports: how often it is told how far training has come.
    """
    if (done := checkpoints.result(stage)) is not None:
        return Weights(done["gated"].to(rows.device), done["rest"].to(rows.device))
    weights = initial_weights(
        plan.build,
        packed.gated,
        packed.rest,
        weight_init=plan.weight_init,
        weight_scale=plan.weight_scale,
        seeds=seeds,
        device=rows.device,
    )
    if plan.rewind_step:
        how = replace(plan.weight_how, steps=plan.rewind_step)
        streams = [derive_seed(seed, "pretrain-batches") for seed in seeds]
        yield from train_weights(
            packed,
            weights,
            images,
            [BatchOrder(rows, batch_size=how.batch_size, seed=stream) for stream in streams],
            how,
            kept=None,
            augmentation=augmentation_of(plan.augment, streams),
            stage=stage,
            checkpoints=checkpoints,
            reports=reports,
        )
        checkpoints.finish(stage, {"gated": weights.gated, "rest": weights.rest})
    return weights


def train_weights(
    packed: PackedModel,
    weights: Weights,
    images: Images,
    orders: Sequence[BatchOrder],
    how: Optimisation,
    *,
    kept: Weights | None,
    augmentation: Augmentation | None,
    stage: str,
    checkpoints: Checkpoints,
    reports: int,
) -> Generator[Passage | Alive, None, None]:
    """Train all parameters in place, and tell about `reports` times how far it has come.

    Parameters
    ----------
    weights: (R, G) and (R, O); what is not kept must be 0, and stays so.
    orders: one a replicate, from which nothing has been drawn.
    kept: the masks; None to train the dense network.
    stage: its name in the checkpoint, from which it goes on.
    """
    leaves = Leaves(weights, None if kept is None else (kept.gated, kept.rest))
    update = Update(leaves.tensors, optimizer=how.optimizer, clip_norm=how.clip_norm)
    done = 0
    if (saved := checkpoints.state(stage)) is not None:
        done = int(saved["step"])
        _LOG.info("%s: going on from step %d of a checkpoint", stage, done)
        leaves.restore(part("leaves", saved))
        update.restore(part("update", saved))
    for order in orders:
        order.skip(done)
    rates, told = how.rates(), set(log_steps(how.steps, reports))
    batches = training_batches(
        images, orders, first=done, steps=how.steps, augmentation=augmentation
    )
    heard = time.monotonic()
    with contextlib.closing(batches):
        for batch, labels in batches:
            logits = packed(packed.split(weights), batch)
            _, gradient = losses_and_gradient(logits, labels)
            leaves.take(gradients_behind(logits, gradient, leaves.tensors))
            update(rates[done])
            done += 1
            if checkpoints.due():
                checkpoints.save(stage, _state(done, leaves, update))
            if done in told:
                yield Passage(stage, done, how.steps)
                heard = time.monotonic()
            elif time.monotonic() - heard >= ALIVE_SECONDS:
                yield Alive(step=done, steps=how.steps, stage=stage)
                heard = time.monotonic()
    leaves.release()


def _state(done: int, leaves: Leaves, update: Update) -> State:
    return {
        "step": torch.tensor(done),
        **under("leaves", leaves.state()),
        **under("update", update.state()),
    }


class Leaves:
    """Flat tensors under training, each with a buffer for its gradient; empty ones are left out.

    Parameters
    ----------
    weights: what is trained.
    kept: bool tensors like `weights.gated` and `weights.rest`, or None: the gradient of what is
        not kept is 0.
    """

    def __init__(self, weights: Weights, kept: tuple[Tensor, Tensor] | None = None) -> None:
        masks = kept or (None, None)
        pairs = [
            (tensor, mask)
            for tensor, mask in zip((weights.gated, weights.rest), masks, strict=True)
            if tensor.shape[1]
        ]
        self.tensors = [tensor for tensor, _ in pairs]
        self._masks = [mask for _, mask in pairs]
        for tensor in self.tensors:
            tensor.requires_grad_()
            tensor.grad = torch.empty_like(tensor)

    def take(self, gradients: Sequence[Tensor]) -> None:
        """Put these gradients into the buffers."""
        for tensor, mask, gradient in zip(self.tensors, self._masks, gradients, strict=True):
            assert tensor.grad is not None
            if mask is None:
                tensor.grad.copy_(gradient)
            else:
                torch.mul(gradient, mask, out=tensor.grad)

    def state(self) -> State:
        """Copies of the tensors."""
        return {str(at): tensor.detach().clone() for at, tensor in enumerate(self.tensors)}

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Put the values of `state` into the tensors."""
        for at, tensor in enumerate(self.tensors):
            tensor.copy_(state[str(at)])

    def release(self) -> None:
        """Make the tensors plain values again."""
        for tensor in self.tensors:
            tensor.requires_grad_(False)
            tensor.grad = None
