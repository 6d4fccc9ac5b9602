"""Widths and image sizes: what every family of models computes alike."""

from __future__ import annotations

from ticketsweep.errors import ModelError

Shape = tuple[int, int, int]  # channels, height, width
SMALL = 64  # pixels; images up to this size get a stem that does not shrink them at once


def scaled(size: int, width: float) -> int:
    """`size` units or channels times `width`, rounded, at least 1."""
    return max(1, round(size * width))


def is_small(input_shape: Shape) -> bool:
    """Whether the images are the size of CIFAR's rather than ImageNet's."""
    return max(input_shape[1:]) <= SMALL


def require_pixels(model: str, input_shape: Shape, least: int) -> None:
    """Refuse images of fewer than `least` x `least` pixels.

    Raises
    ------
    ModelError: they are smaller.
    """
    _, height, width = input_shape
    if min(height, width) < least:
        raise ModelError(
            f"model {model} needs images of at least {least}x{least} pixels, "
            f"got {height}x{width} (take a data set with larger images, or model fc-300-100)"
        )


def require_square_patches(model: str, input_shape: Shape, patch: int) -> None:
    """Refuse images that are not square or that patches of `patch` pixels do not tile.

    Raises
    ------
    ModelError: they are not.
    """
    _, height, width = input_shape
    if height != width or height % patch:
        raise ModelError(
            f"model {model} needs square images with sides divisible by {patch} (its patches), "
            f"got {height}x{width} (resize or pad the images, or take a convolutional model)"
        )
