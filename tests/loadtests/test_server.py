import pytest

from loadtests.monitor import Observed, Usage
from loadtests.sample import Manner, Sample
from loadtests.server import describe
from tests.loadtests.recorded import columns

SCRAPE = """\
# TYPE modelpress_request_duration_seconds histogram
modelpress_request_duration_seconds_count{{model="m",route="/v1/completions",status="200"}} {answered}
modelpress_request_duration_seconds_sum{{model="m",route="/v1/completions",status="200"}} 1.5
modelpress_request_duration_seconds_count{{model="-",route="/metrics",status="200"}} {scrapes}
modelpress_request_duration_seconds_sum{{model="-",route="/metrics",status="200"}} 0.1
# TYPE modelpress_generated_tokens_total counter
modelpress_generated_tokens_total{{model="m"}} {tokens}
# TYPE modelpress_requests_in_flight gauge
modelpress_requests_in_flight {busy}
"""


def observed(answered, tokens):
    scrapes = [(99.0, (3, 0, 1)), (101.0, (7, 20, 5)), (103.0, (answered, tokens, 2))]
    texts = [
        (at, SCRAPE.format(answered=count, tokens=made, scrapes=at, busy=busy))
        for at, (count, made, busy) in scrapes
    ]
    usage = [Usage(99.0, 10.0, 100, 2), Usage(101.0, 11.0, 300, 2), Usage(103.0, 14.0, 200, 2)]
    return Observed(texts, usage)


def samples(**last):
    good = [Sample(0, 100.0 + n, sent=100.0 + n, ended=101.0 + n, tokens=5) for n in range(4)]
    return columns([*good, Sample(0, 105.0, sent=105.0, ended=106.0, **last)], 100.0)


def seen(answered, made, **last):
    found = describe(observed(answered, made), 100.0, samples(**last), unfinished=0)
    return found, {one.what: (one.clients, one.server, one.agree) for one in found.reconciled}


def test_the_servers_counts_stand_beside_the_clients():
    found, counts = seen(8, 25, tokens=5)
    assert counts == {"requests": (5, 5, True), "tokens": (25, 25, True)}
    assert found.scrapes == 3
    assert found.changes['modelpress_generated_tokens_total{model="m"}'] == 25


def test_a_server_that_counts_otherwise_disagrees():
    assert seen(9, 30, tokens=5)[1] == {"requests": (5, 6, False), "tokens": (25, 30, False)}


def test_a_client_that_left_may_or_may_not_have_been_counted():
    for answered in (7, 8):
        counts = seen(answered, 22, manner=Manner.CANCEL)[1]
        assert counts["requests"] == (4, answered - 3, True)
        assert counts["tokens"] == (20, 22, True)


def test_gauges_that_move_are_kept_with_their_times():
    moments = seen(8, 25)[0].gauges["modelpress_requests_in_flight"]
    assert [(moment.at_ms, moment.value) for moment in moments] == [(-1000, 1), (1000, 5), (3000, 2)]


def test_cores_and_memory_are_those_of_the_processes():
    found = seen(8, 25)[0]
    assert (found.processes, found.cpu_cores, found.memory_bytes) == (2, 1.0, 300)
    assert [moment.value for moment in found.cpu] == [0.5, 1.5]


@pytest.mark.parametrize(
    "text", ['# TYPE a counter\na_total{x="y} 1\n', "# TYPE a gauge\na\n", "# TYPE a gauge\n}{\n"]
)
def test_what_is_no_exposition_is_left_out(text):
    sound = [(99.0, SCRAPE.format(answered=3, tokens=0, scrapes=1, busy=1)), (102.0, text)]
    found = describe(Observed([*sound, (103.0, sound[0][1])]), 100.0, samples(), unfinished=0)
    assert found.scrapes == 2


def test_a_value_that_is_no_number_is_left_out():
    text = "# TYPE a gauge\na {0}\n# TYPE http_requests_total counter\nhttp_requests_total {0}\n"
    scrapes = [(99.0, text.format("NaN")), (103.0, text.format("NaN")), (104.0, text.format("+Inf"))]
    found = describe(Observed(scrapes), 100.0, samples(), unfinished=0)
    assert (found.changes, found.gauges, found.reconciled) == ({}, {}, [])


def test_a_server_that_says_nothing_has_nothing_said_of_it():
    found = describe(Observed(), 100.0, samples(), unfinished=0)
    assert (found.reconciled, found.gauges, found.cpu_cores) == ([], {}, None)
