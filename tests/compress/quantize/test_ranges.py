import numpy as np
import pytest

from compress.quantize.ranges import best_range, squared_error


def histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
    counts, edges = np.histogram(values, 2048)
    return counts, edges, float(values.min()), float(values.max())


def error(values: np.ndarray, low: float, high: float) -> float:
    return squared_error(values.astype(np.float64), np.ones(len(values)), low, high)


def test_an_outlier_is_clipped_and_the_error_falls() -> None:
    count, outlier = 1_000_000, 60.0
    values = np.append(np.random.default_rng(0).standard_normal(count), [outlier])
    low, high = best_range(*histogram(values))
    # Least of count * (high - low)^2 / (12 * 255^2) + (outlier - high)^2: rounding, and clipping the one.
    share = count / (12 * 255**2)
    assert high == pytest.approx((outlier + share * low) / (1 + share), rel=0.1)
    assert error(values, low, high) < 0.7 * error(values, values.min(), outlier)


def test_it_is_near_the_best_of_every_pair_of_ends() -> None:
    values = np.random.default_rng(0).standard_t(3, 5_000)
    ends = np.linspace(0.1, 1, 40)
    best = min(error(values, a * values.min(), b * values.max()) for a in ends for b in ends)
    assert error(values, *best_range(*histogram(values))) < 1.05 * best


def test_a_uniform_spread_keeps_its_whole_range_and_zero_stays_inside() -> None:
    values = np.random.default_rng(0).uniform(2, 4, 10_000)
    low, high = best_range(*histogram(values))
    assert low == 0
    assert high == pytest.approx(4, rel=0.02)
    assert best_range(*histogram(np.zeros(10))) == (0, 0)
