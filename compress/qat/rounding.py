"""Rounding with a gradient: the arithmetic of quantization-aware training, pure tensor functions.

Forward is ONNX's QuantizeLinear and DequantizeLinear to the bit: round half to even of x / scale, plus the
zero point, clamped. Backward is that of LSQ (Esser et al., arXiv:1902.08153, equations 2 to 4): straight
through inside the range, nothing outside, and a gradient for the scale too.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True)
class Levels:
    """The integers there are, both ends included."""

    low: int
    high: int


ACTIVATION = Levels(0, 255)
BIAS = Levels(-(2**31), 2**31 - 128)  # the largest float32 below 2^31
ZERO = torch.zeros(())


def weight_levels(reduce_range: bool) -> Levels:
    """Symmetric; 7 bits where the kernels' 16-bit accumulators must not saturate."""
    return Levels(-63, 63) if reduce_range else Levels(-127, 127)


def codes(x: Tensor, scale: Tensor, zero_point: Tensor, levels: Levels) -> Tensor:
    """QuantizeLinear: integers held in float32; `scale` and `zero_point` broadcast to `x`."""
    return torch.clamp(torch.round(x / scale) + zero_point, levels.low, levels.high)


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, levels: Levels) -> Tensor:
    """x as it comes back from integers: gradients reach `x` where it is inside the range, and `scale`."""
    rounded: Tensor = _FakeQuantize.apply(x, scale, zero_point, levels)  # type: ignore[no-untyped-call]
    return rounded


def scale_gradient(scale: Tensor, elements: int, levels: Levels) -> Tensor:
    """`scale` itself, whose gradient shrinks by 1 / sqrt(elements * highest level) (LSQ, section 2.2).

    A scale gathers the gradients of all that it serves, and would drown theirs where the norm is clipped.
    """
    factor, same = 1 / math.sqrt(elements * levels.high), scale.clone()
    if same.requires_grad:
        same.register_hook(lambda gradient: gradient * factor)  # type: ignore[no-untyped-call]
    return same


def affine_range(low: Tensor, high: Tensor, levels: Levels = ACTIVATION) -> tuple[Tensor, Tensor]:
    """Scale and zero point that cover `low` to `high`, and zero: quantized graphs pad with it."""
    low, high = torch.clamp(low, max=0.0), torch.clamp(high, min=0.0)
    scale = torch.clamp((high - low) / (levels.high - levels.low), min=TINY)
    zero_point = torch.clamp(torch.round(levels.low - low / scale), levels.low, levels.high)
    return scale, zero_point


def symmetric_scale(weight: Tensor, levels: Levels) -> Tensor:
    """One scale an output, [out, 1, ...]: the largest of its weights [out, in, ...] is at the last level."""
    peaks = weight.detach().abs().amax(tuple(range(1, weight.ndim)), keepdim=True)
    return torch.clamp(peaks / levels.high, min=TINY)


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, x: Tensor, scale: Tensor, zero_point: Tensor, levels: Levels
    ) -> Tensor:
        ctx.save_for_backward(x, scale, zero_point)
        ctx.levels = levels  # type: ignore[attr-defined]
        return (codes(x, scale, zero_point, levels) - zero_point) * scale

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, gradient: Tensor
    ) -> tuple[Tensor, Tensor, None, None]:
        x, scale, zero_point = ctx.saved_tensors  # type: ignore[attr-defined]
        levels: Levels = ctx.levels  # type: ignore[attr-defined]
        steps = x / scale
        low, high = levels.low - zero_point, levels.high - zero_point
        inside = (torch.round(steps) >= low) & (torch.round(steps) <= high)
        by_scale = torch.where(inside, torch.round(steps) - steps, torch.clamp(torch.round(steps), low, high))
        return gradient * inside, (gradient * by_scale).sum_to_size(scale.shape), None, None
