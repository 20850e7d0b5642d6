from dataclasses import replace

import pytest

from loadtests.objectives import Objectives
from loadtests.sample import Sample
from loadtests.summary import Window, summarise
from loadtests.verdict import Generator, judge, outcome, why_invalid
from tests.loadtests.recorded import columns

FINE = Generator(offered_rps=100, achieved_rps=100, late=0, cpu_share=0.3, interrupted=False)


def planned(latencies, lag=0.0, error=None):
    return columns([Sample(0, 0.0, sent=lag, ended=latency, error=error) for latency in latencies])


def summary(samples):
    return summarise(samples, Window(0.0, 10_000.0), {})


def reasons(generator=FINE, **measured):
    whole = planned(**{"latencies": [0.05] * 100} | measured)
    return list(why_invalid(summary(whole), [whole], generator))


def test_an_objective_is_proven_only_by_enough_samples():
    few, many = planned([0.04] * 200), planned([0.04] * 700)
    for measured, value, proven in ((few, None, False), (many, 40.0, True)):
        judgement = judge(Objectives(p99_ms=50), measured)[1]
        assert (judgement.value, judgement.met, judgement.proven) == (value, True, proven)


@pytest.mark.parametrize(("slow", "met"), [(6, True), (7, False)])
def test_an_objective_without_samples_for_its_percentile_is_judged_by_how_many_lie_beyond(slow, met):
    judgement = judge(Objectives(p90_ms=50), planned([0.04] * (63 - slow) + [0.06] * slow))[1]
    assert (judgement.value, judgement.samples, judgement.beyond) == (None, 63, slow)
    assert (judgement.met, judgement.proven) == (met, False)


def test_an_objective_met_by_chance_is_met_and_not_proven():
    judgement = judge(Objectives(p90_ms=50), planned([0.04] * 91 + [0.06] * 9))[1]
    assert (judgement.met, judgement.proven) == (True, False)


def test_a_missed_or_unmeasured_objective_fails_the_run():
    for objectives, measured in (
        (Objectives(p50_ms=30), planned([0.04] * 20)),
        (Objectives(ttft_p50_ms=30), planned([0.04] * 20)),
        (Objectives(error_rate=0.5), planned([0.04] * 20, error="timeout")),
    ):
        assert outcome([], judge(objectives, measured)) == "fail"
    assert outcome([], judge(Objectives(), planned([0.04]))) == "pass"


def test_errors_are_objected_to_unless_they_are_allowed():
    failed = planned([0.04] * 20, error="http_500")
    assert outcome([], judge(Objectives(), failed)) == "fail"
    assert outcome([], judge(Objectives(error_rate=1.0), failed)) == "pass"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"achieved_rps": 90.0}, "sent 90.0/s of 100.0/s planned"),
        ({"cpu_share": 0.99}, "99% of its one core"),
        ({"interrupted": True}, "interrupted"),
    ],
)
def test_a_generator_that_was_the_bottleneck_makes_the_run_invalid(change, reason):
    assert reason in reasons(replace(FINE, **change))[0]
    assert outcome([reason], []) == "invalid"


def test_lag_matters_when_it_could_change_the_figure():
    assert reasons() == []
    assert reasons(lag=0.009) == []
    assert "1 % of sends by 20.0 ms or more, allowed are 10.0" in reasons(lag=0.02)[0]
    assert reasons(lag=0.02, latencies=[0.5] * 100) == []


def test_lag_is_held_against_the_latency_of_its_own_kind_of_request():
    quick, slow = planned([0.05] * 100, lag=0.02), planned([5.0] * 100, lag=0.02)
    assert list(why_invalid(summary(slow), [slow], FINE)) == []
    assert "sent late" in next(why_invalid(summary(slow), [slow, quick], FINE))


def test_the_generators_own_failures_and_an_empty_run_are_no_measurement():
    assert "on the generator's side" in reasons(error="generator")[0]
    assert reasons(latencies=[]) == ["no request was measured"]
