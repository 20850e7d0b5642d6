"""A multilayer perceptron: what the convolutions are worth is seen beside it."""

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(classes: int = 10, pixels: int = 32 * 32, hidden: Sequence[int] = (256, 128)) -> nn.Module:
    """Fully connected layers with ReLU (Rumelhart et al., 1986, with ReLU in place of the sigmoid)."""
    layers: list[nn.Module] = [nn.Flatten()]
    for wide, narrow in pairwise((pixels, *hidden)):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], classes))
