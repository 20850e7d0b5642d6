import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests import arrivals

rates = st.floats(0.1, 2000)
durations = st.floats(0.01, 5)
seeds = st.integers(0, 2**32)


def draw(rate, duration, seed):
    return arrivals.poisson(rate, duration, np.random.default_rng(seed))


@given(rates, durations, seeds)
def test_poisson_times_ascend_within_the_duration_and_follow_the_seed(rate, duration, seed):
    times = draw(rate, duration, seed)
    assert np.all(np.diff(times) >= 0)
    assert np.all((times >= 0) & (times < duration))
    assert np.array_equal(times, draw(rate, duration, seed))


@given(rates, durations, seeds)
def test_a_longer_run_continues_the_shorter_one(rate, duration, seed):
    short, long = draw(rate, duration, seed), draw(rate, 2 * duration, seed)
    assert np.array_equal(short, long[: len(short)])


@given(rates, durations, seeds)
def test_twice_the_rate_is_the_same_draw_in_half_the_time(rate, duration, seed):
    slow, fast = draw(rate, duration, seed), draw(2 * rate, duration / 2, seed)
    np.testing.assert_allclose(slow, 2 * fast)


def test_gaps_have_the_mean_and_variance_of_the_exponential_distribution():
    gaps = np.diff(draw(rate=50, duration=4000, seed=1))
    assert len(gaps) == pytest.approx(200_000, rel=0.01)
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.01)
    assert gaps.var() == pytest.approx(1 / 50**2, rel=0.03)


def test_counts_per_second_are_as_variable_as_they_are_many():
    counts = np.bincount(draw(rate=50, duration=4000, seed=2).astype(int))
    assert counts.mean() == pytest.approx(50, rel=0.02)
    assert counts.var() == pytest.approx(50, rel=0.1)


@given(rates, durations)
def test_constant_times_are_evenly_spaced_from_zero_to_the_end(rate, duration):
    times = arrivals.constant(rate, duration)
    assert times[0] == 0
    assert times[-1] < duration <= times[-1] + 1 / rate + 1e-9
    np.testing.assert_allclose(np.diff(times), 1 / rate)
