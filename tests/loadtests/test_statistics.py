import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.statistics import PERCENTILES, bounding_rank, describe, label, nearest_rank, samples_needed

samples = st.lists(st.floats(0, 1e6), min_size=1, max_size=300)


@given(samples)
def test_a_percentile_is_the_smallest_sample_with_enough_at_or_below_it(values):
    for percent in PERCENTILES:
        needed = percent / 100 * len(values) - 1e-9
        found = sorted(values)[nearest_rank(len(values), percent) - 1]
        assert sum(value <= found for value in values) >= needed
        assert sum(value < found for value in values) < needed + 1e-6
        assert describe(values).percentiles[label(percent)].value in (found, None)


@given(samples)
def test_percentiles_ascend_between_the_extremes_and_bounds_lie_above_them(values):
    distribution = describe(values)
    values_given = [percentile.value for percentile in distribution.percentiles.values()]
    ascending = [value for value in values_given if value is not None]
    assert [distribution.min, *ascending, distribution.max] == sorted([min(values), *ascending, max(values)])
    for percentile in distribution.percentiles.values():
        assert (percentile.value is None) == (percentile.upper_bound is None)
        assert percentile.value is None or percentile.value <= percentile.upper_bound <= distribution.max


@pytest.mark.parametrize(("percent", "floor"), [(50, 11), (90, 64), (95, 130), (99, 662), (99.9, 6636)])
def test_sample_floors_are_those_of_mlperf_loadgen(percent, floor):
    assert describe([1.0] * (floor - 1)).percentiles[label(percent)].value is None
    assert describe([1.0] * floor).percentiles[label(percent)].value == 1.0
    assert samples_needed(percent) == floor
    assert bounding_rank(floor - 1, percent) == 0
    assert bounding_rank(floor, percent) == 1


@pytest.mark.parametrize(
    ("count", "would_discard"), [(2048, 172), (2116, 178), (2145, 181), (4_776_846, 476_158)]
)
def test_ranks_agree_with_published_loadgen_logs(count, would_discard):
    """`Processed at least 64 queries (2048). Would discard 172 highest latency queries.`"""
    assert bounding_rank(count, 90) - 1 == would_discard


@given(st.integers(1, 400), st.sampled_from(PERCENTILES))
def test_the_rank_follows_the_binomial_distribution(count, percent):
    slow = 1 - percent / 100

    def at_most(limit):
        return sum(math.comb(count, k) * slow**k * (1 - slow) ** (count - k) for k in range(limit + 1))

    rank = bounding_rank(count, percent)
    assert at_most(rank + 1) > 0.01
    assert rank == 0 or at_most(rank) <= 0.01


def test_the_bound_holds_in_99_of_100_experiments():
    draws = np.random.default_rng(0).exponential(size=(4000, 700))
    rank = bounding_rank(700, 99)
    bounds = np.sort(draws, axis=1)[:, 700 - rank]
    assert np.mean(bounds >= -math.log(0.01)) >= 0.99


def test_nothing_is_said_of_no_samples():
    assert describe([]) is None
