"""What decides the scales while a network trains: learned ones, and ones that follow what is seen.

Each takes a float32 tensor and gives it back rounded, with gradients; `grid` says with what. A learned scale
is held as its binary logarithm, unlike LSQ's: AdamW moves every parameter by about the rate, which is nothing
to a weight and doubles a scale of a thousandth.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from compress.qat.rounding import (
    ACTIVATION,
    Levels,
    affine_range,
    fake_quantize,
    scale_gradient,
    symmetric_scale,
)

Ranges = Literal["learned", "moving-average"]

# How far a range moves towards each batch's (torch.ao's averaging observer has the same).
AVERAGING = 0.01


class ActivationQuantizer(nn.Module):
    """One scale and one zero point for a whole tensor, 8 bits.

    Until `start` it only watches. Afterwards the range follows the data, or the scale is a parameter while
    the zero point stays: what is zero, such as padding and what ReLU cut, must stay exactly zero.
    """

    low: Tensor
    high: Tensor
    zero_point: Tensor

    def __init__(self, ranges: Ranges) -> None:
        super().__init__()
        self.ranges, self.watching = ranges, True
        self.register_buffer("low", torch.zeros(()))
        self.register_buffer("high", torch.zeros(()))
        self.register_buffer("zero_point", torch.zeros(()))
        self.log2_scale = nn.Parameter(torch.zeros(()), requires_grad=ranges == "learned")

    def start(self) -> None:
        """From watching to rounding."""
        self.watching = False
        scale, zero_point = affine_range(self.low, self.high)
        self.log2_scale.data.copy_(torch.log2(scale))
        self.zero_point.copy_(zero_point)

    def has_seen(self) -> bool:
        """Whether anything but zeros came by."""
        return bool(self.high > self.low)

    def grid(self) -> tuple[Tensor, Tensor]:
        """The scale and the zero point, both scalars."""
        if self.ranges == "learned":
            return torch.exp2(self.log2_scale), self.zero_point
        return affine_range(self.low, self.high)

    def forward(self, x: Tensor) -> Tensor:
        x = x.float()
        if self.watching:
            self._widen(x.detach())
            return x
        if self.ranges == "learned":
            scale = torch.exp2(scale_gradient(self.log2_scale, x[0].numel(), ACTIVATION))
            return fake_quantize(x, scale, self.zero_point, ACTIVATION)
        if self.training:
            self._follow(x.detach())
        return fake_quantize(x, *self.grid(), ACTIVATION)

    def _widen(self, x: Tensor) -> None:
        self.low.copy_(torch.minimum(self.low, x.min()))
        self.high.copy_(torch.maximum(self.high, x.max()))

    def _follow(self, x: Tensor) -> None:
        self.low.lerp_(x.min(), AVERAGING)
        self.high.lerp_(x.max(), AVERAGING)


class WeightQuantizer(nn.Module):
    """One scale an output, zero at zero; learned, or from the largest weight of the moment."""

    def __init__(self, weight: Tensor, ranges: Ranges, levels: Levels) -> None:
        super().__init__()
        self.ranges, self.levels = ranges, levels
        start = torch.log2(symmetric_scale(weight, levels))
        self.log2_scale = nn.Parameter(start, requires_grad=ranges == "learned")

    def grid(self, weight: Tensor) -> Tensor:
        """The scales [out, 1, ...] of `weight` [out, in, ...]."""
        if self.ranges == "learned":
            return torch.exp2(self.log2_scale)
        return symmetric_scale(weight, self.levels)

    def forward(self, weight: Tensor) -> Tensor:
        scale = scale_gradient(self.grid(weight), weight[0].numel(), self.levels)
        return fake_quantize(weight, scale, torch.zeros_like(scale), self.levels)
