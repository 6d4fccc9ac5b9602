from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as reference

from ticketsweep.seeds import derive_seed
from ticketsweep.train.augment import TRANSFORMATIONS, Augmentation


def pictures(replicates: int, batch: int, shape: tuple[int, int, int] = (3, 9, 7)) -> Tensor:
    generator = torch.Generator().manual_seed(replicates * batch)
    return torch.randint(256, (replicates, batch, *shape), generator=generator, dtype=torch.uint8)


def one_by_one(pixels: Tensor, kind: str, seeds: list[int], step: int) -> Tensor:
    """The same by torchvision, on one image of Pillow's at a time."""
    what, height, width = TRANSFORMATIONS[kind], *pixels.shape[3:]
    augmented = torch.empty_like(pixels)
    for r, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(derive_seed(seed, "augment", str(step)))
        corners = torch.randint(2 * what.padding + 1, (pixels.shape[1], 2), generator=generator)
        mirrored = torch.rand(pixels.shape[1], generator=generator) < 0.5
        for b, (top, left) in enumerate(corners.tolist()):
            image = Image.fromarray(pixels[r, b].permute(1, 2, 0).numpy())
            image = reference.pad(image, what.padding, fill=0, padding_mode="constant")
            image = reference.crop(image, top, left, height, width)
            if what.flips and mirrored[b]:
                image = reference.hflip(image)
            augmented[r, b] = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return augmented


@pytest.mark.parametrize("kind", sorted(TRANSFORMATIONS))
def test_a_batch_is_augmented_as_torchvision_augments_an_image(kind: str) -> None:
    pixels, seeds = pictures(3, 40), [5, 6, 5]
    augmented = Augmentation(kind, seeds)(pixels, step=7)
    assert torch.equal(augmented, one_by_one(pixels, kind, seeds, step=7))
    assert not torch.equal(augmented, pixels)


@pytest.mark.parametrize("kind", sorted(TRANSFORMATIONS))
def test_augmentation_of_a_replicate_depends_on_its_seed_and_step_alone(kind: str) -> None:
    pixels = pictures(1, 32).expand(3, -1, -1, -1, -1)
    pack = Augmentation(kind, [1, 2, 1])
    first, second = pack(pixels, step=0), pack(pixels, step=1)
    assert torch.equal(first[0], first[2])
    assert torch.equal(first[1], Augmentation(kind, [2])(pixels[:1], step=0)[0])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)
    assert torch.equal(pack(pixels, step=0), first)


def test_half_of_the_images_are_mirrored_and_every_corner_is_cut() -> None:
    column = torch.arange(9, dtype=torch.uint8).expand(1, 5000, 1, 1, 9) + 1
    flipped = Augmentation("flip", [0])(column, step=0)
    share = (flipped[..., 0] == 9).double().mean().item()
    assert abs(share - 0.5) < 4 * 0.5 / 5000**0.5
    cut = Augmentation("crop", [0])(column.expand(-1, -1, -1, 9, -1), step=0)
    centres = cut[0, :, 0, 4, 4].bincount(minlength=10)  # columns 1..9, one a corner
    assert centres[1:].min() > 0
    chi_square = ((centres[1:] - 5000 / 9) ** 2 / (5000 / 9)).sum().item()
    assert chi_square < 30  # 8 degrees of freedom: exceeded once in 5,000 seeds
    rows = (cut[0, :, 0, :, 4] > 0).sum(dim=1).bincount(minlength=10)
    assert rows[:5].sum() == 0  # at most four rows of padding
    assert rows[5:].min() > 0


def test_the_batch_that_was_given_stays_as_it_was() -> None:
    pixels = pictures(2, 8)
    before = pixels.clone()
    Augmentation("crop_flip", [0, 1])(pixels, step=0)
    assert torch.equal(pixels, before)
