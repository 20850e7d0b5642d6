"""Percentile bootstrap intervals (Efron, 1979), paired where two things are compared. Pure numpy."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from runtime.manifest import Interval

Rows = npt.NDArray[np.int64]

RESAMPLES = 1000


def interval(statistic: Callable[[Rows], float], examples: int, seed: int = 0) -> Interval:
    """The 95% interval of `statistic(rows)` over resamples of `examples` rows with replacement.

    Pairing is the caller's: a statistic that compares two systems looks both up at the same rows. Resamples
    where it is not a number are left out: of few rows, some show one value alone, which has no rank to go by.
    """
    rng = np.random.default_rng(seed)
    values = np.array([statistic(rng.integers(0, examples, examples)) for _ in range(RESAMPLES)])
    known = values[~np.isnan(values)]
    low, high = np.quantile(known, (0.025, 0.975)) if len(known) else (np.nan, np.nan)
    return Interval(low=float(low), high=float(high))
