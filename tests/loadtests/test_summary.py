from loadtests.sample import Manner, Sample
from loadtests.summary import Errors, Window
from loadtests.summary import summarise as summarise_columns
from tests.loadtests.recorded import columns

WINDOW = Window(1000.0, 11000.0)


def summarise(samples, window, limits, at_once=1):
    return summarise_columns(columns(samples), window, limits, at_once)


def sample(planned, latency, **fields):
    return Sample(request=0, planned=planned, sent=planned, ended=planned + latency, **fields)


def test_only_what_was_planned_in_the_window_is_measured():
    summary = summarise(
        [sample(0.5, 9.0), sample(1.0, 0.1), sample(10.9, 0.2), sample(11.0, 9.0)], WINDOW, {}
    )
    assert summary.requests == 2
    assert (summary.latency_ms.min, summary.latency_ms.max) == (100.0, 200.0)


def test_throughput_counts_what_arrived_in_the_window():
    on_time, from_warmup, too_late = sample(2.0, 1.0), sample(0.5, 1.0), sample(10.5, 1.0)
    assert summarise([on_time, from_warmup, too_late], WINDOW, {}).throughput_rps == 0.2


def test_goodput_leaves_out_the_slow_and_the_failed():
    samples = [sample(2.0, 0.05), sample(3.0, 0.2), sample(4.0, 0.01, error="timeout")]
    summary = summarise(samples, WINDOW, {"latency": 100.0})
    assert (summary.throughput_rps, summary.goodput_rps) == (0.2, 0.1)
    assert summary.error_rate == 1 / 3


def test_every_limit_counts_towards_goodput():
    quick = sample(2.0, 1.0, tokens=3, token_times=(2.1, 2.5, 3.0))
    limits = {"latency": 1500.0, "ttft": 150.0, "tpot": 500.0}
    assert summarise([quick], WINDOW, limits).goodput_rps == 0.1
    for measure in limits:
        assert summarise([quick], WINDOW, limits | {measure: 50.0}).goodput_rps == 0


def test_failed_requests_are_counted_by_kind_with_their_first_words():
    samples = [sample(2.0, 0.1, error=kind, detail=detail) for kind, detail in [
        ("timeout", "a"), ("http_500", "b"), ("http_500", "c")
    ]]  # fmt: skip
    summary = summarise(samples, WINDOW, {})
    assert summary.errors == {"http_500": Errors(2, "b"), "timeout": Errors(1, "a")}
    assert summary.latency_ms is None
    assert summary.lag_ms.samples == 3


def test_tokens_and_their_times_are_summed_up():
    streams = [sample(2.0, 1.0, tokens=3, token_times=(2.2, 2.6, 3.0)), sample(3.0, 1.0)]
    summary = summarise(streams, WINDOW, {})
    assert summary.tokens_per_s == 0.3
    assert summary.ttft_ms.mean == 200.0
    assert summary.tpot_ms.mean == 400.0
    assert summary.itl_ms.samples == 2
    assert summarise([sample(3.0, 1.0)], WINDOW, {}).tokens_per_s is None


def test_an_empty_window_has_no_rates():
    assert summarise([], Window(1000.0, 1000.0), {}).throughput_rps == 0.0


def test_clients_that_leave_or_dawdle_count_in_no_percentile():
    samples = [
        sample(2.0, 0.1),
        sample(3.0, 0.01, manner=Manner.CANCEL),
        sample(4.0, 3.0, manner=Manner.SLOW),
    ]
    summary = summarise(samples, WINDOW, {"latency": 5000.0})
    assert (summary.requests, summary.cancelled, summary.slow, summary.failed) == (3, 1, 1, 0)
    assert summary.latency_ms.max == 100.0
    assert (summary.throughput_rps, summary.goodput_rps) == (0.2, 0.1)


def test_rows_are_counted_where_requests_carry_several():
    summary = summarise([sample(2.0, 0.1, rows=8), sample(3.0, 0.1, rows=4)], WINDOW, {})
    assert (summary.throughput_rps, summary.rows_per_s) == (0.2, 1.2)


def test_a_query_is_as_slow_as_its_last_answer_and_needs_all_of_them():
    whole = [sample(2.0, 0.1), sample(2.0, 0.4)]
    broken = [sample(3.0, 0.2), sample(3.0, 9.0, error="timeout")]
    queries = summarise(whole + broken, WINDOW, {}, at_once=2).query_ms
    assert (queries.samples, queries.max) == (1, 400.0)
