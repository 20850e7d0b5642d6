import pytest

from loadtests.dialects.http import HTTPRequest
from loadtests.errors import ProbeFailed
from loadtests.quick import measure
from loadtests.result import build
from loadtests.sample import Sample
from tests.loadtests.recorded import recorded


def measuring(took, **fields):
    """Runs that take `took` seconds a request, and the scenarios that were asked for."""
    asked = []

    def run(scenario):
        asked.append(scenario)
        samples = [
            Sample(0, row * took, sent=row * took, ended=(row + 1) * took, **fields) for row in range(20)
        ]
        return build(scenario, "http://127.0.0.1:1", recorded(samples))

    return asked, run


def test_the_load_is_half_of_what_one_client_alone_gets_through():
    said = []
    asked, run = measuring(took=0.01)
    measure(HTTPRequest(dialect="http"), 30, run, said.append)
    alone, loaded = (scenario.arrivals for scenario in asked)
    assert alone.kind == "single-stream"
    assert (loaded.kind, loaded.rate) == ("poisson", pytest.approx(50))
    assert sum(scenario.span for scenario in asked) <= 30
    assert "10.00 ms a request" in said[0]


def test_a_server_that_only_fails_is_not_loaded():
    asked, run = measuring(took=0.01, error="http_500", detail="?")
    with pytest.raises(ProbeFailed, match="no request was answered well"):
        measure(HTTPRequest(dialect="http"), 30, run, print)
    assert len(asked) == 1


@pytest.mark.parametrize("end", [ProbeFailed("GET / answered 503"), KeyboardInterrupt()])
def test_what_was_measured_alone_is_kept_where_the_load_cannot_be(end):
    asked, run = measuring(took=0.01)

    def once(scenario):
        if asked:
            raise end
        return run(scenario)

    result, cut = measure(HTTPRequest(dialect="http"), 30, once, lambda line: None)
    assert result.scenario.arrivals.kind == "single-stream"
    assert result.summary.requests == 20
    assert "before the load of 50.0/s" in cut
    assert str(end) in cut
