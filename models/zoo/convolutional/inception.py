"""GoogLeNet (Szegedy et al., 2014, arXiv:1409.4842): parallel kernels of several sizes, concatenated.

With batch norm after each convolution (as in Inception v2) and without the auxiliary classifiers, which
batch norm made unnecessary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.zoo.convolutional.layers import conv_norm


class Inception(nn.Module):
    """1 x 1, 3 x 3, 5 x 5 and pooling side by side; `sizes` are the channels in the order of table 1 of the
    paper: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
    """

    def __init__(self, inputs: int, sizes: Sequence[int]) -> None:
        super().__init__()
        one, reduce_three, three, reduce_five, five, pooled = sizes
        self.branches = nn.ModuleList(
            [
                conv_norm(inputs, one, 1),
                nn.Sequential(conv_norm(inputs, reduce_three, 1), conv_norm(reduce_three, three)),
                nn.Sequential(conv_norm(inputs, reduce_five, 1), conv_norm(reduce_five, five, 5)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_norm(inputs, pooled, 1)),
            ]
        )
        self.outputs = one + three + five + pooled

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([branch(features) for branch in self.branches], 1)


def inception(
    classes: int = 10,
    stem: int = 24,
    modules: Sequence[Sequence[int]] = (
        (16, 16, 24, 4, 8, 8),
        (24, 24, 32, 8, 16, 16),
        (32, 24, 48, 8, 16, 16),
        (48, 32, 64, 8, 24, 24),
    ),
    dropout: float = 0.2,
) -> nn.Module:
    """GoogLeNet for 32 x 32: a strided stem, four inception modules with pooling after every second."""
    layers: list[nn.Module] = [conv_norm(1, stem, stride=2)]
    inputs = stem
    for number, sizes in enumerate(modules):
        module = Inception(inputs, sizes)
        layers += [module] + ([nn.MaxPool2d(2)] if number % 2 else [])
        inputs = module.outputs
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(inputs, classes))
    return nn.Sequential(*layers, *head)
