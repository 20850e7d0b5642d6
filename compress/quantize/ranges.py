"""The range of an activation that loses least in 8 bits: pure numpy, on a histogram of what was seen.

An observer by squared error (as in Choukroun et al., arXiv:1902.06822): the full range is shrunk at either
end for as long as the finer steps inside win more than clipping loses.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Histogram = npt.NDArray[Any]
Doubles = npt.NDArray[np.float64]

LEVELS = 256
# Ends tried, as fractions of the full range's; each end in turn, twice, since one moves the other's best.
FRACTIONS = np.linspace(1.0, 0.1, 91)
PASSES = 2


def best_range(counts: Histogram, edges: Histogram, low: float, high: float) -> tuple[float, float]:
    """The ends, within `low` and `high`, of least squared error; `counts` [bins] between `edges` [bins + 1].

    Zero stays inside: quantized graphs pad with it.
    """
    kept = counts > 0
    weight = counts[kept].astype(np.float64)
    values = ((edges[:-1] + edges[1:]) / 2)[kept].astype(np.float64)
    full = low, high = min(low, 0.0), max(high, 0.0)
    for _ in range(PASSES):
        high = min(FRACTIONS * full[1], key=lambda end: squared_error(values, weight, low, end))
        low = min(FRACTIONS * full[0], key=lambda end: squared_error(values, weight, end, high))
    return float(low), float(high)


def squared_error(values: Doubles, weight: Doubles, low: float, high: float) -> float:
    """Sum of `weight` [n] times the squared error of `values` [n] in 256 steps from `low` to `high`."""
    step = (high - low) / (LEVELS - 1)
    if step <= 0:
        return float((weight * values**2).sum())
    zero_point = np.round(-low / step)
    stored = np.clip(np.round(values / step) + zero_point, 0, LEVELS - 1)
    return float((weight * ((stored - zero_point) * step - values) ** 2).sum())
