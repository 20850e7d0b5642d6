import numpy as np

from loadtests.steady import find


def times(count):
    return np.arange(count) * 10.0


def noise(count, seed=0):
    return np.random.default_rng(seed).gamma(4, 5, count)


def test_what_is_steady_from_the_start_is_measured_from_the_start():
    starts = [find(times(1000), noise(1000, seed)).from_ms for seed in range(20)]
    assert sorted(starts)[10] < 1500


def test_a_cold_start_is_left_out():
    values = noise(1000)
    values[:200] += np.linspace(200, 0, 200)
    assert 1000 <= find(times(1000), values).from_ms <= 2500


def test_a_queue_that_grows_and_grows_never_settles():
    assert find(times(1000), noise(1000) + np.arange(1000)).from_ms is None


def test_nothing_is_said_of_few_samples():
    assert find(times(99), noise(99)) is None
