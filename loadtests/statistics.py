"""Percentiles from raw samples, and how much a number of samples allows one to say about them.

Pure maths, no I/O, no histogram buckets. The bound is MLPerf LoadGen's early-stopping test
(`loadgen/early_stopping.cc` and `loadgen/results.cc` in mlcommons/inference; "Early Stopping Criterion" in
the MLPerf inference rules): if the true p-quantile lay above the t-th highest of n samples, at most t of
them being that slow would be a binomial event of probability P[Bin(n, 1 - p) <= t]; where that is at most 1
%, the t-th highest sample bounds the quantile from above at 99 % confidence. LoadGen computes it with an
incomplete beta function, one t at a time; here the binomial distribution function is summed once for all t,
which is exact and vectorises. Samples are taken as independent.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)

# LoadGen, results.cc, PerformanceSummary::EarlyStopping: `double confidence = 0.99`.
CONFIDENCE = 0.99


@dataclass(frozen=True, slots=True)
class Percentile:
    """An empirical percentile and its upper bound at 99 % confidence; neither with too few samples."""

    value: float | None
    samples: int
    upper_bound: float | None


@dataclass(frozen=True, slots=True)
class Distribution:
    """Samples in a few numbers, all in the samples' own unit. `percentiles` has the keys `p50` … `p99.9`."""

    samples: int
    mean: float
    min: float
    max: float
    percentiles: dict[str, Percentile]


def describe(samples: Sequence[float] | NDArray[np.float64]) -> Distribution | None:
    """The distribution of the samples; None when there are none."""
    if not len(samples):
        return None
    ascending = np.sort(np.asarray(samples, dtype=np.float64))
    return Distribution(
        samples=len(ascending),
        mean=float(ascending.mean()),
        min=float(ascending[0]),
        max=float(ascending[-1]),
        percentiles={label(percent): percentile(ascending, percent) for percent in PERCENTILES},
    )


def label(percent: float) -> str:
    """`p50`, `p99.9`."""
    return f"p{percent:g}"


def percentile(ascending: NDArray[np.float64], percent: float) -> Percentile:
    """The percentile of samples in ascending order, and its bound."""
    count = len(ascending)
    bound = bounding_rank(count, percent)
    if not bound:
        return Percentile(None, count, None)
    return Percentile(
        value=float(ascending[nearest_rank(count, percent) - 1]),
        samples=count,
        upper_bound=float(ascending[count - bound]),
    )


def nearest_rank(count: int, percent: float) -> int:
    """The smallest rank, from 1, with at least `percent` % of all samples at or below it."""
    return -(-count * round(percent * 10) // 1000)


def bounding_rank(count: int, percent: float) -> int:
    """The largest t with P[Bin(count, 1 - p) <= t] <= 1 - confidence; 0 when t = 1 is already too many.

    The t-th highest sample is the bound. LoadGen's reports "would discard" the t - 1 above it.
    """
    slow = 1 - percent / 100
    likely = _binomial_distribution(count, slow, upto=int(count * slow))
    return max(0, int(np.searchsorted(likely, 1 - CONFIDENCE, side="right")) - 1)


def tail(count: int, chance: float, least: int) -> float:
    """P[Bin(count, chance) >= least]."""
    if least <= 0:
        return 1.0
    return max(0.0, 1.0 - float(_binomial_distribution(count, chance, upto=least - 1)[-1]))


def samples_needed(percent: float) -> int:
    """The fewest samples for a bound: the smallest n with P[Bin(n, 1 - p) <= 1] <= 1 - confidence."""
    fast, slow = percent / 100, 1 - percent / 100

    def too_few(count: int) -> bool:
        return fast**count + count * slow * fast ** (count - 1) > 1 - CONFIDENCE

    high = 2
    while too_few(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if too_few(middle) else (low, middle)
    return high


def _binomial_distribution(count: int, chance: float, upto: int) -> NDArray[np.float64]:
    """P[Bin(count, chance) <= k] for k = 0 … upto; through logarithms, as the first terms may underflow."""
    k = np.arange(upto, dtype=np.float64)
    steps = np.log((count - k) / (k + 1)) + math.log(chance / (1 - chance))
    logarithms = count * math.log1p(-chance) + np.concatenate(([0.0], np.cumsum(steps)))
    return np.cumsum(np.exp(logarithms))
