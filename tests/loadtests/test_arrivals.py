import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests import arrivals
from loadtests.arrivals import Stage

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


def gamma_gaps(cv):
    return np.diff(arrivals.gamma(50, 4000, cv, np.random.default_rng(3)))


@pytest.mark.parametrize("cv", [0.5, 1.0, 3.0])
def test_gamma_gaps_have_the_wanted_mean_and_variation(cv):
    gaps = gamma_gaps(cv)
    assert gaps.mean() == pytest.approx(1 / 50, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)


def test_a_variation_of_one_is_a_poisson_process():
    assert np.array_equal(
        arrivals.gamma(30, 5, 1.0, np.random.default_rng(4)), draw(rate=30, duration=5, seed=4)
    )


stages = st.lists(
    st.builds(Stage, st.floats(0.1, 5), st.floats(0, 200), st.floats(0, 200)), min_size=1, max_size=5
)


@given(stages, st.sampled_from([0.0, 1.0, 2.0]), seeds)
def test_times_through_stages_ascend_within_their_whole_length(chosen, cv, seed):
    times = arrivals.staged(chosen, cv, np.random.default_rng(seed))
    assert np.all(np.diff(times) >= 0)
    assert np.all((times >= 0) & (times < sum(stage.duration for stage in chosen)))


@given(stages)
def test_every_stage_gets_the_requests_that_its_rates_make(chosen):
    times = arrivals.staged(chosen, 0.0, np.random.default_rng(0))
    edges = np.cumsum([0.0, *(stage.duration for stage in chosen)])
    counts = np.histogram(times, edges)[0]
    expected = np.cumsum([stage.expected for stage in chosen])
    assert np.all(np.abs(np.cumsum(counts) - expected) <= 1 + 1e-6)


def test_a_ramp_sends_as_many_in_its_last_quarter_as_a_ramp_should():
    times = arrivals.staged([Stage(100, 0, 80)], 1.0, np.random.default_rng(5))
    assert len(times) == pytest.approx(4000, rel=0.05)
    assert (times > 75).mean() == pytest.approx(1 - 0.75**2, abs=0.03)


def test_the_waiting_times_of_drawn_arrivals_are_those_of_queueing_theory():
    """M/D/1: fixed service of 1, Poisson arrivals; the mean wait is load / (2 (1 - load))."""
    for load in (0.3, 0.6):
        gaps = np.diff(draw(rate=load, duration=400_000, seed=6))
        wait, total = 0.0, 0.0
        for gap in gaps.tolist():
            wait = max(0.0, wait + 1.0 - gap)
            total += wait
        assert total / len(gaps) == pytest.approx(load / (2 * (1 - load)), rel=0.05)
