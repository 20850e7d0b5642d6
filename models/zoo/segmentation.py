"""Networks that name every pixel: fcn, unet, deeplab.

pixel_values float32 [batch, 1, 64, 64] to logits float32 [batch, 64, 64, classes]. Classes come last, as
everywhere in this project, so that the losses of training and distillation need no case of their own.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.zoo.convolutional.layers import conv_norm


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(conv_norm(inputs, outputs), conv_norm(outputs, outputs))


def _classes_last(logits: Tensor) -> Tensor:
    return logits.permute(0, 2, 3, 1)


def _enlarged(features: Tensor, factor: int) -> Tensor:
    return F.interpolate(features, scale_factor=float(factor), mode="bilinear", align_corners=False)


class UNet(nn.Module):
    """Down by pooling, up by transposed convolution, each level joined to its counterpart on the way down.

    Ronneberger et al. (2015, arXiv:1505.04597), with padded convolutions and batch norm.
    """

    def __init__(self, classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.first = _double(1, widths[0])
        self.down = nn.ModuleList(_double(narrow, wide) for narrow, wide in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(wide, narrow, 2, 2) for narrow, wide in reversed(pairs))
        self.join = nn.ModuleList(_double(2 * narrow, narrow) for narrow, _ in reversed(pairs))
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, pixel_values: Tensor) -> Tensor:
        features = self.first(pixel_values)
        skipped = []
        for block in self.down:
            skipped.append(features)
            features = block(F.max_pool2d(features, 2))
        for grow, join in zip(self.up, self.join, strict=True):
            features = join(torch.cat([skipped.pop(), grow(features)], 1))
        return _classes_last(self.head(features))


class FullyConvolutional(nn.Module):
    """A classifier's stages, each with class scores; coarse scores are enlarged and added to finer ones.

    Long et al. (2014, arXiv:1411.4038): the skips of FCN-8s, at strides 2, 4 and 8.
    """

    def __init__(self, classes: int, widths: Sequence[int]) -> None:
        super().__init__()
        inputs = (1, *widths[:-1])
        self.stages = nn.ModuleList(_double(a, b) for a, b in zip(inputs, widths, strict=True))
        self.scores = nn.ModuleList(nn.Conv2d(width, classes, 1) for width in widths)

    def forward(self, pixel_values: Tensor) -> Tensor:
        features, scores = pixel_values, []
        for stage, score in zip(self.stages, self.scores, strict=True):
            features = F.max_pool2d(stage(features), 2)
            scores.append(score(features))
        total = scores.pop()
        while scores:
            total = _enlarged(total, 2) + scores.pop()
        return _classes_last(_enlarged(total, 2))


class AtrousPyramid(nn.Module):
    """ASPP: parallel 3 x 3 convolutions of several dilations, a 1 x 1, and the image's mean, concatenated."""

    def __init__(self, inputs: int, outputs: int, rates: Sequence[int]) -> None:
        super().__init__()
        self.point = conv_norm(inputs, outputs, 1)
        self.atrous = nn.ModuleList(_dilated(inputs, outputs, rate) for rate in rates)
        self.image = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, outputs, 1), nn.ReLU())
        self.project = conv_norm(outputs * (len(rates) + 2), outputs, 1)

    def forward(self, features: Tensor) -> Tensor:
        image = self.image(features).expand(-1, -1, features.shape[2], features.shape[3])
        seen = [self.point(features), *(layer(features) for layer in self.atrous), image]
        result: Tensor = self.project(torch.cat(seen, 1))
        return result


class DeepLab(nn.Module):
    """DeepLabv3+ (Chen et al., 2018, arXiv:1802.02611): atrous stages, ASPP, a skip from fine features.

    The stride never exceeds 4, where the paper's is 16: the scenes are small.
    """

    def __init__(self, classes: int, widths: Sequence[int], rates: Sequence[int]) -> None:
        super().__init__()
        fine, middle, wide = widths
        self.fine = nn.Sequential(conv_norm(1, fine), conv_norm(fine, fine, stride=2))
        self.coarse = nn.Sequential(
            conv_norm(fine, middle, stride=2), conv_norm(middle, middle), _dilated(middle, wide, 2)
        )
        self.pyramid = AtrousPyramid(wide, wide, rates)
        self.join = conv_norm(wide + fine, wide)
        self.head = nn.Conv2d(wide, classes, 1)

    def forward(self, pixel_values: Tensor) -> Tensor:
        fine = self.fine(pixel_values)
        context = _enlarged(self.pyramid(self.coarse(fine)), 2)
        logits = self.head(self.join(torch.cat([context, fine], 1)))
        return _classes_last(_enlarged(logits, 2))


def _dilated(inputs: int, outputs: int, rate: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=rate, dilation=rate, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def unet(classes: int = 11, widths: Sequence[int] = (12, 24, 48)) -> nn.Module:
    """A U-Net; `widths` are the channels of each level."""
    return UNet(classes, widths)


def fcn(classes: int = 11, widths: Sequence[int] = (16, 32, 64)) -> nn.Module:
    """A fully convolutional network; `widths` are the channels of each stage."""
    return FullyConvolutional(classes, widths)


def deeplab(
    classes: int = 11, widths: Sequence[int] = (16, 32, 48), rates: Sequence[int] = (2, 4, 6)
) -> nn.Module:
    """A DeepLab; `rates` are the dilations of its pyramid."""
    return DeepLab(classes, widths, rates)
