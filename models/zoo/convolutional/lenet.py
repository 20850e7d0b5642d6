"""Small convolutional networks, written out.

Each keeps its paper's sizes; where a layer is the modern one instead of the paper's, its docstring says so.
"""

from collections.abc import Sequence

from torch import Tensor, nn


class LeNet5(nn.Module):
    """LeNet-5: pixel_values float32 [batch, 1, 32, 32] to logits float32 [batch, classes].

    The layer sizes are those of LeCun et al. (1998), figure 2. Modern in place of the paper's: ReLU for the
    scaled tanh, max-pooling for trained subsampling, full connections from S2 to C3, softmax for the RBF
    output. `channels` and `hidden` make smaller ones of the same design.
    """

    def __init__(
        self, classes: int, channels: Sequence[int] = (6, 16), hidden: Sequence[int] = (120, 84)
    ) -> None:
        super().__init__()
        (first, second), (wide, narrow) = channels, hidden
        self.features = nn.Sequential(
            nn.Conv2d(1, first, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(second * 5 * 5, wide),
            nn.ReLU(),
            nn.Linear(wide, narrow),
            nn.ReLU(),
            nn.Linear(narrow, classes),
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(pixel_values).flatten(1))
        return logits


def lenet5(
    classes: int = 10, channels: Sequence[int] = (6, 16), hidden: Sequence[int] = (120, 84)
) -> nn.Module:
    """LeNet-5 with fresh weights from torch's global generator."""
    return LeNet5(classes, channels, hidden)
