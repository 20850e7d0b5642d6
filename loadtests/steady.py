"""Where a run settles: how much of its beginning a server's warm-up spoils.

MSER-5 (White, "An effective truncation heuristic for bias reduction in simulation output", Simulation 69(6),
1997; batches of five after White, Cobb and Spratt, WSC 2000): leave out so many of the first batch means that
the standard error of the mean of the rest is smallest. Where that would be more than half of them, the run
has not settled: with open arrivals, the sign of a server that falls further and further behind.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BATCH = 5

# Fewer batches than this say nothing about a trend.
FEWEST = 20


@dataclass(frozen=True, slots=True)
class Steady:
    """Milliseconds after the start of the plan at which it had settled; None if it never did."""

    from_ms: float | None


def find(planned_ms: NDArray[np.float64], values: NDArray[np.float64]) -> Steady | None:
    """`values` in planned order; None for too few of them."""
    batches = len(values) // BATCH
    if batches < FEWEST:
        return None
    means = values[: batches * BATCH].reshape(batches, BATCH).mean(axis=1)
    left_out = truncation(means)
    settled = left_out < batches // 2
    return Steady(float(planned_ms[left_out * BATCH]) if settled else None)


def truncation(means: NDArray[np.float64]) -> int:
    """How many of the first values to leave out: the first minimum over at most half of them."""
    left = np.arange(len(means), 0, -1)
    # Sums of what is left after leaving out 0, 1, … of them.
    sums, squares = (np.cumsum(values[::-1])[::-1] for values in (means, means**2))
    spread = np.maximum(squares - sums**2 / left, 0.0) / left**2
    return int(np.argmin(spread[: len(means) // 2 + 1]))
