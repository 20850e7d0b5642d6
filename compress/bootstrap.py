"""Percentile bootstrap intervals (Efron, 1979), paired where two things are compared. Pure numpy."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from runtime.manifest import Interval

Rows = npt.NDArray[np.int64]

RESAMPLES = 1000


def interval(statistic: Callable[[Rows], float], examples: int, seed: int = 0) -> Interval:
    """The 95% interval of `statistic(rows)` over resamples of `examples` rows with replacement.

    Pairing is the caller's: a statistic that compares two systems looks both up at the same rows.
    """
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(0, examples, examples)) for _ in range(RESAMPLES)]
    low, high = np.quantile(np.array(values), (0.025, 0.975))
    return Interval(low=float(low), high=float(high))
