from html.parser import HTMLParser

import numpy as np
import pytest

from loadtests.compare import Comparison, Side, judge, overall, ratio
from loadtests.html import page
from loadtests.monitor import Usage
from loadtests.point import Series, knee, point
from loadtests.result import build
from loadtests.sample import Sample
from tests.loadtests.recorded import recorded

VOID = {"meta", "br", "link", "img", "input"}


class Checker(HTMLParser):
    """Every element that opens must close, and none may ask for anything from elsewhere."""

    def __init__(self):
        super().__init__()
        self.open = []
        self.titles = []

    def handle_starttag(self, tag, attributes):
        assert not {"src", "href", "onload"} & {name for name, _ in attributes}
        assert "url(" not in str(attributes)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.titles.append(data)


def check(text):
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert "@import" not in text
    assert "default-src 'none'" in text
    return checker.titles


def streams(count=60, **fields):
    return [
        Sample(
            0,
            planned=row / 10,
            sent=row / 10,
            ended=row / 10 + 0.2,
            tokens=4,
            token_times=tuple(row / 10 + 0.05 * step for step in (1, 2, 3, 4)),
            row=row,
            **fields,
        )
        for row in range(count)
    ]


@pytest.fixture
def scenario(scenario):
    return scenario(duration=5, warmup=1, objectives={"p99_ms": 100})


def run(scenario, samples, **fields):
    recording = recorded(samples, **fields)
    recording.observed.usage += [Usage(at, at / 2, 2**20, 1) for at in (0.0, 2.0, 4.0)]
    return build(scenario, "http://127.0.0.1:1", recording)


def test_the_page_of_a_run_has_every_drawing_that_there_is_something_for(scenario):
    failed = Sample(0, planned=2.0, sent=2.0, ended=2.1, error="http_500", detail="<script>alert(1)</script>")
    text = page.of_run(run(scenario, [*streams(), failed]))
    assert check(text) == [
        "Latency over time",
        "Distribution",
        "Sent and answered",
        "Gaps between tokens",
        "Errors",
        "Server CPU",
    ]
    assert "<script>" not in text
    assert "missed" in text
    assert "arrivals:" in text


@pytest.mark.parametrize("count", [0, 1, 2, 5000])
def test_a_page_is_whole_however_little_or_much_was_measured(scenario, count):
    text = page.of_run(run(scenario, streams(count), interrupted_at=1.5))
    check(text)
    assert "the run was interrupted" in text
    assert len(text) < 600_000


def test_a_run_in_which_everything_failed_has_a_page(scenario):
    titles = check(page.of_run(run(scenario, streams(20, error="timeout", detail="?"))))
    assert titles == ["Sent and answered", "Errors", "Server CPU"]


def test_the_page_of_a_sweep_has_the_knee(scenario):
    results = [run(scenario, streams(count)) for count in (20, 60, 40)]
    points = [point(result, load) for load, result in enumerate(results, 1)]
    series = Series(
        kind="search",
        unit="users",
        points=points,
        knee=knee(points),
        highest_pass=2.0,
        url="http://127.0.0.1:1",
        scenario=scenario,
        machine=results[0].machine,
        versions={},
        server=results[0].server,
    )
    text = page.of_series(series)
    assert check(text) == ["Throughput against latency"]
    assert "knee: 2 users" in text
    assert "highest rate that meets the objectives 2/s" in text


def comparison(scenario, ratios, summaries):
    result = run(scenario, streams())
    return Comparison(
        verdict=overall(ratios),
        ratios=ratios,
        first=Side(name="a", url="http://a", runs=summaries),
        second=Side(name="b & c", url="http://b", runs=summaries),
        invalid=[],
        scenario=scenario,
        machine=result.machine,
        versions={},
    )


def test_the_page_of_a_comparison_has_its_intervals(scenario):
    summaries = [run(scenario, streams(30 + pair)).summary for pair in range(6)]
    text = page.of_comparison(comparison(scenario, judge(summaries, summaries, 0.5), summaries))
    assert check(text) == ["Ratios"]
    assert "cannot tell" in text
    assert "b &amp; c against a" in text


def test_the_page_of_a_comparison_can_draw_an_interval_that_says_nothing(scenario):
    one, wide = np.full(6, 20.0), np.array([20, 20, 20, 20, 20.001, 2])
    ratios = [ratio("goodput", one, wide, 0.01), ratio("latency p50", wide, one, 0.01)]
    text = page.of_comparison(comparison(scenario, ratios, []))
    assert check(text) == ["Ratios"]
    assert "nan" not in text
