"""Vision transformers from torchvision, with any width, input channels and small images.

Dropout and stochastic depth are off: a replicate's result is a function of its seeds alone.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ticketsweep.train.models.sizes import Shape, is_small, require_square_patches

if TYPE_CHECKING:
    from torchvision.models import VisionTransformer

_CHOOSING = threading.Lock()  # the choice of a kernel is the process's, of all its threads


def vit_b_16(input_shape: Shape, classes: int, width: float) -> nn.Module:
    """ViT-B/16 (Dosovitskiy et al. 2021): 12 layers, 768 wide, 12 heads; small images: ViT-B/4.

    Raises
    ------
    ModelError: patches do not tile the images.
    """
    return _vit("vit_b_16", input_shape, classes, layers=12, heads=12, wide=768 * width)


def vit_tiny(input_shape: Shape, classes: int, width: float) -> nn.Module:
    """A ViT for 32x32 images: 9 layers, 192 wide, 3 heads, 4x4 patches.

    DeiT-Ti's width and heads (Touvron et al. 2021) with three quarters of its depth.

    Raises
    ------
    ModelError: patches do not tile the images.
    """
    return _vit("vit_tiny", input_shape, classes, layers=9, heads=3, wide=192 * width)


def swin_t(input_shape: Shape, classes: int, width: float) -> nn.Module:
    """Swin-T (Liu et al. 2021): depths 2, 2, 6, 2, embedding 96, heads 3, 6, 12, 24.

    Small images get 2x2 patches and 4x4 windows in place of 4x4 and 7x7, so that windows tile the
    feature maps of 32x32 images (16, 8, 4) up to the last (2, which is padded to one window).

    Raises
    ------
    ModelError: patches do not tile the images.
    """
    from torchvision.models import SwinTransformer

    patch, window = (2, 4) if is_small(input_shape) else (4, 7)
    require_square_patches("swin_t", input_shape, patch)
    heads = [3, 6, 12, 24]
    embedding = _embedding(96 * width, heads[0])
    model: nn.Module = SwinTransformer(
        [patch, patch], embedding, [2, 2, 6, 2], heads, [window, window],
        stochastic_depth_prob=0.0, num_classes=classes,
    )  # fmt: skip
    if input_shape[0] != 3:  # torchvision knows colour images alone
        stem = model.get_submodule("features.0")
        setattr(stem, "0", nn.Conv2d(input_shape[0], embedding, patch, stride=patch))
    model.avgpool = _GlobalMean()
    return model


class _GlobalMean(nn.Module):
    """Mean over height and width, as `nn.AdaptiveAvgPool2d(1)`.

    The latter is slow under `torch.func.vmap` where channels lie last in memory, as in Swin.
    """

    def forward(self, features: Tensor) -> Tensor:
        return features.mean((2, 3), keepdim=True)


def _vit(
    name: str, input_shape: Shape, classes: int, *, layers: int, heads: int, wide: float
) -> nn.Module:
    patch = 4 if is_small(input_shape) else 16
    require_square_patches(name, input_shape, patch)
    embedding = _embedding(wide, heads)
    model: nn.Module = _vision_transformer()(
        input_shape[1], patch, layers, heads, embedding, 4 * embedding, num_classes=classes
    )
    if input_shape[0] != 3:  # torchvision knows colour images alone
        convolution = nn.Conv2d(input_shape[0], embedding, patch, stride=patch)
        fan_in = convolution.weight[0].numel()
        nn.init.trunc_normal_(convolution.weight, std=math.sqrt(1 / fan_in))
        nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        model.conv_proj = convolution
    return model


def _vision_transformer() -> type[VisionTransformer]:
    """torchvision's class, which is imported only where a ViT is asked for."""
    from torchvision.models import VisionTransformer

    class PackableViT(VisionTransformer):  # type: ignore[misc]
        """A ViT whose attention on the CPU is made of operations that `torch.func.vmap` knows."""

        def forward(self, x: Tensor) -> Tensor:
            if x.device.type != "cpu":
                return super().forward(x)  # type: ignore[no-any-return]
            with _CHOOSING, sdpa_kernel(SDPBackend.MATH):
                return super().forward(x)  # type: ignore[no-any-return]

    return PackableViT


def _embedding(wide: float, heads: int) -> int:
    """The nearest multiple of `heads`, at least one dimension a head."""
    return heads * max(1, round(wide / heads))
