"""Plain chains of layers: fully connected networks, LeNet-5, and edge-popup's convolutions.

No layer has a bias: where weights stay at their random values, a bias is an offset that no gate
can remove (Ramanujan et al. 2020 leave them out for the same reason).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from ticketsweep.train.models.sizes import Shape, require_pixels, scaled


class Chain(nn.Sequential):
    """Layers in a row, every one initialised by its own `reset_parameters` and nothing else.

    So each layer's values can be drawn from a seed of its own, whatever other layers there are.
    """


def fully_connected(
    hidden: Sequence[int], input_shape: Shape, classes: int, width: float
) -> nn.Module:
    """Linear layers `fc1`, `fc2`, … without bias, ReLU between them.

    Parameters
    ----------
    hidden: units of each hidden layer at width 1.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    units = [scaled(size, width) for size in hidden]
    return Chain(layers | _linear_layers([math.prod(input_shape), *units, classes]))


def lenet_5(input_shape: Shape, classes: int, width: float) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) with max pooling and ReLU, without bias.

    Images below 32x32 are padded by two pixels on each side, as the original pads MNIST's.

    Raises
    ------
    ModelError: the images are smaller than 12x12.
    """
    require_pixels("lenet-5", input_shape, 12)
    padding = 2 if min(input_shape[1:]) < 32 else 0
    first, second = scaled(6, width), scaled(16, width)
    height, breadth = (((side + 2 * padding - 4) // 2 - 4) // 2 for side in input_shape[1:])
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=nn.Conv2d(input_shape[0], first, 5, padding=padding, bias=False),
        conv_relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(first, second, 5, bias=False),
        conv_relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
    )
    units = [scaled(120, width), scaled(84, width)]
    return Chain(layers | _linear_layers([second * height * breadth, *units, classes]))


def edge_popup_conv(convolutions: int, input_shape: Shape, classes: int, width: float) -> nn.Module:
    """Conv-2, -4, -6 or -8 of Ramanujan et al. 2020, section 4.1 (after Frankle & Carbin 2019).

    Pairs of 3x3 convolutions of 64, 128, 256 and 512 channels, a 2x2 max pool after each pair,
    then linear layers of 256, 256 and `classes` units; ReLU, no bias.

    Parameters
    ----------
    convolutions: 2, 4, 6 or 8.

    Raises
    ------
    ModelError: the pools would leave nothing of the images.
    """
    pairs = convolutions // 2
    require_pixels(f"conv-{convolutions}", input_shape, 2**pairs)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = input_shape[0]
    for at in range(1, convolutions + 1):
        wider = scaled(64 * 2 ** ((at - 1) // 2), width)
        layers[f"conv{at}"] = nn.Conv2d(channels, wider, 3, padding=1, bias=False)
        layers[f"conv_relu{at}"] = nn.ReLU()
        if at % 2 == 0:
            layers[f"pool{at // 2}"] = nn.MaxPool2d(2)
        channels = wider
    layers["flatten"] = nn.Flatten()
    features = channels * math.prod(side // 2**pairs for side in input_shape[1:])
    units = scaled(256, width)
    return Chain(layers | _linear_layers([features, units, units, classes]))


def _linear_layers(widths: Sequence[int]) -> OrderedDict[str, nn.Module]:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for at in range(1, len(widths)):
        layers[f"fc{at}"] = nn.Linear(widths[at - 1], widths[at], bias=False)
        if at < len(widths) - 1:
            layers[f"relu{at}"] = nn.ReLU()
    return layers
