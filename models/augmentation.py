"""Everything that changes training examples at random, in one place: `TrainingRecipe.augment` names these.

Each is a pure function of a batch, the number of classes and a generator, so that a run stays a function of
its seed and step. Only training batches pass through here; evaluation and serving never do.
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from models.training import Batch

Augmentation = Callable[[Batch, int, Generator], Batch]

# A handwritten digit stays itself within these: turns in radians, shifts and scales in parts of the image.
TURN, SHIFT, SCALE = 0.2, 0.12, 0.12
# Zhang et al. (2017), section 3.1, use 0.1 to 0.4; Yun et al. (2019) 1.
MIXUP_ALPHA, CUTMIX_ALPHA = 0.2, 1.0


def affine(batch: Batch, classes: int, generator: Generator) -> Batch:
    """Images [batch, channels, height, width] turned, shifted and scaled a little, each its own way."""
    images = batch["pixel_values"]
    random = torch.rand((len(images), 4), generator=generator) * 2 - 1
    angle, scale, shift = random[:, 0] * TURN, 1 + random[:, 1] * SCALE, random[:, 2:] * 2 * SHIFT
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    rows = torch.stack([cosine, -sine, shift[:, 0], sine, cosine, shift[:, 1]], 1).view(-1, 2, 3)
    grid = F.affine_grid(rows, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return batch | {"pixel_values": moved}


def mixup(batch: Batch, classes: int, generator: Generator) -> Batch:
    """Every image blended with another's, and the targets alike (Zhang et al., arXiv:1710.09412).

    Targets become probabilities, float32 [batch, classes].
    """
    images, targets = batch["pixel_values"], _probabilities(batch["targets"], classes)
    share, order = _beta(MIXUP_ALPHA, generator), torch.randperm(len(images), generator=generator)
    mixed = {
        "pixel_values": images.lerp(images[order], share),
        "targets": targets.lerp(targets[order], share),
    }
    return batch | mixed


def cutmix(batch: Batch, classes: int, generator: Generator) -> Batch:
    """A box of every image replaced by another's, and targets by its area (Yun et al., arXiv:1905.04899).

    Targets become probabilities, float32 [batch, classes].
    """
    images, targets = batch["pixel_values"].clone(), _probabilities(batch["targets"], classes)
    order, side = torch.randperm(len(images), generator=generator), _beta(CUTMIX_ALPHA, generator) ** 0.5
    height, width = images.shape[2:]
    tall, wide = round(height * side), round(width * side)
    top = int(torch.randint(height - tall + 1, (), generator=generator))
    left = int(torch.randint(width - wide + 1, (), generator=generator))
    box = (..., slice(top, top + tall), slice(left, left + wide))
    images[box] = batch["pixel_values"][order][box]
    share = tall * wide / (height * width)
    return batch | {"pixel_values": images, "targets": targets.lerp(targets[order], share)}


AUGMENTATIONS: Mapping[str, Augmentation] = {"affine": affine, "mixup": mixup, "cutmix": cutmix}


def _probabilities(targets: Tensor, classes: int) -> Tensor:
    return targets if targets.is_floating_point() else F.one_hot(targets, classes).float()


def _beta(alpha: float, generator: Generator) -> float:
    """A draw from Beta(alpha, alpha), by two Gamma draws of the generator's own."""
    first, second = torch._standard_gamma(torch.full((2,), alpha), generator=generator).tolist()
    return float(first / max(first + second, 1e-12))
