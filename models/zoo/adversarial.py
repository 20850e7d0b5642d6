"""Networks that learn to draw from a critic who learns to tell their drawings from real ones.

`gan` and `wgan-gp` are here, and the game that generators of other kinds play, too. Each takes noise float32
[batch, ...] and label int64 [batch] to an image float32 [batch, 1, 16, 16] in [-1, 1]; the critic is part of
the module and is not exported.

Both players learn from one loss in one step, rather than in turns. Its value is the critic's; the
generator's, for whom the critic stands still, is added to the gradient alone. What that costs: the critic
gets no more steps than the generator, and where it needs them, a higher rate instead (Heusel et al., 2017,
arXiv:1706.08500); and it takes a gradient penalty to keep the two from circling each other (Mescheder et al.,
2018, arXiv:1801.04406).
Neither keeps a state of its own in the critic (batch norm would), so that a critic that stands still can be
made of its parameters.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from models.training import Batch
from models.zoo.generative import SIDE, Painter

# Of the slopes below zero: Radford et al. (2015, arXiv:1511.06434), section 3.
LEAK = 0.2
# Of each kind of penalty: Gulrajani et al. (2017, arXiv:1704.00028), and Mescheder et al., section 4.
SLOPE_WEIGHT, FLATNESS_WEIGHT = 10.0, 1.0
# One real image in so many is asked for its slope, which costs a second pass backwards.
FLATNESS_SHARE = 4


class Game(nn.Module):
    """A generator (`code`, label) -> image, and a critic (image, label) -> score, [batch] each.

    `length` numbers of the noise are used. Conditional as by Mirza and Osindero (2014, arXiv:1411.1784): both
    players are told the label.
    """

    def __init__(self, generator: nn.Module, critic: nn.Module, length: int) -> None:
        super().__init__()
        self.generator, self.critic, self.length = generator, critic, length

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        image: Tensor = self.generator(noise.flatten(1)[:, : self.length], label)
        return image


class Labelled(nn.Module):
    """DCGAN's generator, whose code has the label beside it."""

    def __init__(self, classes: int, code: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.classes = classes
        self.painter = Painter(code + classes, widths)

    def forward(self, code: Tensor, label: Tensor) -> Tensor:
        image: Tensor = self.painter(torch.cat([code, F.one_hot(label, self.classes).to(code.dtype)], 1))
        return image


class Critic(nn.Module):
    """Convolutions that halve the image, then a score for each label, of which the one asked for counts.

    A label that is one input among many can be overlooked; one that picks the score cannot.
    """

    def __init__(self, classes: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise((1, *widths)):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(LEAK)]
        side = SIDE // 2 ** len(widths)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-1] * side**2, classes))

    def forward(self, images: Tensor, label: Tensor) -> Tensor:
        scores: Tensor = self.layers(images).gather(1, label[:, None])[:, 0]
        return scores


def adversarial_loss(module: nn.Module, batch: Batch) -> Tensor:
    """The critic's cross-entropy of real and drawn, and its flatness where images are real.

    The generator's is the non-saturating one (Goodfellow et al., 2014, arXiv:1406.2661, section 3).
    """
    assert isinstance(module, Game)
    images, label = batch["targets"], batch["label"]
    drawn = module(torch.randn_like(batch["noise"]), label)
    told_apart = F.softplus(module.critic(drawn.detach(), label)) + F.softplus(-module.critic(images, label))
    asked = len(images) // FLATNESS_SHARE or 1
    flatness = slopes(module.critic, images[:asked], label[:asked]).square().mean()
    loss = told_apart.mean() + FLATNESS_WEIGHT / 2 * flatness
    return _with_generator(loss, F.softplus(-_held_still(module.critic, drawn, label)).mean())


def wasserstein_loss(module: nn.Module, batch: Batch) -> Tensor:
    """How much higher the critic scores drawings than real images, and how far its slope between them is
    from one (Gulrajani et al., 2017, algorithm 1).
    """
    assert isinstance(module, Game)
    images, label = batch["targets"], batch["label"]
    drawn = module(torch.randn_like(batch["noise"]), label)
    fakes = drawn.detach().to(images.dtype)
    between = images.lerp(fakes, torch.rand(len(images), 1, 1, 1, device=images.device))
    steepness = (slopes(module.critic, between, label) - 1).square().mean()
    gap = module.critic(fakes, label) - module.critic(images, label)
    loss = gap.mean() + SLOPE_WEIGHT * steepness
    return _with_generator(loss, -_held_still(module.critic, drawn, label).mean())


def slopes(critic: nn.Module, images: Tensor, label: Tensor) -> Tensor:
    """The norm of each score's gradient by its image, [batch], to be learnt from."""
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(images, label).sum(), images, create_graph=True)
    steepness: Tensor = gradient.flatten(1).norm(dim=1)
    return steepness


def _held_still(critic: nn.Module, images: Tensor, label: Tensor) -> Tensor:
    """The scores of `images`, by a critic who learns nothing from them."""
    weights = {name: weight.detach() for name, weight in critic.named_parameters()}
    scores: Tensor = functional_call(critic, weights, (images, label))
    return scores


def _with_generator(critics: Tensor, generators: Tensor) -> Tensor:
    """The critic's loss, with the generator's gradient beside its own."""
    return critics + generators - generators.detach()


def gan(
    classes: int = 10, code: int = 32, widths: tuple[int, ...] = (64, 32), seen: tuple[int, ...] = (32, 64)
) -> nn.Module:
    """A conditional DCGAN; `widths` are the generator's channels, `seen` the critic's."""
    return Game(Labelled(classes, code, widths), Critic(classes, seen), code)
