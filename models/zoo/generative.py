"""Networks that draw digits: autoencoder, vae, diffusion.

The autoencoder takes pixel_values float32 [batch, 1, 32, 32] through a few numbers and back. The others take
noise float32 [batch, 1, 16, 16] and label int64 [batch] to an image float32 [batch, 1, 16, 16] in [-1, 1];
`diffusion` is one step (`runtime.drawing` has the loop). What only training needs (an encoder) is
part of the module and is not exported.
"""

from itertools import pairwise
from math import log, pi

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.training import Batch
from models.zoo.convolutional.layers import conv_norm

SIDE, START = 16, 4
# The weight of the code's divergence from a normal distribution, in squared errors summed over pixels.
DIVERGENCE_WEIGHT = 1.0
TIMESTEPS = 200
# As in `runtime.drawing.signal`.
OFFSET = 0.008


def _down(widths: tuple[int, ...]) -> nn.Sequential:
    """Each layer halves the image."""
    return nn.Sequential(*(conv_norm(a, b, stride=2) for a, b in pairwise((1, *widths))))


class Painter(nn.Module):
    """A code [batch, code] to an image: a small map that transposed convolutions double, until tanh.

    Shaped as the generator of DCGAN (Radford et al., 2015, arXiv:1511.06434).
    """

    def __init__(self, code: int, widths: tuple[int, ...], squash: bool = True) -> None:
        super().__init__()
        self.first = nn.Linear(code, widths[0] * START**2)
        layers: list[nn.Module] = [
            nn.Unflatten(1, (widths[0], START, START)),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        ]
        for wide, narrow in pairwise(widths):
            layers += [nn.ConvTranspose2d(wide, narrow, 4, 2, 1), nn.BatchNorm2d(narrow), nn.ReLU()]
        layers.append(nn.ConvTranspose2d(widths[-1], 1, 4, 2, 1))
        self.layers = nn.Sequential(*layers, *([nn.Tanh()] if squash else []))

    def forward(self, code: Tensor) -> Tensor:
        image: Tensor = self.layers(self.first(code))
        return image


class Autoencoder(nn.Module):
    """An image through `code` numbers and back (Hinton and Salakhutdinov, 2006)."""

    def __init__(self, code: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder = nn.Sequential(_down(widths), nn.Flatten(), nn.Linear(widths[-1] * START**2, code))
        self.decoder = Painter(code, widths[::-1], squash=False)

    def forward(self, pixel_values: Tensor) -> Tensor:
        image: Tensor = self.decoder(self.encoder(pixel_values))
        return image


class Variational(nn.Module):
    """A decoder of normal noise and a label, and the encoder it is trained with (Kingma and Welling)."""

    def __init__(self, classes: int, code: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.code, self.classes = code, classes
        self.features = nn.Sequential(_down(widths), nn.Flatten())
        self.posterior = nn.Linear(widths[-1] * START**2 + classes, 2 * code)
        self.decoder = Painter(code + classes, widths[::-1])

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        return self.decode(noise.flatten(1)[:, : self.code], label)

    def decode(self, code: Tensor, label: Tensor) -> Tensor:
        image: Tensor = self.decoder(torch.cat([code, F.one_hot(label, self.classes).float()], 1))
        return image

    def encode(self, images: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the code, [batch, code] each."""
        seen = torch.cat([self.features(images), F.one_hot(label, self.classes).float()], 1)
        mean, log_variance = self.posterior(seen).chunk(2, 1)
        return mean, log_variance


class Denoiser(nn.Module):
    """The velocity of a noisy image at a timestep (Ho et al., 2020, arXiv:2006.11239): residual convolutions
    on 8 x 8 cells of 2 x 2 pixels, told the time and the label.
    """

    def __init__(self, classes: int, width: int, blocks: int) -> None:
        super().__init__()
        self.width = width
        self.label = nn.Embedding(classes, width)
        self.time = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.first = nn.Conv2d(1, width, 4, 2, 1)
        self.blocks = nn.ModuleList(Residual(width) for _ in range(blocks))
        self.last = nn.Sequential(nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, 4, 3, padding=1))
        self.cells = nn.PixelShuffle(2)

    def forward(self, noise: Tensor, label: Tensor, timestep: Tensor) -> Tensor:
        told = self.time(waves(timestep, self.width)) + self.label(label)
        features = self.first(noise)
        for block in self.blocks:
            features = block(features, told)
        velocity: Tensor = self.cells(self.last(features))
        return velocity


class Residual(nn.Module):
    """Two convolutions beside the features; what is `told` shifts them in between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
        self.told = nn.Linear(width, width)
        self.after = nn.Sequential(nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, features: Tensor, told: Tensor) -> Tensor:
        shifted = self.before(features) + self.told(told)[..., None, None]
        result: Tensor = features + self.after(shifted)
        return result


def waves(timestep: Tensor, width: int) -> Tensor:
    """Sines and cosines of the time at falling frequencies, [batch, width]."""
    frequencies = torch.exp(torch.arange(width // 2, device=timestep.device) * (-log(1000.0) / (width // 2)))
    angles = timestep[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


def reconstruction_loss(module: nn.Module, batch: Batch) -> Tensor:
    """Mean squared error of the image that comes back."""
    return F.mse_loss(module(batch["pixel_values"]), batch["targets"])


def variational_loss(module: nn.Module, batch: Batch) -> Tensor:
    """Squared error and divergence of the code, summed an image: the negative evidence lower bound."""
    assert isinstance(module, Variational)
    images, label = batch["targets"], batch["label"]
    mean, log_variance = module.encode(images, label)
    code = mean + torch.randn_like(mean) * (log_variance / 2).exp()
    error = ((module.decode(code, label) - images) ** 2).sum()
    divergence = (mean**2 + log_variance.exp() - 1 - log_variance).sum() / 2
    return (error + DIVERGENCE_WEIGHT * divergence) / len(images)


def diffusion_loss(module: nn.Module, batch: Batch) -> Tensor:
    """Mean squared error of the velocity, each image at a random time."""
    images, noise = batch["targets"], torch.randn_like(batch["noise"])
    timestep = torch.randint(1, TIMESTEPS + 1, (len(images),), device=images.device)
    angle = (timestep / TIMESTEPS + OFFSET) / (1 + OFFSET) * pi / 2
    kept, lost = (part.view(-1, 1, 1, 1) for part in (angle.cos(), angle.sin()))
    velocity = module(kept * images + lost * noise, batch["label"], timestep)
    return F.mse_loss(velocity, kept * noise - lost * images)


def autoencoder(code: int = 24, widths: tuple[int, ...] = (16, 32, 48)) -> nn.Module:
    """`widths` are the channels of each layer, from the image on."""
    return Autoencoder(code, widths)


def vae(classes: int = 10, code: int = 12, widths: tuple[int, ...] = (32, 64)) -> nn.Module:
    """A conditional variational autoencoder; `code` of the noise's numbers are used."""
    return Variational(classes, code, widths)


def diffusion(classes: int = 10, width: int = 64, blocks: int = 3) -> nn.Module:
    """A conditional denoiser."""
    return Denoiser(classes, width, blocks)
