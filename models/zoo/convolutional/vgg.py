"""VGG (Simonyan and Zisserman, 2015, arXiv:1409.1556): nothing but 3 x 3 convolutions and pooling."""

from collections.abc import Sequence

from torch import nn

from models.zoo.convolutional.layers import conv_norm


def vgg(
    classes: int = 10,
    stages: Sequence[Sequence[int]] = ((16,), (32,), (64, 64), (64, 64), (64, 64)),
    hidden: int = 64,
    dropout: float = 0.5,
) -> nn.Module:
    """Stages of 3 x 3 convolutions, each stage halving the image: configuration A (eleven layers) by
    default, with batch norm.
    """
    layers: list[nn.Module] = []
    inputs = 1
    for stage in stages:
        for outputs in stage:
            layers.append(conv_norm(inputs, outputs))
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    layers += [nn.Flatten(), nn.Linear(inputs * (32 >> len(stages)) ** 2, hidden), nn.ReLU()]
    layers += [nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(hidden, classes))
