"""SqueezeNet (Iandola et al., 2016, arXiv:1602.07360): fire modules, no full connections.

With batch norm after each convolution but the last: at these widths it does not train without.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.zoo.convolutional.layers import conv_norm


class Fire(nn.Module):
    """A 1 x 1 squeeze to `squeeze` channels, then `expand` channels each of 1 x 1 and 3 x 3, concatenated."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = conv_norm(inputs, squeeze, 1)
        self.one, self.three = conv_norm(squeeze, expand, 1), conv_norm(squeeze, expand)

    def forward(self, features: Tensor) -> Tensor:
        squeezed = self.squeeze(features)
        return torch.cat([self.one(squeezed), self.three(squeezed)], 1)


def squeezenet(
    classes: int = 10,
    stem: int = 32,
    fires: Sequence[tuple[int, int]] = ((8, 32), (8, 32), (16, 48), (16, 48)),
    dropout: float = 0.2,
) -> nn.Module:
    """SqueezeNet v1.1's order at small widths: (squeeze, expand) pairs, pooling after every second."""
    layers: list[nn.Module] = [conv_norm(1, stem, stride=2)]
    inputs = stem
    for number, (squeeze, expand) in enumerate(fires):
        layers += [Fire(inputs, squeeze, expand)] + ([nn.MaxPool2d(2)] if number % 2 else [])
        inputs = 2 * expand
    head = (nn.Dropout(dropout), nn.Conv2d(inputs, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*layers, *head)
