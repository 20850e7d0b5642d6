"""MobileNetV2 (Sandler et al., 2018, arXiv:1801.04381) and EfficientNet-B0 (Tan and Le, 2019,
arXiv:1905.11946).

They share the inverted residual; EfficientNet's has squeeze-and-excitation (Hu et al., 2017,
arXiv:1709.01507), SiLU and stochastic depth, and its own order of stages.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from models.zoo.convolutional.layers import StochasticDepth, conv_norm, depth_rates

# (expansion, channels, blocks, stride, kernel) a stage, as in table 2 of the first paper and table 1 of the
# second; channels are scaled by `width`, and the first two strides fit 32 x 32.
Stage = tuple[int, int, int, int, int]
MOBILENET_V2: tuple[Stage, ...] = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 1, 3),
    (6, 32, 3, 2, 3),
    (6, 64, 4, 2, 3),
    (6, 96, 3, 1, 3),
    (6, 160, 3, 2, 3),
    (6, 320, 1, 1, 3),
)
EFFICIENTNET_B0: tuple[Stage, ...] = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 1, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


class SqueezeExcitation(nn.Module):
    """Channels scaled by a gate that sees the whole image."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            *(nn.Conv2d(channels, squeezed, 1), nn.SiLU()),
            *(nn.Conv2d(squeezed, channels, 1), nn.Sigmoid()),
        )

    def forward(self, features: Tensor) -> Tensor:
        gated: Tensor = features * self.gate(features)
        return gated


class InvertedResidual(nn.Module):
    """1 x 1 up, depthwise, 1 x 1 down without an activation; a shortcut where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stage: Stage, stride: int, efficient: bool, drop: float):
        super().__init__()
        expansion, kernel = stage[0], stage[4]
        activation: type[nn.Module] = nn.SiLU if efficient else nn.ReLU6
        wide = inputs * expansion
        layers = [] if expansion == 1 else [conv_norm(inputs, wide, 1, activation=activation)]
        layers.append(conv_norm(wide, wide, kernel, stride=stride, groups=wide, activation=activation))
        excited = [SqueezeExcitation(wide, max(1, inputs // 4))] if efficient else []
        self.branch = nn.Sequential(*layers, *excited, conv_norm(wide, outputs, 1, activation=None))
        self.drop = StochasticDepth(drop)
        self.residual = inputs == outputs and stride == 1

    def forward(self, features: Tensor) -> Tensor:
        result: Tensor = self.branch(features)
        return features + self.drop(result) if self.residual else result


def mobilenet_v2(
    classes: int = 10, width: float = 0.35, stages: Sequence[Stage] = MOBILENET_V2, head: int = 256
) -> nn.Module:
    """MobileNetV2, its channels times `width`."""
    return _network(classes, width, stages, head, efficient=False, drop=0.0)


def efficientnet_b0(
    classes: int = 10,
    width: float = 0.35,
    stages: Sequence[Stage] = EFFICIENTNET_B0,
    head: int = 256,
    drop: float = 0.1,
) -> nn.Module:
    """EfficientNet-B0's stages, their channels times `width`; B0 itself is width 1 at 224 x 224."""
    return _network(classes, width, stages, head, efficient=True, drop=drop)


def _network(
    classes: int, width: float, stages: Sequence[Stage], head: int, *, efficient: bool, drop: float
) -> nn.Module:
    activation: type[nn.Module] = nn.SiLU if efficient else nn.ReLU6
    inputs = _scaled(32, width)
    layers: list[nn.Module] = [conv_norm(1, inputs, stride=2, activation=activation)]
    rates = iter(depth_rates(drop, sum(stage[2] for stage in stages)))
    for stage in stages:
        _, channels, blocks, stride, _ = stage
        for block in range(blocks):
            outputs = _scaled(channels, width)
            step = 1 if block else stride
            layers.append(InvertedResidual(inputs, outputs, stage, step, efficient, next(rates)))
            inputs = outputs
    layers += [conv_norm(inputs, head, 1, activation=activation), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(head, classes))


def _scaled(channels: int, width: float) -> int:
    """Channels times `width`, to a multiple of eight and at least eight."""
    return max(8, round(channels * width / 8) * 8)
