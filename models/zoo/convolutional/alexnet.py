"""AlexNet (Krizhevsky et al., 2012): five convolutions, three full connections, dropout."""

from collections.abc import Sequence

from torch import nn


def alexnet(
    classes: int = 10, channels: Sequence[int] = (24, 48, 64, 64, 48), hidden: int = 128, dropout: float = 0.5
) -> nn.Module:
    """AlexNet for 32 x 32: strides and kernels shrunk with the image, the order of layers kept.

    Local response normalisation is left out, as everyone has since VGG; one device needs no groups.
    """
    first, second, third, fourth, fifth = channels
    return nn.Sequential(
        *(nn.Conv2d(1, first, 5, stride=2, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(first, second, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(second, third, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(third, fourth, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(fourth, fifth, 3, padding=1), nn.ReLU()),
        nn.Flatten(),
        *(nn.Dropout(dropout), nn.Linear(fifth * 4 * 4, hidden), nn.ReLU()),
        *(nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU()),
        nn.Linear(hidden, classes),
    )
