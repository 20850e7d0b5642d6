import json

import pytest

from loadtests.result import build
from loadtests.sample import Sample
from loadtests.statistics import describe
from tests.loadtests.recorded import recorded


@pytest.fixture
def result(scenario):
    """20 requests a second apart, two of them in the warm-up and one failed, recorded in disorder."""
    samples = [
        Sample(
            request=number % 2,
            planned=100.0 + number,
            sent=100.0001 + number,
            ended=100.05 + number + number / 1000,
            error="timeout" if number == 7 else None,
            tokens=3,
            token_times=(100.01 + number, 100.03 + number, 100.05 + number),
        )
        for number in reversed(range(20))
    ]
    recording = recorded(samples, start=100.0)
    keys = {
        "arrivals": {"kind": "constant", "rate": 1},
        "duration": 18,
        "warmup": 2,
        "objectives": {"p90_ms": 90},
    }
    return build(scenario(**keys, mix=[{"dialect": "http"}] * 2), "http://127.0.0.1:1", recording)


def test_the_percentiles_can_be_computed_again_from_the_document(result):
    document = json.loads(result.model_dump_json())
    samples, warmup = document["samples"], document["scenario"]["warmup"] * 1000
    rows = zip(samples["planned_ms"], samples["latency_ms"], samples["error"], strict=True)
    latencies = [latency for planned, latency, error in rows if planned >= warmup and error is None]
    again = describe(latencies)
    measured = document["summary"]["latency_ms"]
    assert measured["samples"] == again.samples == 17
    assert measured["max"] == again.max
    for name, percentile in again.percentiles.items():
        assert measured["percentiles"][name]["value"] == percentile.value
        assert measured["percentiles"][name]["upper_bound"] == percentile.upper_bound


def test_the_document_says_what_was_measured_where_and_by_what(result):
    document = json.loads(result.model_dump_json())
    assert document["schema_version"] == 1
    assert document["scenario"]["seed"] == 0
    assert document["machine"]["cpu_count"] >= 1
    assert {"python", "modelpress", "httptools", "numpy"} <= set(document["versions"])
    assert document["counts"] == {"planned": 20, "sent": 20, "measured": 18, "unfinished": 0, "skipped": 0}
    assert document["samples"]["planned_ms"] == [1000.0 * number for number in range(20)]
    assert document["samples"]["itl_ms"][0] == [20.0, 20.0]
    assert (document["outcome"], document["invalid"]) == ("fail", [])


def test_each_entry_of_the_mix_has_its_own_summary(result):
    assert [summary.requests for summary in result.by_request] == [9, 9]
    assert [summary.failed for summary in result.by_request] == [0, 1]


def test_an_interruption_shortens_the_window(scenario):
    samples = [Sample(0, 100.0 + number, sent=100.0 + number, ended=100.5 + number) for number in range(5)]
    recording = recorded(samples, start=100.0, interrupted_at=105.0)
    result = build(scenario(duration=20), "http://127.0.0.1:1", recording)
    assert result.summary.throughput_rps == 1.0
    assert result.generator.offered_rps == 1.0


def answered(count, took, **fields):
    """Requests 0.1 s apart, each of which took so many seconds times its number."""
    samples = [
        Sample(0, 100 + row / 10, sent=100 + row / 10, ended=100 + row / 10 + took * (row + 1), row=row)
        for row in range(count)
    ]
    return recorded(samples, start=100.0, **fields)


def test_a_number_of_requests_is_measured_until_the_last_answer_however_long_it_might_have_taken(scenario):
    for duration in (None, 60):
        offline = scenario(arrivals={"kind": "offline", "requests": 20}, duration=duration)
        result = build(offline, "http://127.0.0.1:1", answered(20, took=0.005))
        assert result.summary.throughput_rps == pytest.approx(10, rel=0.01)
    cut = scenario(arrivals={"kind": "offline", "requests": 90}, duration=4)
    assert build(cut, "http://127.0.0.1:1", answered(20, took=0.005)).window.end == 4000


@pytest.mark.parametrize("arrivals", [{"kind": "offline", "requests": 200}, {"kind": "constant", "rate": 10}])
def test_a_run_that_never_settles_is_measured_from_the_half_of_what_there_was(scenario, arrivals):
    """Each answer slower than the one before; the open loop was to go on for 10 minutes more."""
    keys = {"arrivals": arrivals, "warmup": "auto", "duration": None if "requests" in arrivals else 620}
    interrupted = None if "requests" in arrivals else 120.0
    recording = answered(200, took=0.001, interrupted_at=interrupted)
    result = build(scenario(**keys), "http://127.0.0.1:1", recording)
    assert result.steady.from_ms is None
    assert result.window.start == pytest.approx(result.window.end / 2)
    assert result.summary.requests == pytest.approx(100, abs=2)
    assert type(result).model_validate_json(result.model_dump_json()).window == result.window
