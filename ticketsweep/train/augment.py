"""Augmentation of whole batches on the device, with random numbers of each replicate's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ticketsweep.seeds import derive_seed

PADDING = 4  # pixels on every side, as is usual for CIFAR (He et al. 2016, section 4.2)


@dataclass(frozen=True)
class Transformation:
    """What is done to an image: cut at a random place out of its padded self, then mirrored.

    Attributes
    ----------
    padding: pixels of value 0 on every side before an image of the old size is cut out; 0: no cut.
    flips: whether an image is mirrored left to right with probability 1/2.
    """

    padding: int
    flips: bool


TRANSFORMATIONS = {
    "flip": Transformation(padding=0, flips=True),
    "crop": Transformation(padding=PADDING, flips=False),
    "crop_flip": Transformation(padding=PADDING, flips=True),
}


@dataclass(frozen=True)
class Augmentation:
    """Random crops and mirror images of the batches of a pack.

    The random numbers of a replicate's step are a function of its seed and the step alone: they
    depend neither on the rest of the pack nor on the device, and a resumed trial sees them again.

    Attributes
    ----------
    kind: a key of `TRANSFORMATIONS`.
    seeds: one a replicate; the data seed, usually.
    """

    kind: str
    seeds: Sequence[int]

    def __call__(self, pixels: Tensor, *, step: int) -> Tensor:
        """The augmented batches, uint8 (R, B, C, H, W) as `pixels`.

        Pixels are padded by 0 as they lie in the file, before they are standardised: what
        torchvision's `RandomCrop(H, padding=4)` does to an image.
        """
        what = TRANSFORMATIONS[self.kind]
        draws = [_draw(seed, step, pixels.shape[1], what.padding) for seed in self.seeds]
        corners, mirrored = (torch.cat(part).to(pixels.device) for part in zip(*draws, strict=True))
        images = pixels.flatten(0, 1)
        if what.padding:
            images = _cut(images, corners, what.padding)
        if what.flips:
            images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(3), images)
        return images.view(pixels.shape)


def augmentation_of(kind: str, seeds: Sequence[int]) -> Augmentation | None:
    """The augmentation of this kind; None for `none`."""
    return None if kind == "none" else Augmentation(kind, seeds)


def _draw(seed: int, step: int, batch: int, padding: int) -> tuple[Tensor, Tensor]:
    """Upper left corners, int64 (B, 2) in 0..2*padding, and which to mirror, bool (B,)."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "augment", str(step)))
    corners = torch.randint(2 * padding + 1, (batch, 2), generator=generator)
    return corners, torch.rand(batch, generator=generator) < 0.5


def _cut(images: Tensor, corners: Tensor, padding: int) -> Tensor:
    """Images (N, C, H, W), each cut at its corner out of its padded self."""
    height, width = images.shape[2:]
    windows = functional.pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)
    at = torch.arange(len(images), device=images.device)
    return windows[at, :, corners[:, 0], corners[:, 1]]  # of (N, C, corner y, corner x, H, W)
