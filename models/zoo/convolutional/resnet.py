"""ResNet (He et al., 2015, arXiv:1512.03385), with basic and bottleneck blocks, and ResNeXt.

ResNeXt (Xie et al., 2016, arXiv:1611.05431) is the bottleneck block with a grouped middle convolution.
"""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from models.zoo.convolutional.layers import StochasticDepth, conv_norm, depth_rates

# A bottleneck block gives this many times the width of its 3 x 3 convolution.
EXPANSION = 4

Branch = Callable[[int, int, int], nn.Module]


class Residual(nn.Module):
    """relu(shortcut(x) + branch(x)); the shortcut is a projection where the shape changes (option B)."""

    def __init__(self, inputs: int, outputs: int, stride: int, branch: nn.Module, drop: float) -> None:
        super().__init__()
        self.branch, self.drop, self.activation = branch, StochasticDepth(drop), nn.ReLU()
        same = inputs == outputs and stride == 1
        self.shortcut = (
            nn.Identity() if same else conv_norm(inputs, outputs, 1, stride=stride, activation=None)
        )

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.activation(self.shortcut(features) + self.drop(self.branch(features)))
        return result


def basic(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Two 3 x 3 convolutions."""
    return nn.Sequential(
        conv_norm(inputs, outputs, stride=stride), conv_norm(outputs, outputs, activation=None)
    )


def bottleneck(inputs: int, outputs: int, stride: int, *, groups: int = 1, width: float = 1.0) -> nn.Module:
    """1 x 1 down, 3 x 3 (in `groups`), 1 x 1 up; `width` widens the middle."""
    middle = round(outputs // EXPANSION * width)
    return nn.Sequential(
        conv_norm(inputs, middle, 1),
        conv_norm(middle, middle, stride=stride, groups=groups),
        conv_norm(middle, outputs, 1, activation=None),
    )


def resnet(
    classes: int = 10,
    widths: Sequence[int] = (16, 32, 64),
    blocks: int = 2,
    drop: float = 0.1,
    branch: Branch = basic,
) -> nn.Module:
    """A 3 x 3 stem of stride 2, stages of `blocks` residual blocks, global average pooling, one layer.

    Each stage but the first halves the image. `drop` is the last block's rate of stochastic depth.
    """
    rates = iter(depth_rates(drop, blocks * len(widths)))
    layers: list[nn.Module] = [conv_norm(1, widths[0], stride=2)]
    inputs = widths[0]
    for stage, outputs in enumerate(widths):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            layers.append(Residual(inputs, outputs, stride, branch(inputs, outputs, stride), next(rates)))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes))


def resnet_bottleneck(
    classes: int = 10, widths: Sequence[int] = (32, 64, 128), blocks: int = 2, drop: float = 0.1
) -> nn.Module:
    """ResNet of bottleneck blocks."""
    return resnet(classes, widths, blocks, drop, bottleneck)


def resnext(
    classes: int = 10,
    widths: Sequence[int] = (32, 64, 128),
    blocks: int = 2,
    drop: float = 0.1,
    groups: int = 8,
) -> nn.Module:
    """ResNeXt: the middle convolution twice as wide, in `groups` (the paper's cardinality)."""
    return resnet(classes, widths, blocks, drop, partial(bottleneck, groups=groups, width=2.0))
