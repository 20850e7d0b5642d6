import numpy as np
import pytest

from loadtests.compare import interval, judge, overall, ratio, verdict
from loadtests.sample import Sample
from loadtests.summary import Window, summarise
from tests.loadtests.recorded import columns

PAIRS, REQUESTS = 10, 300


def one_run(generator, arrivals, slower, luck):
    """A server with one worker: lognormal service times, a queue, and a run that is a little lucky or not."""
    service = 0.01 * generator.lognormal(0, 0.5, len(arrivals)) * slower * luck
    ends, free = [], 0.0
    for arrival, time in zip(arrivals.tolist(), service.tolist(), strict=True):
        free = max(free, arrival) + time
        ends.append(free)
    samples = [Sample(0, at, sent=at, ended=end) for at, end in zip(arrivals.tolist(), ends, strict=True)]
    return summarise(columns(samples), Window(0.0, 1e3 * arrivals[-1]), {})


def simulate(seed, slower):
    """Interleaved pairs on a machine that drifts by 5 % from pair to pair and by 1 % from run to run."""
    generator = np.random.default_rng(seed)
    sides = ([], [])
    for _ in range(PAIRS):
        arrivals = np.cumsum(generator.exponential(1 / 30, REQUESTS))
        drift = generator.lognormal(0, 0.05)
        for side, factor in zip(sides, (1.0, slower), strict=True):
            side.append(one_run(generator, arrivals, factor, drift * generator.lognormal(0, 0.01)))
    return overall(judge(*sides))


def test_a_server_and_itself_cannot_be_told_apart():
    verdicts = [simulate(seed, slower=1.0) for seed in range(100)]
    assert verdicts.count("cannot tell") >= 95


def test_a_tenth_slower_is_found():
    verdicts = [simulate(seed, slower=1.1) for seed in range(100)]
    assert verdicts.count("worse") >= 90


def test_the_interval_holds_the_mean_as_often_as_it_says():
    generator = np.random.default_rng(0)
    intervals = [interval(generator.normal(0, 1, 10), 0.05) for _ in range(400)]
    assert np.mean([low <= 0 <= high for low, high in intervals]) >= 0.92


def test_what_never_differs_is_the_same():
    found = ratio("goodput", np.full(8, 20.0), np.full(8, 20.0), 0.01)
    assert (found.ratio, found.low, found.high, found.verdict) == (1.0, 1.0, 1.0, "cannot tell")


@pytest.mark.parametrize(
    ("low", "high", "higher_is_better", "expected"),
    [
        (0.9, 1.1, False, "cannot tell"),
        (1.05, 1.1, False, "worse"),
        (0.8, 0.9, False, "better"),
        (1.05, 1.1, True, "better"),
        (0.8, 0.9, True, "worse"),
    ],
)
def test_a_verdict_needs_an_interval_on_one_side_of_one(low, high, higher_is_better, expected):
    assert verdict(low, high, higher_is_better) == expected
