"""Half-quadratic quantization (Badri & Shaji, "Half-Quadratic Quantization of Large ML Models", 2023).

Pure numpy, no data. A group's integers are chosen to minimise sum |w - (q - z) s|^p with p < 1, which
forgives the few outliers and is exact about the many small weights, where least squares does the opposite. An
auxiliary error e splits it in two, solved in turn: e by shrinkage, the grid by least squares to w - e.

Two departures from the paper, both because the kernels store whole zero points: the update is rounded, and
the scale is updated beside it. With a fixed scale the rounded zero point never leaves where it started.
"""

from dataclasses import dataclass

import numpy as np

from compress.quantize.blockwise import Blocks, Floats, in_groups, quantize_blocks

# The paper's norm and growth of beta. Its beta of 10 is for its own units; in those used here (each group's
# largest weight is 1) 100 was the best of 1, 10, 100 and 1000 on Gaussian and on heavy-tailed weights.
NORM = 0.7
BETA = 100.0
GROWTH = 1.01
ITERATIONS = 20
TINY = float(np.finfo(np.float32).tiny)


def quantize_hqq(weight: Floats, bits: int, group_size: int) -> Blocks:
    """Quantize `weight` float32 [out, in] to `bits` (4 or 8), never worse in `lp_error` than where it starts:
    the searched round-to-nearest of `quantize_blocks`."""
    start = quantize_blocks(weight, bits, group_size)
    groups = in_groups(weight, group_size)
    unit = np.maximum(np.abs(groups).max(-1, keepdims=True), TINY)
    target = groups / unit
    best = grid = _start(start, unit, target)
    beta = BETA
    for _ in range(ITERATIONS):
        error = shrink(target - grid.dequantize(), beta)
        grid = _update(grid, target, target - error, 2**bits - 1)
        best = _better(best, grid, target)
        beta *= GROWTH
    scales = (best.scales * unit)[..., 0].astype(np.float32)
    zero_points = best.zero_points[..., 0].astype(np.uint8)
    return Blocks(best.values.astype(np.uint8), scales, zero_points, bits, start.shape)


def shrink(values: Floats, beta: float) -> Floats:
    """The generalised soft threshold: argmin over e of |e|^p / p + beta/2 (e - value)^2,
    for p < 1 to first order (Badri & Shaji; with p = 1 it is the soft threshold itself)."""
    size = np.abs(values)
    threshold = np.maximum(size, TINY) ** np.float32(NORM - 1) / np.float32(beta)
    return np.asarray(np.sign(values) * np.maximum(size - threshold, 0), np.float32)


def lp_error(difference: Floats) -> Floats:
    """The objective: sum |difference|^p over the last axis."""
    return np.asarray((np.abs(difference) ** np.float32(NORM)).sum(-1), np.float32)


@dataclass(frozen=True, slots=True)
class _Grid:
    """Integers (held as float32) [out, groups, group_size], scales and zero points [out, groups, 1]."""

    values: Floats
    scales: Floats
    zero_points: Floats

    def dequantize(self) -> Floats:
        return (self.values - self.zero_points) * self.scales


def _start(blocks: Blocks, unit: Floats, target: Floats) -> _Grid:
    zero_points = blocks.zero_points[..., None].astype(np.float32)
    scales = np.maximum(blocks.scales[..., None] / unit, TINY)
    return _rounded(target, scales, zero_points, 2**blocks.bits - 1)


def _update(grid: _Grid, target: Floats, wanted: Floats, top: int) -> _Grid:
    """The grid that brings the present integers nearest to `wanted`, and the integers on that grid."""
    shifted = (grid.values - wanted / grid.scales).mean(-1, keepdims=True)
    zero_points = np.clip(np.round(shifted), 0, top)
    centred = grid.values - zero_points
    power = (centred * centred).sum(-1, keepdims=True)
    fitted = (centred * wanted).sum(-1, keepdims=True) / np.maximum(power, TINY)
    # A group of zeros fits no scale, and a negative one would turn the grid around: keep the last.
    scales = np.where(fitted > TINY, fitted, grid.scales).astype(np.float32)
    return _rounded(target, scales, zero_points, top)


def _rounded(target: Floats, scales: Floats, zero_points: Floats, top: int) -> _Grid:
    values = np.clip(np.round(target / scales) + zero_points, 0, top)
    return _Grid(values.astype(np.float32), scales, zero_points.astype(np.float32))


def _better(one: _Grid, other: _Grid, target: Floats) -> _Grid:
    """For each group, whichever has the smaller objective."""
    errors = [lp_error(target - grid.dequantize()) for grid in (one, other)]
    take = (errors[1] < errors[0])[..., None]
    return _Grid(
        np.where(take, other.values, one.values),
        np.where(take, other.scales, one.scales),
        np.where(take, other.zero_points, one.zero_points),
    )
