"""Group-wise weight quantization: pure numpy, no graph and no file.

Each row of a weight [out, in] is cut into groups of `group_size` along the input axis; a group is stored as
unsigned integers with one scale and one zero point: `weight ~ (q - zero_point) * scale`. The range is not the
plain minimum and maximum but the shrunk one with the least squared error, found over a small grid: clipping
an outlier often costs less than the resolution it takes from the others.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

# Ranges tried, as fractions of the full one. Below 0.7 no weight of the models measured here chose any.
SHRINKS = np.linspace(1.0, 0.7, 13, dtype=np.float32)

# Weights are quantized some rows at a time: so many values, and what is made of them, stay in the caches.
PIECE = 1 << 17

# 8 bits, zero in the middle.
CENTRED_TOP = 127


@dataclass(frozen=True, slots=True)
class Blocks:
    """A quantized weight: `values` [out, groups, group_size], `scales` and `zero_points` [out, groups]."""

    values: Bytes
    scales: Floats
    zero_points: Bytes
    bits: int
    shape: tuple[int, int]

    def dequantize(self) -> Floats:
        """The weight that these integers stand for, float32 [out, in]."""
        centred = self.values.astype(np.float32) - self.zero_points[..., None].astype(np.float32)
        return (centred * self.scales[..., None]).reshape(len(self.values), -1)[:, : self.shape[1]]


def quantize_blocks(weight: Floats, bits: int, group_size: int) -> Blocks:
    """Quantize `weight` float32 [out, in] to `bits` (4 or 8); the input axis is padded to whole groups."""
    rows = max(1, PIECE // weight.shape[1])
    starts = range(0, len(weight), rows)
    found = [_search(in_groups(weight[at : at + rows], group_size), bits) for at in starts]
    values, scales, zero_points = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Blocks(values, scales, zero_points, bits, (weight.shape[0], weight.shape[1]))


def quantize_rows(weight: Floats) -> Blocks:
    """Quantize `weight` float32 [rows, width] to 8 bits with one scale a row, zero in the middle.

    The group is the least that the kernels take and a row fits in: 16 times a power of two.
    """
    group_size = max(16, 1 << (weight.shape[1] - 1).bit_length())
    groups = in_groups(weight, group_size)
    scales = np.maximum(np.abs(groups).max(-1) / CENTRED_TOP, np.finfo(np.float32).tiny).astype(np.float32)
    centre = np.full(scales.shape, 1 << 7, np.uint8)
    values = (np.round(groups / scales[..., None]) + centre[..., None]).astype(np.uint8)
    return Blocks(values, scales, centre, 8, (weight.shape[0], weight.shape[1]))


def stored_bits(shape: tuple[int, ...], bits: int, group_size: int) -> int:
    """What a weight [out, in] takes: padded values, and a float32 scale and a zero point a group."""
    groups = shape[0] * -(-shape[1] // group_size)
    return groups * (group_size * bits + 32 + bits)


def is_centred(blocks: Blocks) -> bool:
    """Whether every zero point is the middle one, which the kernels take for granted without any."""
    return bool((blocks.zero_points == 1 << (blocks.bits - 1)).all())


def in_groups(weight: Floats, group_size: int) -> Floats:
    """`weight` [out, in] as [out, groups, group_size], zeros after its last input."""
    padded = np.pad(weight, ((0, 0), (0, -weight.shape[1] % group_size)))
    return padded.reshape(len(weight), -1, group_size)


def pack(blocks: Blocks) -> Bytes:
    """Values as the kernels read them, uint8 [out, groups, group_size * bits / 8]; two 4-bit values a byte,
    the first in the low half (onnxruntime contrib operators, MatMulNBits)."""
    return _pack_nibbles(blocks.values) if blocks.bits == 4 else blocks.values


def pack_zero_points(blocks: Blocks) -> Bytes:
    """Zero points as the kernels read them, uint8 [out, ceil(groups * bits / 8)]."""
    if blocks.bits == 8:
        return blocks.zero_points
    odd = blocks.zero_points.shape[1] % 2
    return _pack_nibbles(np.pad(blocks.zero_points, ((0, 0), (0, odd))))


_Rounded = tuple[Bytes, Floats, Bytes, Floats]


def _search(groups: Floats, bits: int) -> tuple[Bytes, Floats, Bytes]:
    """Values, scales and zero points of the best of the ranges tried."""
    best = _round(groups, bits, SHRINKS[0])
    for shrink in SHRINKS[1:]:
        best = _better(best, _round(groups, bits, shrink))
    return best[:3]


def _round(groups: Floats, bits: int, shrink: float) -> _Rounded:
    """Round to nearest in a range shrunk by `shrink`: values, scales, zero points and squared error."""
    top = 2**bits - 1
    # Zero must stay representable: it is the padding, and pruned weights.
    low = np.minimum(groups.min(-1, keepdims=True), 0) * shrink
    high = np.maximum(groups.max(-1, keepdims=True), 0) * shrink
    scales = np.maximum((high - low) / top, np.finfo(np.float32).tiny).astype(np.float32)
    zero_points = np.clip(np.round(-low / scales), 0, top)
    values = np.clip(np.round(groups / scales) + zero_points, 0, top)
    error = (((values - zero_points) * scales - groups) ** 2).sum(-1)
    return values.astype(np.uint8), scales[..., 0], zero_points[..., 0].astype(np.uint8), error


def _better(one: _Rounded, other: _Rounded) -> _Rounded:
    """For each group, whichever has the smaller error."""
    take = other[3] < one[3]
    return (
        np.where(take[..., None], other[0], one[0]),
        np.where(take, other[1], one[1]),
        np.where(take, other[2], one[2]),
        np.where(take, other[3], one[3]),
    )


def _pack_nibbles(values: Bytes) -> Bytes:
    return (values[..., 0::2] | (values[..., 1::2] << 4)).astype(np.uint8)
