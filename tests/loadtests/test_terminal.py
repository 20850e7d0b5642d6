import io

from rich.console import Console

from loadtests.result import build
from loadtests.sample import Sample
from loadtests.terminal import render
from tests.loadtests.recorded import recorded


def shown(scenario, requests, **fields):
    samples = [
        Sample(
            number % len(scenario.mix),
            planned=number / 100,
            sent=number / 100,
            ended=number / 100 + 0.02,
            **fields,
        )
        for number in range(requests)
    ]
    console = Console(file=io.StringIO(), width=80)
    console.print(render(build(scenario, "http://127.0.0.1:1", recorded(samples))))
    return console.file.getvalue()


def test_percentiles_without_enough_samples_are_not_given(scenario):
    text = shown(scenario(duration=10, objectives={"p99_ms": 50}), requests=100)
    latency = next(line for line in text.splitlines() if " latency " in line)
    assert (latency.count("20.0"), latency.count("n/a")) == (3, 3)
    assert "p95 needs 130, p99 needs 662, p99.9 needs 6636" in text
    assert "p99_ms n/a (0 of 100 samples beyond) of at most 50: met, not proven" in text
    assert text.startswith("PASS")


def test_with_enough_samples_every_percentile_is_given(scenario):
    text = shown(scenario(duration=100), requests=7000)
    assert "n/a" not in text


def test_errors_are_shown_with_their_first_words(scenario):
    text = shown(scenario(duration=10), requests=10, error="http_500", detail="out of memory")
    assert text.startswith("FAIL")
    assert "error http_500 x 10, the first: out of memory" in text


def test_each_entry_of_a_mix_has_its_rows(scenario):
    mix = [{"dialect": "http", "path": "/a"}, {"dialect": "http", "path": "/b"}]
    text = shown(scenario(duration=10, mix=mix), requests=100)
    assert "GET /a: latency" in text
    assert "GET /b: latency" in text
