"""`stylegan`: a network that draws by styles, each layer's own, out of one mapped code.

Noise float32 [batch, ...] and label int64 [batch] to an image float32 [batch, 1, 16, 16] in [-1, 1], by the
game of `models.zoo.adversarial`. Small: one convolution for each size of map, no mixing of styles and no
progressive growth, both of which serve images of many scales. No average of the generator's weights either,
and no truncation of styles: with a rate that falls to zero they gain too little (docs/log.md).

By a critic that sees one image at a time the drawings of a label become one, which those of `gan` do not. So
the critic here sees how much they differ. What that costs: a score hangs on the batch around it, which wants
several images of each label.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.zoo.adversarial import LEAK, Critic, Game
from models.zoo.generative import START

EPSILON = 1e-8
# A leaky rectifier halves the variance, nearly; this keeps it (Karras et al., 2020, in their code).
GAIN = 2**0.5


class StyledConvolution(nn.Module):
    """A convolution whose input channels a style scales, and noise on every pixel of what comes out.

    The style's effect on the size of the outputs is taken out again ("demodulation", Karras et al., 2020,
    arXiv:1912.04958, equations 1 and 3). Scaling inputs and outputs instead of each example's own weights is
    the same sum, and one convolution for the whole batch.
    """

    def __init__(self, style: int, before: int, after: int, doubled: bool) -> None:
        super().__init__()
        self.doubled = doubled
        self.style = nn.Linear(style, before)
        nn.init.kaiming_normal_(self.style.weight, nonlinearity="linear")
        nn.init.ones_(self.style.bias)
        self.convolution = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.strength = nn.Parameter(torch.zeros(after, 1, 1))
        self.bias = nn.Parameter(torch.zeros(after, 1, 1))

    def forward(self, features: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        """Features [batch or 1, before, side, side]; noise [batch, 1, side, side], of the outputs' side."""
        scale = self.style(style)
        scaled = features * scale[..., None, None]
        grown = F.interpolate(scaled, scale_factor=2.0) if self.doubled else scaled
        energy = scale.square() @ self.convolution.weight.square().sum((2, 3)).T
        sums = self.convolution(grown) * (energy + EPSILON).rsqrt()[..., None, None]
        return F.leaky_relu(sums + self.strength * noise + self.bias, LEAK) * GAIN


class Mapping(nn.Module):
    """A code [batch, width] and a label to a style [batch, width] (Karras et al., 2019, section 2).

    Its layers keep the code's size from the start on. By torch's own start each takes half of it away, and
    the game settles on one drawing a label before the code has any say.
    """

    def __init__(self, classes: int, width: int, depth: int) -> None:
        super().__init__()
        self.label = nn.Embedding(classes, width)
        sizes = (2 * width, *[width] * depth)
        pairs = ((nn.Linear(before, after), nn.LeakyReLU(LEAK)) for before, after in pairwise(sizes))
        self.layers = nn.Sequential(*(layer for pair in pairs for layer in pair))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, LEAK)

    def forward(self, code: Tensor, label: Tensor) -> Tensor:
        style: Tensor = self.layers(torch.cat([_even(code), _even(self.label(label))], 1))
        return style


class StyleGenerator(nn.Module):
    """A learned map of START x START pixels, drawn on by styled convolutions, each at twice the size.

    `code` [batch, length] is what the style is mapped from, and after it each layer's noise. Karras et al.,
    A style-based generator architecture for generative adversarial networks, 2019, arXiv:1812.04948.
    """

    def __init__(self, classes: int, style: int, depth: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.sides = [START * 2**level for level in range(len(widths))]
        self.parts = [style, *(side**2 for side in self.sides)]
        self.mapping = Mapping(classes, style, depth)
        self.start = nn.Parameter(torch.randn(1, widths[0], START, START))
        pairs = pairwise((widths[0], *widths))
        self.layers = nn.ModuleList(
            StyledConvolution(style, before, after, doubled=level > 0)
            for level, (before, after) in enumerate(pairs)
        )
        self.last = nn.Conv2d(widths[-1], 1, 1)

    @property
    def length(self) -> int:
        """How many numbers of noise go in."""
        return sum(self.parts)

    def forward(self, code: Tensor, label: Tensor) -> Tensor:
        first, *noises = torch.split(code, self.parts, 1)
        style, features = self.mapping(first, label), self.start
        for layer, noise, side in zip(self.layers, noises, self.sides, strict=True):
            features = layer(features, style, noise.view(-1, 1, side, side))
        image: Tensor = self.last(features).tanh()
        return image


class ComparingCritic(nn.Module):
    """`Critic`, whose score counts too how much each feature differs among the batch's images of the label.

    Karras et al. (2018, arXiv:1710.10196), section 3, give their critic one such figure for the whole batch.
    One figure, of the batch or of each label, is not enough here (docs/log.md).
    """

    def __init__(self, classes: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        *convolutions, head = Critic(classes, widths).layers
        assert isinstance(head, nn.Linear)
        self.features, self.head = nn.Sequential(*convolutions), head
        self.spread = nn.Linear(head.in_features, classes)

    def forward(self, images: Tensor, label: Tensor) -> Tensor:
        features = self.features(images)
        scores = self.head(features) + self.spread(spreads(features, label))
        asked: Tensor = scores.gather(1, label[:, None])[:, 0]
        return asked


def spreads(features: Tensor, label: Tensor) -> Tensor:
    """The standard deviation of each feature [batch, width] among the rows of the same label."""
    alike = (label[:, None] == label).to(features.dtype)
    shares = alike / alike.sum(1, keepdim=True)
    apart = features - shares @ features
    return (shares @ apart.square() + EPSILON).sqrt()


def _even(rows: Tensor) -> Tensor:
    """Rows whose numbers' mean square is one."""
    return rows * (rows.square().mean(1, keepdim=True) + EPSILON).rsqrt()


def stylegan(
    classes: int = 10,
    style: int = 32,
    depth: int = 3,
    widths: tuple[int, ...] = (64, 32, 16),
    seen: tuple[int, ...] = (32, 64),
) -> nn.Module:
    """`depth` layers map code to style; `widths` are the generator's channels, `seen` the critic's."""
    generator = StyleGenerator(classes, style, depth, widths)
    return Game(generator, ComparingCritic(classes, seen), generator.length)
