from loadtests.objectives import Limit, Objectives, limits, limits_per_request


def test_a_name_gives_a_measure_and_a_percentile():
    assert limits(Objectives(p50_ms=10, p99_9_ms=50, ttft_p90_ms=200, tpot_p99_ms=30)) == [
        Limit("p50_ms", "latency", 50.0, 10),
        Limit("p99_9_ms", "latency", 99.9, 50),
        Limit("ttft_p90_ms", "ttft", 90.0, 200),
        Limit("tpot_p99_ms", "tpot", 99.0, 30),
    ]


def test_one_request_may_take_what_the_loosest_limit_on_a_measure_allows():
    assert limits_per_request(Objectives(p50_ms=10, p99_ms=50, ttft_p90_ms=200)) == {
        "latency": 50,
        "ttft": 200,
    }


def test_without_objectives_only_errors_are_objected_to():
    assert limits(Objectives()) == []
    assert Objectives().error_rate == 0
