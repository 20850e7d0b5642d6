"""Scales of an int8 cache: one for each channel of a head, from what calibration showed. Pure numpy.

Symmetric, as the operator stores it: q = round(x / s) in [-128, 127]. Keys have a few channels that are large
everywhere (Liu et al., KIVI, arXiv:2402.02750), so a scale a channel costs the others nothing. The trade-off:
the scales are fixed, and what is larger than they allow is clipped.
"""

import numpy as np

from compress.quantize.blockwise import Floats
from runtime.processing import Array

LARGEST = 127


def cache_peaks(values: Array) -> Floats:
    """Peaks by channel, float32 [heads, head_dim], of `values` [batch, heads, tokens, head_dim]."""
    return np.asarray(np.abs(values).max((0, 2)), np.float32)


def cache_scales(peaks: Floats, margin: float) -> Floats:
    """Scales float32, shaped as `peaks`, that reach `margin` times as far. A channel of zeros gets 1."""
    return np.asarray(np.where(peaks > 0, peaks * margin / LARGEST, 1.0), np.float32)


def clipped_share(values: Array, scales: Floats) -> float:
    """The share of `values` [batch, heads, tokens, head_dim] that `scales` [heads, head_dim] do not reach."""
    return float((np.abs(values) > scales[None, :, None] * LARGEST).mean())
