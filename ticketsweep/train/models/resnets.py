"""Residual networks: He et al.'s for CIFAR, and torchvision's with any width and a small stem.

Each is an `nn.Sequential` of a stem, residual blocks and a linear layer, with torchvision's names.
"""

from __future__ import annotations

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from ticketsweep.train.models.sizes import Shape, is_small, require_pixels, scaled


class CifarBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut without parameters (He et al. 2016, option A).

    Where the block halves the images and widens, the shortcut takes every second pixel and pads
    the missing channels with zeros.
    """

    def __init__(self, channels: int, wider: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, wider, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(wider)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(wider, wider, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(wider)
        self.relu2 = nn.ReLU()
        self._stride = stride
        self._missing = wider - channels

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, wider, H / stride, W / stride) of features (B, channels, H, W)."""
        residual = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(images)))))
        shortcut = images[:, :, :: self._stride, :: self._stride]
        if self._missing:
            shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self._missing))
        features: Tensor = self.relu2(residual + shortcut)
        return features


def cifar_resnet(depth: int, input_shape: Shape, classes: int, width: float) -> nn.Module:
    """ResNet-20, -32 or -56 of He et al. 2016, section 4.2: 16, 32 and 64 channels.

    Parameters
    ----------
    depth: number of layers, 6n + 2.

    Raises
    ------
    ModelError: the images are smaller than 8x8.
    """
    require_pixels(f"resnet-{depth}", input_shape, 8)
    channels = scaled(16, width)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(input_shape[0], channels, 3, padding=1, bias=False),
        bn1=nn.BatchNorm2d(channels),
        relu=nn.ReLU(),
    )
    for stage in (1, 2, 3):
        wider = scaled(16 * 2 ** (stage - 1), width)
        blocks = []
        for at in range((depth - 2) // 6):
            stride = 2 if stage > 1 and at == 0 else 1
            blocks.append(CifarBlock(channels, wider, stride))
            channels = wider
        layers[f"layer{stage}"] = nn.Sequential(*blocks)
    return _with_head(layers, channels, classes)


def resnet18(input_shape: Shape, classes: int, width: float) -> nn.Module:
    """ResNet-18 from torchvision's basic blocks.

    Raises
    ------
    ModelError: the images are smaller than 8x8.
    """
    from torchvision.models.resnet import BasicBlock, conv1x1

    require_pixels("resnet18", input_shape, 8)
    layers, channels = _stem(input_shape, width)
    for stage in (1, 2, 3, 4):
        wider = scaled(64 * 2 ** (stage - 1), width)
        blocks = []
        for at in range(2):
            stride = 2 if stage > 1 and at == 0 else 1
            projection = None
            if stride != 1 or channels != wider:
                projection = nn.Sequential(conv1x1(channels, wider, stride), nn.BatchNorm2d(wider))
            blocks.append(BasicBlock(channels, wider, stride, projection))
            channels = wider
        layers[f"layer{stage}"] = nn.Sequential(*blocks)
    return _with_head(layers, channels, classes)


def resnet_50(
    name: str, base_width: int, input_shape: Shape, classes: int, width: float
) -> nn.Module:
    """ResNet-50, or its wide variant (Zagoruyko & Komodakis 2016), from torchvision's bottlenecks.

    Parameters
    ----------
    base_width: 64, or 128 for inner convolutions that are twice as wide.

    Raises
    ------
    ModelError: the images are smaller than 8x8.
    """
    from torchvision.models.resnet import Bottleneck, conv1x1

    require_pixels(name, input_shape, 8)
    layers, channels = _stem(input_shape, width)
    for stage, depth in enumerate((3, 4, 6, 3), start=1):
        planes = scaled(64 * 2 ** (stage - 1), width)
        wider = planes * Bottleneck.expansion
        blocks = []
        for at in range(depth):
            stride = 2 if stage > 1 and at == 0 else 1
            projection = None
            if at == 0:
                projection = nn.Sequential(conv1x1(channels, wider, stride), nn.BatchNorm2d(wider))
            blocks.append(Bottleneck(channels, planes, stride, projection, base_width=base_width))
            channels = wider
        layers[f"layer{stage}"] = nn.Sequential(*blocks)
    return _with_head(layers, channels, classes)


def _stem(input_shape: Shape, width: float) -> tuple[OrderedDict[str, nn.Module], int]:
    """The first layers and their channels; small images keep their size (as on CIFAR)."""
    channels = scaled(64, width)
    kernel, stride = (3, 1) if is_small(input_shape) else (7, 2)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(input_shape[0], channels, kernel, stride, padding=kernel // 2, bias=False),
        bn1=nn.BatchNorm2d(channels),
        relu=nn.ReLU(),
    )
    if not is_small(input_shape):
        layers["maxpool"] = nn.MaxPool2d(3, stride=2, padding=1)
    return layers, channels


def _with_head(layers: OrderedDict[str, nn.Module], channels: int, classes: int) -> nn.Module:
    """The whole network, its convolutions initialised as torchvision's (He et al. 2015)."""
    layers["avgpool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["fc"] = nn.Linear(channels, classes)
    network = nn.Sequential(layers)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
