"""What every training loop here is made of: how it optimises, losses, evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ticketsweep.seeds import derive_seed
from ticketsweep.train.images import Images, evaluation_batches
from ticketsweep.train.optimizers import OPTIMIZERS, Optimizer, clip_rows_
from ticketsweep.train.pack import Layers, PackedModel, Weights
from ticketsweep.train.schedules import learning_rates

# One forward pass without gradients takes at most so many images times replicates, and values.
EVALUATION_IMAGES = 4096
EVALUATION_VALUES = 4096 * 28 * 28
ESTIMATE_IMAGES, ESTIMATE_BATCH = 2048, 256  # for batch norm's statistics
NETWORKS, NETWORK_BYTES = 32, 1 << 27  # that are scored together, and what they may take
TRAINING_IMAGES = 10_000  # on which the training error of many networks is measured


@dataclass(frozen=True)
class Optimisation:
    """How parameters are trained.

    Attributes
    ----------
    steps: >= 1; one step is one batch.
    batch_size: images a step and replicate, >= 1.
    lr: learning rate of the first step, or after the warm-up, > 0.
    lr_schedule: constant | cosine | linear (both towards 0).
    optimizer: adam | sgd (momentum 0.9).
    lr_warmup: share of the steps over which the learning rate rises, in [0, 1].
    clip_norm: longest gradient of a replicate; None: not clipped.
    """

    steps: int
    batch_size: int
    lr: float
    lr_schedule: str
    optimizer: str
    lr_warmup: float = 0.0
    clip_norm: float | None = None

    def rates(self) -> list[float]:
        """Learning rate of each step."""
        return learning_rates(self.lr_schedule, lr=self.lr, steps=self.steps, warmup=self.lr_warmup)


class Update:
    """Optimizer steps of some flat tensors (R, n), whose gradients make one vector a replicate.

    Parameters
    ----------
    leaves: each with a buffer as its `grad`; an empty one may be among them.
    """

    def __init__(self, leaves: Sequence[Tensor], *, optimizer: str, clip_norm: float | None):
        self._leaves = leaves
        self._clip_norm = clip_norm
        self._optimizers: list[Optimizer] = [OPTIMIZERS[optimizer](leaf) for leaf in leaves]

    def __call__(self, lr: float) -> None:
        """One step from the gradients in the buffers, which are clipped in place."""
        if self._clip_norm is not None:
            clip_rows_([_gradient(leaf) for leaf in self._leaves], self._clip_norm)
        for optimizer in self._optimizers:
            optimizer(lr)

    def state(self) -> dict[str, Tensor]:
        """Copies of all that the next steps depend on."""
        return {
            f"{at}/{key}": value
            for at, optimizer in enumerate(self._optimizers)
            for key, value in optimizer.state().items()
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from `state()` of an update of tensors alike."""
        for at, optimizer in enumerate(self._optimizers):
            start = f"{at}/"
            own = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
            optimizer.restore(own)


def _gradient(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad


def replicate_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of each replicate, (R,), of logits (R, B, K) and labels (R, B)."""
    losses = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return losses.view(labels.shape).mean(dim=1)


@torch.no_grad()
def losses_and_gradient(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """`replicate_losses`, and the gradient of their sum by the logits, (R, B, K).

    In closed form, `(softmax - one hot) / B`: autograd's way there costs as much as a layer of a
    small network.
    """
    shares = torch.log_softmax(logits.detach(), dim=2)
    place = labels.unsqueeze(2)
    losses = shares.gather(2, place).mean(dim=(1, 2)).neg_()
    gradient = shares.exp_()
    gradient.scatter_add_(2, place, gradient.new_full((1, 1, 1), -1.0).expand(place.shape))
    return losses, gradient.div_(labels.shape[1])


class _Known(torch.autograd.Function):
    """`_Known.apply(outputs, gradient)`: a number with this gradient by the outputs."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, gradient: Tensor) -> Tensor:
        """Of any value: nobody asks for it."""
        ctx.save_for_backward(gradient)
        return outputs.new_empty(())

    @staticmethod
    def backward(ctx: Any, _one: Tensor) -> tuple[Tensor, None]:
        """The gradient that was given."""
        return ctx.saved_tensors[0], None


def gradients_behind(
    outputs: Tensor, gradient: Tensor, inputs: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """`torch.autograd.grad(outputs, inputs, gradient)`.

    To compare two shapes, torch's own imports a package for symbolic mathematics: most of a second
    in every process that trains.
    """
    found: tuple[Tensor, ...] = torch.autograd.grad(_Known.apply(outputs, gradient), inputs)
    return found


@dataclass(frozen=True)
class Score:
    """What networks are worth on a split; float64 (R,).

    Attributes
    ----------
    accuracy: a fraction.
    loss: mean cross-entropy.
    """

    accuracy: NDArray[np.float64]
    loss: NDArray[np.float64]


class Evaluator:
    """Scores networks on a trial's splits, batch norm's statistics estimated for each of them.

    Attributes
    ----------
    images_at_once: in one forward pass, those of all replicates together.

    Parameters
    ----------
    train, test: the splits.
    train_rows, validation_rows: the two parts of the training split.
    input_shape: channels, height and width of an image.
    """

    def __init__(
        self,
        packed: PackedModel,
        train: Images,
        test: Images,
        *,
        train_rows: Tensor,
        validation_rows: Tensor,
        input_shape: tuple[int, int, int],
    ) -> None:
        self._packed = packed
        self.images_at_once = min(EVALUATION_IMAGES, EVALUATION_VALUES // math.prod(input_shape))
        self._train, self._test = train, test
        self._validation_rows = validation_rows
        self._test_rows = torch.arange(len(test.labels), device=validation_rows.device)
        self._estimate_rows = _mixed(train_rows)
        self._training_rows = _spread(train_rows, TRAINING_IMAGES)

    @property
    def networks_at_once(self) -> int:
        """Rows of `Weights` to be scored in one call, where there are many networks."""
        most = NETWORKS
        if self._packed.has_batch_norm:
            most = min(most, EVALUATION_IMAGES // ESTIMATE_BATCH)
        numbers = self._packed.gated.size + self._packed.rest.size
        return max(1, min(most, NETWORK_BYTES // (4 * max(1, numbers))))

    @torch.no_grad()
    def on_validation(self, weights: Weights) -> Score:
        """Score on the validation split."""
        layers, statistics = self._prepared(weights)
        return self._score(layers, statistics, self._train, self._validation_rows)

    @torch.no_grad()
    def on_both(self, weights: Weights) -> tuple[Score, Score]:
        """Scores on the validation split and on the test split."""
        layers, statistics = self._prepared(weights)
        splits = ((self._train, self._validation_rows), (self._test, self._test_rows))
        validation, test = (
            self._score(layers, statistics, images, rows) for images, rows in splits
        )
        return validation, test

    @torch.no_grad()
    def errors(self, weights: Weights) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Shares of images that are taken for another class, (R,): training split and test split.

        Of the training split's rows that are trained on, the same `TRAINING_IMAGES` at most are
        looked at each time. NaN where the weights or the outputs are not finite.
        """
        sound, finite = _finite_alone(weights)
        layers, statistics = self._prepared(finite)
        splits = ((self._train, self._training_rows), (self._test, self._test_rows))
        train, test = (_errors(self._score(layers, statistics, *split)) for split in splits)
        return np.where(sound, train, np.nan), np.where(sound, test, np.nan)

    @torch.no_grad()
    def predictions(self, weights: Weights) -> NDArray[np.int64]:
        """The class that each network takes each image of the test split for, int64 (R, N).

        -1 where an output is not finite, and everywhere if the weights are not.
        """
        sound, finite = _finite_alone(weights)
        layers, statistics = self._prepared(finite)
        size = max(1, self.images_at_once // len(layers[0]))
        classes = []
        for images, _ in evaluation_batches(self._test, self._test_rows, size):
            logits = self._packed.evaluate(layers, statistics, images)
            known = torch.isfinite(logits).all(dim=2)
            classes.append(torch.where(known, logits.argmax(dim=2), -1).cpu())
        found: NDArray[np.int64] = torch.cat(classes, dim=1).numpy()
        found[~sound] = -1
        return found

    @torch.no_grad()
    def statistics(self, weights: Weights) -> Layers:
        """Batch norm's statistics as these networks are scored with them; see `estimate`."""
        return self._prepared(weights)[1]

    def _score(self, layers: Layers, statistics: Layers, images: Images, rows: Tensor) -> Score:
        size = max(1, self.images_at_once // len(layers[0]))
        batches = evaluation_batches(images, rows, size)
        return evaluate(self._packed, layers, batches, statistics=statistics)

    def _prepared(self, weights: Weights) -> tuple[Layers, Layers]:
        layers = self._packed.split(weights)
        if not self._packed.has_batch_norm:
            return layers, ()
        batches = evaluation_batches(self._train, self._estimate_rows, ESTIMATE_BATCH)
        return layers, self._packed.estimate(layers, (images for images, _ in batches))


def _finite_alone(weights: Weights) -> tuple[NDArray[np.bool_], Weights]:
    """Which networks' weights are finite, and the weights with zeros for the others'.

    On CUDA, convolutions of a pack have been seen to let one network's infinities reach another.
    """
    sound = np.array(weights.finite())
    if sound.all():
        return sound, weights
    finite = weights.copy()
    lost = np.flatnonzero(~sound).tolist()
    finite.gated[lost], finite.rest[lost] = 0, 0
    return sound, finite


def _errors(score: Score) -> NDArray[np.float64]:
    return np.where(np.isfinite(score.loss), 1 - score.accuracy, np.nan)


def _spread(rows: Tensor, most: int) -> Tensor:
    """At most so many of the rows, at even distances."""
    places = np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(np.int64)
    return rows[torch.from_numpy(places).to(rows.device)]


def _mixed(rows: Tensor) -> Tensor:
    """Rows in whole batches for batch norm's estimate, in an order that mixes the classes."""
    # The raw output of the bit generator, sorted, is a permutation that no release will change.
    order = np.argsort(
        np.random.PCG64(derive_seed(0, "batch-norm-estimate")).random_raw(len(rows)), kind="stable"
    )
    count = min(len(rows), ESTIMATE_IMAGES)
    if count > ESTIMATE_BATCH:
        count -= count % ESTIMATE_BATCH
    return rows[torch.from_numpy(order[:count]).to(rows.device)]


@torch.no_grad()
def evaluate(
    packed: PackedModel,
    layers: Layers,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    statistics: Layers = (),
) -> Score:
    """Score of each replicate on batches of images (B, C, H, W) and labels (B,).

    Parameters
    ----------
    layers: every parameter (R, *shape), as `PackedModel.split` orders them.
    statistics: batch norm's, from `PackedModel.estimate`.
    """
    replicates, device = len(layers[0]), layers[0].device
    right = torch.zeros(replicates, dtype=torch.int64, device=device)
    loss = torch.zeros(replicates, dtype=torch.float64, device=device)
    seen = 0
    for images, labels in batches:
        logits = packed.evaluate(layers, statistics, images)
        right += (logits.argmax(dim=2) == labels).sum(dim=1)
        loss += replicate_losses(logits, labels.expand(replicates, -1)).double() * len(labels)
        seen += len(labels)
    return Score((right.double() / seen).cpu().numpy(), (loss / seen).cpu().numpy())
