import numpy as np
import pytest

from loadtests.compare import Target, compare, half_an_answer, interval, judge, overall, ratio, verdict
from loadtests.errors import InvalidOption, ProbeFailed
from loadtests.result import build
from loadtests.sample import Sample
from loadtests.summary import Window, summarise
from tests.loadtests.recorded import columns, recorded

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
    return overall(judge(*sides, 0.05))


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


def test_a_server_that_answers_nothing_is_worse_and_one_that_does_better():
    def runs(**last):
        samples = [Sample(0, at / 8, sent=at / 8, ended=at / 8 + 0.01, **last) for at in range(8)]
        return [summarise(columns(samples), Window(0.0, 1e3), {})] * PAIRS

    sound, dead = runs(), runs(error="timeout")
    (found,) = judge(sound, dead, half_an_answer(Window(0.0, 1e3)))
    assert (found.measure, found.second, found.verdict) == ("goodput", pytest.approx(0.5), "worse")
    assert overall(judge(dead, sound, 0.5)) == "better"
    assert judge(dead, dead, 0.5) == []


def test_where_most_pairs_agree_and_one_does_not_the_interval_still_has_ends():
    first, second = np.full(6, 500.0), np.array([500, 500.3, 499.9, 500.1, 500, 5000])
    found = ratio("latency p50", first, second, 0.01)
    assert 0 < found.low < 1 < found.high < 1e7
    assert found.verdict == "cannot tell"
    fewer = ratio("goodput", first, first**2 / second, 0.01)
    assert 0 < fewer.low < 1 < fewer.high < 1e7


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


def served(scenario, interrupt_at=99, die_at=99):
    """Measures from formulas, and notes in which order the sides were asked."""
    asked = []

    def measure(chosen, url):
        if len(asked) == die_at:
            raise ProbeFailed("cannot reach it")
        asked.append((url, chosen.seed))
        took = 0.1 if url == "a" else 0.2
        samples = [Sample(0, row / 10, sent=row / 10, ended=row / 10 + took) for row in range(20)]
        interrupted = 1.0 if len(asked) > interrupt_at else None
        return build(chosen, url, recorded(samples, interrupted_at=interrupted))

    targets = (Target("a", "a", scenario), Target("b", "b", scenario))
    return asked, lambda: compare(targets, 6, measure)


def test_pairs_share_a_draw_and_the_side_that_goes_first_alternates(scenario):
    asked, run = served(scenario(duration=2))
    found = run()
    assert asked[:4] == [("a", 0), ("b", 0), ("b", 1), ("a", 1)]
    assert found.verdict == "worse"
    assert found.ratios[0].ratio == pytest.approx(2)


def test_an_interruption_keeps_the_pairs_that_are_whole(scenario):
    _, run = served(scenario(duration=2), interrupt_at=7)
    found = run()
    assert len(found.first.runs) == len(found.second.runs) == 3
    assert found.invalid == ["interrupted after 3 of 6 pairs"]
    with pytest.raises(InvalidOption, match="interrupted before two pairs"):
        served(scenario(duration=2), interrupt_at=2)[1]()


def test_a_server_that_dies_takes_no_pair_that_was_measured_before(scenario):
    found = served(scenario(duration=2), die_at=7)[1]()
    assert len(found.first.runs) == len(found.second.runs) == 3
    assert found.invalid == ["ended after 3 of 6 pairs: cannot reach it"]
    with pytest.raises(ProbeFailed):
        served(scenario(duration=2), die_at=3)[1]()


def test_two_servers_that_answer_nothing_cannot_be_compared(scenario):
    def measure(chosen, url):
        samples = [Sample(0, row / 10, sent=row / 10, ended=row / 10, error="timeout") for row in range(20)]
        return build(chosen, url, recorded(samples))

    target = Target("a", "a", scenario(duration=2))
    found = compare((target, target), 6, measure)
    assert (found.ratios, found.verdict) == ([], "cannot tell")
    assert "nothing to compare" in found.invalid[0]
