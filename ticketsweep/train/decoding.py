"""From encoded images to pixels."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

from ticketsweep.errors import DataError

COLOUR_MODES = {"RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV"}
GREY_MODES = {"1", "L", "LA"}


def decoded(source: Path | IO[bytes], *, place: str) -> Image.Image:
    """The image, in mode L if it is grey and in mode RGB if it is in colour.

    Parameters
    ----------
    place: which image it is, for a message.

    Raises
    ------
    DataError: it cannot be decoded, or has more than 8 bits a channel.
    """
    try:
        with Image.open(source) as image:
            if image.mode in GREY_MODES:
                return image.convert("L")
            if image.mode in COLOUR_MODES:
                return image.convert("RGB")
            mode = image.mode
    except UnidentifiedImageError:  # whose text is an address in memory
        raise DataError(
            f"{place}: the image cannot be decoded: it is in no format that Pillow knows"
        ) from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{place}: the image cannot be decoded: {error}") from error
    raise DataError(f"{place}: images must have 8 bits a channel, got mode {mode}")


def fitted(image: Image.Image, size: int) -> Image.Image:
    """Scaled (bilinear) until the shorter side has `size` pixels, and that square's middle.

    Pixel for pixel torchvision's `Resize(size)` and `CenterCrop(size)`.
    """
    width, height = image.size
    if width <= height:
        wide, high = size, int(size * height / width)
    else:
        wide, high = int(size * width / height), size
    scaled = image if (wide, high) == image.size else image.resize(
        (wide, high), Image.Resampling.BILINEAR
    )  # fmt: skip
    left, top = round((wide - size) / 2), round((high - size) / 2)
    return scaled.crop((left, top, left + size, top + size))
