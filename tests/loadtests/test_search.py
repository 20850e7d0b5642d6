"""The search on servers that are formulas: what comes out must be what was put in."""

import numpy as np
import pytest

from loadtests.errors import InvalidOption, ProbeFailed
from loadtests.objectives import Limit
from loadtests.result import build
from loadtests.sample import Manner, Sample
from loadtests.search import Tally, bisect, decide, search
from loadtests.sweep import at_rates, at_users
from tests.loadtests.recorded import recorded


def server(capacity, lag=0.0, leave=0.0):
    """Takes 10 ms for 98.5 % of requests and 100 ms for the others; beyond its capacity, 1 s for all.

    The share `leave` of its clients do not wait for their answers.
    """

    def measure(scenario):
        generator = np.random.default_rng(scenario.seed)
        rate = scenario.arrivals.rate
        planned = np.arange(int(rate * scenario.span)) / rate
        slow = generator.random(len(planned)) < 0.015
        took = np.where(slow, 0.1, 0.01) if rate <= capacity else np.full(len(planned), 1.0)
        manners = np.where(generator.random(len(planned)) < leave, Manner.CANCEL, Manner.NORMAL)
        samples = [
            Sample(0, at, sent=at + lag, ended=at + lag + time, manner=Manner(manner))
            for at, time, manner in zip(planned.tolist(), took.tolist(), manners.tolist(), strict=True)
        ]
        return build(scenario, "http://127.0.0.1:1", recorded(samples))

    return measure


@pytest.fixture
def scenario(scenario):
    return lambda **keys: scenario(**{"duration": 20, "objectives": {"p95_ms": 50}} | keys)


@pytest.mark.parametrize("start", [1, 37, 500])
def test_the_capacity_is_found_from_wherever_the_search_starts(scenario, start):
    found = search(scenario(), server(capacity=42), start=start)
    assert found.highest_pass <= 42 < found.lowest_fail
    assert found.lowest_fail / found.highest_pass <= 1.05
    assert [point.load for point in found.points] == sorted(point.load for point in found.points)


def test_clients_that_leave_do_not_make_a_server_fall_behind(scenario):
    found = search(scenario(), server(capacity=42, leave=0.3), start=20)
    assert found.highest_pass <= 42 < found.lowest_fail


def test_a_rate_that_is_met_by_chance_is_repeated_and_does_not_pass(scenario):
    """1.5 % are slow and 1 % may be: too many, but not in every run."""
    strict = scenario(objectives={"p99_ms": 50}, duration=10)
    found = search(strict, server(capacity=100), start=30, repeats=3)
    assert found.highest_pass is None
    assert "no rate down to" in found.note
    assert max(point.runs for point in found.points) > 1


def interrupted_after(runs, end=KeyboardInterrupt):
    """A Ctrl-C that comes between two runs, when nothing is sent; or a server that is gone by then."""
    measure, done = server(capacity=100), []

    def measure_until(scenario):
        if len(done) == runs:
            raise end
        done.append(scenario)
        return measure(scenario)

    return measure_until


def test_an_interruption_between_two_runs_keeps_what_was_measured(scenario):
    found = search(scenario(), interrupted_after(2), start=20)
    assert (found.interrupted, found.highest_pass, found.note) == (True, 40, "interrupted before 80/s")
    swept = at_rates(scenario(), [20, 30, 40], interrupted_after(2))
    assert (swept.interrupted, swept.note) == (True, "interrupted before 40 requests/s")
    assert [point.load for point in swept.points] == [20, 30]


def test_a_server_that_dies_takes_no_point_that_was_measured_before(scenario):
    dead = ProbeFailed("cannot reach it")
    found = search(scenario(), interrupted_after(2, dead), start=20)
    assert (found.interrupted, found.highest_pass) == (True, 40)
    assert found.note == "interrupted before 80/s: cannot reach it"
    swept = at_rates(scenario(), [20, 30, 40], interrupted_after(2, dead))
    assert (swept.interrupted, swept.note) == (True, "interrupted before 40 requests/s: cannot reach it")
    assert [point.load for point in swept.points] == [20, 30]
    with pytest.raises(ProbeFailed):
        at_rates(scenario(), [20], interrupted_after(0, dead))


def test_an_interruption_before_the_first_run_has_nothing_to_keep(scenario):
    for run in (
        lambda measure: search(scenario(), measure, 20),
        lambda measure: at_rates(scenario(), [20], measure),
    ):
        with pytest.raises(KeyboardInterrupt):
            run(interrupted_after(0))


def test_a_limit_of_the_generator_ends_the_search_and_says_so(scenario):
    found = search(scenario(), server(capacity=1e9, lag=0.2), start=20)
    assert "says nothing about the server: the generator sent late" in found.note
    assert len(found.points) == 1


def test_without_a_limit_there_is_nothing_to_search_for(scenario):
    with pytest.raises(InvalidOption, match="no objective on a latency"):
        search(scenario(objectives={}), server(10), start=1)
    closed = scenario(arrivals={"kind": "closed", "users": 2})
    with pytest.raises(InvalidOption, match="closed arrivals have no rate"):
        search(closed, server(10), start=1)


def test_a_rate_that_would_take_for_ever_to_judge_is_refused(scenario):
    with pytest.raises(InvalidOption, match=r"below 0\.65/s runs take too long to judge; start higher"):
        search(scenario(), server(10), start=0.05)


def test_a_server_that_never_passes_ends_the_search():
    highest, lowest, note = bisect(lambda rate: False, 1.0, 0.05, 0.2, lambda: "")
    assert (highest, lowest) == (None, 0.25)
    assert note == "no rate down to 0.25/s meets the objectives"


@pytest.mark.parametrize(
    ("samples", "beyond", "expected"),
    [
        (100, 0, "undecided"),
        (662, 0, "met"),
        (10_000, 50, "met"),
        (10_000, 100, "undecided"),
        (100, 8, "missed"),
    ],
)
def test_a_verdict_needs_enough_samples_on_one_side(samples, beyond, expected):
    assert decide(Limit("p99_ms", "latency", 99.0, 50.0), Tally(samples, beyond)) == expected


def test_a_wrong_verdict_is_as_rare_as_it_should_be():
    """A server exactly at its limit is said to meet it in 1 of 100 searches, and to miss it as often."""
    generator = np.random.default_rng(0)
    limit = Limit("p90_ms", "latency", 90.0, 50.0)
    verdicts = [decide(limit, Tally(500, int(generator.binomial(500, 0.1)))) for _ in range(3000)]
    assert verdicts.count("met") <= 45
    assert verdicts.count("missed") <= 45


def test_a_sweep_measures_every_load_and_finds_the_knee(scenario):
    series = at_rates(scenario(), [80, 10, 20, 40], server(capacity=42))
    assert [point.load for point in series.points] == [10, 20, 40, 80]
    assert series.points[series.knee].load == 40
    assert series.unit == "requests/s"


def test_a_sweep_that_the_objectives_do_not_fit_is_refused(scenario):
    queries = scenario(arrivals={"kind": "multi-stream"}, objectives={"query_p99_ms": 50})
    with pytest.raises(InvalidOption, match=r"^query_p99_ms: only multi-stream arrivals have queries"):
        at_users(queries, [1], server(10))


def test_a_sweep_over_users_replaces_the_arrivals(scenario):
    seen = []

    def measure(chosen):
        seen.append(chosen.arrivals)
        return build(chosen, "http://127.0.0.1:1", recorded([Sample(0, 0.0, sent=0.0, ended=0.1)]))

    series = at_users(scenario(), [4, 1, 2], measure)
    assert [(arrivals.kind, arrivals.users) for arrivals in seen] == [("closed", n) for n in (1, 2, 4)]
    assert series.knee is None
